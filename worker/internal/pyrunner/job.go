package pyrunner

import (
	"time"

	"golang.org/x/sys/unix"
)

// Ending says who ended a child's process.
type Ending int

// How a child's process came to its end.
const (
	// EndedItself: it exited, or was killed by something other than us.
	EndedItself Ending = iota
	// EndedWall: its wall clock ran out.
	EndedWall
	// EndedOutput: it wrote more to stdout or stderr than may be.
	EndedOutput
	// EndedCancelled: the job's context was done.
	EndedCancelled
	// EndedProtocol: it sent something that is no frame.
	EndedProtocol
	// EndedStopped: the frame callback asked for it.
	EndedStopped
	// EndedGuard: the job's guard asked for it; Exit.Breach says why.
	EndedGuard
)

// Exit tells how a job's process ended, as the kernel has it.
type Exit struct {
	Status unix.WaitStatus
	// CPU is user and system time of the process and of the descendants it
	// waited for; PeakKB the peak resident memory, in KiB.
	CPU    time.Duration
	PeakKB int
	// Leftovers counts the descendants that had to be killed.
	Leftovers int
	// Ending says whether we ended it.
	Ending Ending
	// Breach is what the guard gave as its reason.
	Breach any
	// Wall is the time from the hand-over of the job to the end.
	Wall time.Duration
	// Stdout and Stderr are what went to the descriptors, up to Job.Keep each;
	// the flags tell that there was more.
	Stdout, Stderr                   []byte
	StdoutTruncated, StderrTruncated bool
}

// Job is one message for one child.
type Job struct {
	Message Message
	// Ruleset is a descriptor that the child gets with the message, for the
	// sandbox's enter(); 0 or less for none. It stays the caller's.
	Ruleset int
	// OnBlocked is called with the name of each call that was refused as one
	// that only a program makes which wants out. May be nil.
	OnBlocked func(call string)
	// Guard, if not nil, is called when the job is handed over and may from
	// then on, until the stop it returned has returned, call end from any
	// goroutine to have the process ended. server is the fork server's pid.
	Guard func(server int, end func(breach any)) (stop func())
	// Wall bounds the time from the hand-over, or from the last frame, to the
	// next frame or the end of the process.
	Wall time.Duration
	// Keep bounds what is kept of stdout and of stderr, Stop what may be
	// written to each at all, in bytes.
	Keep, Stop int
	// MaxFrame bounds a frame, in bytes.
	MaxFrame int
	// Prompt has frames read as they come. Otherwise they are read together
	// where that saves waking up for each, at most frameDelay late.
	Prompt bool
	// OnFrame is called for each frame, in order. It may return a message to
	// send to the child; Stop, to end the process. May be nil.
	OnFrame func(Frame) (reply Message, verdict Verdict)
}

// Verdict is what OnFrame wants next.
type Verdict int

// What may follow a frame.
const (
	// Continue lets the process go on.
	Continue Verdict = iota
	// Stop ends it.
	Stop
	// Protocol ends it because the frame makes no sense.
	Protocol
)
