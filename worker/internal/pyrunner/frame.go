package pyrunner

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// FrameKind says what a frame reports. The letters are runner.py's.
type FrameKind byte

// The kinds of frames that a child sends.
const (
	// FrameValue carries what a case returned, as marshal data after one byte
	// of marks.
	FrameValue FrameKind = 'V'
	// FrameOpaque carries the repr of a value that is no builtin literal.
	FrameOpaque FrameKind = 'O'
	// FrameError carries the text of an exception that ended the case.
	FrameError FrameKind = 'E'
	// FrameMemory is FrameError for a MemoryError.
	FrameMemory FrameKind = 'M'
	// FrameExit is FrameError for SystemExit, KeyboardInterrupt and their like.
	FrameExit FrameKind = 'X'
	// FrameLimit says that the case printed or returned too much.
	FrameLimit FrameKind = 'L'
	// FrameReady says that the answer is in and a comparison may begin.
	FrameReady FrameKind = 'R'
	// FrameTruths carries what the submission's == said, a byte a candidate.
	FrameTruths FrameKind = 'T'
	// FrameFault says that the sandbox could not be entered. Run checks that
	// it comes from before the submission.
	FrameFault FrameKind = 'F'
)

// Frame is one message of a child. Everything in it is the submission's word:
// it shares the process with the code that writes frames.
type Frame struct {
	Kind FrameKind
	// Case is the number of the case in the request.
	Case int
	// CPU and Wall are what the case used; PeakKB is the process' peak resident
	// memory so far, in KiB.
	CPU, Wall time.Duration
	PeakKB    int
	// Stdout and Stderr are what the case printed, as far as it was captured in
	// the process. Body depends on Kind. All three are views into a buffer that
	// is used again after the callback returns.
	Stdout, Stderr, Body []byte
}

// frameHead is the size of runner.py's FRAME, the length field included.
const frameHead = 4 + 1 + 4*6

// errFrame is what a child gets that doesn't speak the protocol: its job ends.
var errFrame = errors.New("malformed frame")

// nextFrame cuts one frame off b. It returns what is left, and ok=false when
// the frame isn't complete yet; limit bounds what a frame may claim.
func nextFrame(b []byte, limit int) (f Frame, rest []byte, ok bool, err error) {
	if len(b) < 4 {
		return f, b, false, nil
	}
	n := int(binary.LittleEndian.Uint32(b))
	if n < frameHead-4 || n > limit {
		return f, b, false, fmt.Errorf("%w: length %d, want %d to %d", errFrame, n, frameHead-4, limit)
	}
	if len(b) < 4+n {
		return f, b, false, nil
	}
	u := func(at int) int { return int(binary.LittleEndian.Uint32(b[at:])) }
	f.Kind = FrameKind(b[4])
	f.Case = u(5)
	f.CPU = time.Duration(u(9)) * time.Microsecond
	f.Wall = time.Duration(u(13)) * time.Microsecond
	f.PeakKB = u(17)
	out, errs := u(21), u(25)
	body := b[frameHead : 4+n]
	if out > len(body) || errs > len(body)-out {
		return f, b, false, fmt.Errorf("%w: stdout %d and stderr %d of %d bytes", errFrame, out, errs, len(body))
	}
	f.Stdout, f.Stderr, f.Body = body[:out], body[out:out+errs], body[out+errs:]
	return f, b[4+n:], true, nil
}
