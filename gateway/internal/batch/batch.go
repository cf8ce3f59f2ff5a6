// Package batch grades many submissions on one connection: lines of JSON in, a
// line for each out as its answer comes. What is read ahead is bounded, so that a
// caller is held to the pace of the fleet and of its own reading; a line that is
// wrong is an error of that line only; what goes wrong on the way to a worker is
// tried again here, until the line's deadline. It does no HTTP.
package batch

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/gradefleet/gradefleet/gateway/internal/fault"
	"github.com/gradefleet/gradefleet/gateway/internal/routing"
	"github.com/gradefleet/gradefleet/gateway/internal/shape"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

const (
	// readAhead is the buffer of lines that are being read, bytes.
	readAhead = 64 << 10
	// firstRetry and lastRetry bound the wait before a line is tried again; it
	// doubles in between. A server's own wish is followed up to lastRetry.
	firstRetry = 100 * time.Millisecond
	lastRetry  = 2 * time.Second
)

// Config of batches.
type Config struct {
	// Evaluate grades one submission; it is called by many goroutines.
	Evaluate func(ctx context.Context, req routing.Request) (protocol.Result, error)
	// Enter lets a line in, when it may be read further; leave ends it.
	Enter func(ctx context.Context, caller string, bytes int64) (leave func(), err error)
	// Window is how many lines may be unanswered, and WindowBytes what they and
	// their answers may take up, bytes.
	Window      int
	WindowBytes int64
	// Deadline is how long one line may take.
	Deadline time.Duration
	// MaxLine returns the longest line, bytes.
	MaxLine func() int64
}

// Request is one batch.
type Request struct {
	// ID is the request id; lines add their numbers.
	ID     string
	Caller string
	In     io.Reader
	// Write writes one or more lines of the answer; it is called by one goroutine.
	Write func(lines []byte) error
	// Stop ends the reading: the gateway is stopping. It must also end a read
	// under way.
	Stop <-chan struct{}
	// Idle is called when no line is unanswered, and Busy when one is again.
	Idle, Busy func()
}

// batch is one under way.
type batch struct {
	Config
	Request
	out  chan answer
	slot chan struct{} // one value for each line unanswered

	mu    sync.Mutex
	room  sync.Cond
	bytes int64
	open  int
}

// answer is one line of the answer, ready to be written.
type answer struct {
	line  []byte
	bytes int64 // what the line and its answer count for in the window
	leave func()
}

// end is the last line of an answer.
type end struct {
	Done   bool   `json:"done"`
	Count  int    `json:"count"`
	Detail string `json:"detail,omitempty"`
}

// Serve answers a batch. Errors are those of reading and writing: there is nobody
// to be told.
func Serve(ctx context.Context, cfg Config, req Request) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	b := &batch{Config: cfg, Request: req, out: make(chan answer, cfg.Window), slot: make(chan struct{}, cfg.Window)}
	b.room.L = &b.mu
	stopWaiting := context.AfterFunc(ctx, b.room.Broadcast)
	defer stopWaiting()
	var writing sync.WaitGroup
	var writeErr error
	writing.Go(func() {
		writeErr = b.write(cancel)
	})
	var lines sync.WaitGroup
	count, err := b.read(ctx, &lines)
	last := end{Done: err == nil, Count: count}
	stopped := false
	select {
	case <-b.Stop:
		stopped = !last.Done
	default:
	}
	switch {
	case err == nil:
	case stopped:
		last.Detail = fmt.Sprintf("The gateway is stopping: %d lines were read and are answered; send the rest again", count)
	case errors.Is(err, ErrIdle):
		last.Detail = fmt.Sprintf("No line came for too long: %d lines were read and are answered", count)
	default:
		cancel(err) // the caller is gone: so are its jobs
	}
	lines.Wait()
	close(b.out)
	writing.Wait()
	if err = errors.Join(writeErr, context.Cause(ctx)); err != nil {
		return err
	}
	text, err := json.Marshal(last)
	if err != nil {
		return fmt.Errorf("encode end of batch: %w", err)
	}
	return b.Write(append(text, '\n'))
}

// ErrIdle is what In returns when no line came for too long.
var ErrIdle = errors.New("no line came for too long")

// read reads lines and starts them, as far as the window lets it. It returns how
// many there were.
func (b *batch) read(ctx context.Context, lines *sync.WaitGroup) (count int, err error) {
	in := bufio.NewReaderSize(b.In, readAhead)
	for {
		select {
		case <-b.Stop:
			return count, errors.New("stopped")
		case b.slot <- struct{}{}:
		case <-ctx.Done():
			return count, context.Cause(ctx)
		}
		text, tooLong, err := readLine(in, b.MaxLine())
		if err != nil && !(errors.Is(err, io.EOF) && (len(text) > 0 || tooLong > 0)) {
			<-b.slot
			if errors.Is(err, io.EOF) {
				return count, nil
			}
			return count, err
		}
		if len(bytes.TrimSpace(text)) == 0 && tooLong == 0 {
			<-b.slot
			continue
		}
		size := int64(len(text))
		leave, err := b.Enter(ctx, b.Caller, size)
		if err != nil {
			return count, err
		}
		if err := b.hold(ctx, size); err != nil {
			leave()
			return count, err
		}
		index := count
		count++
		lines.Go(func() {
			line := b.answer(ctx, index, text, tooLong)
			b.mu.Lock()
			b.bytes += int64(len(line))
			b.mu.Unlock()
			b.out <- answer{line, size + int64(len(line)), leave}
		})
	}
}

// hold waits until there is room for a line.
func (b *batch) hold(ctx context.Context, size int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.bytes > 0 && b.bytes+size > b.WindowBytes && ctx.Err() == nil {
		b.room.Wait()
	}
	b.bytes += size
	if b.open++; b.open == 1 {
		b.Busy()
	}
	return context.Cause(ctx)
}

// write writes answers as they come, several at once if they are there.
func (b *batch) write(abandon context.CancelCauseFunc) (err error) {
	var buffer []byte
	for a := range b.out {
		buffer = append(buffer[:0], a.line...)
		done := []answer{a}
	more:
		for len(buffer) < readAhead {
			select {
			case a, ok := <-b.out:
				if !ok {
					break more
				}
				buffer = append(buffer, a.line...)
				done = append(done, a)
			default:
				break more
			}
		}
		if err == nil {
			if err = b.Write(buffer); err != nil {
				abandon(err) // and go on taking what comes, so that nobody waits
			}
		}
		b.mu.Lock()
		for _, a := range done {
			b.bytes -= a.bytes
			b.open--
			a.leave()
			<-b.slot
		}
		if b.open == 0 {
			b.Idle()
		}
		b.room.Broadcast()
		b.mu.Unlock()
	}
	return err
}

// answer grades one line and returns the line that answers it.
func (b *batch) answer(ctx context.Context, index int, text []byte, tooLong int64) []byte {
	if tooLong > 0 {
		return refusal(index, nil, http.StatusRequestEntityTooLarge, fmt.Sprintf("The line is at least %d bytes, the limit is %d bytes", tooLong, b.MaxLine()))
	}
	session, ref, err := shape.BatchLine.CheckLine(text)
	if err != nil {
		return refusal(index, ref, http.StatusUnprocessableEntity, err.Error())
	}
	if err := protocol.CheckSessionID(session); err != nil {
		return refusal(index, ref, http.StatusBadRequest, err.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, b.Deadline)
	defer cancel()
	req := routing.Request{ID: b.ID + "." + strconv.Itoa(index), Session: session, Caller: b.Caller, Bulk: true, Body: text}
	backoff := firstRetry
	for {
		result, err := b.Evaluate(ctx, req)
		if err == nil {
			return encode(index, ref, result)
		}
		f := fault.Of(err)
		if f.Status != http.StatusTooManyRequests && f.Status != http.StatusServiceUnavailable {
			return refusal(index, ref, f.Status, f.Detail)
		}
		// Evaluate leaves nothing behind: asking again does no harm.
		wait := min(max(backoff, time.Duration(f.RetryAfter)*time.Second), lastRetry)
		timer := time.NewTimer(wait/2 + rand.N(wait/2))
		select {
		case <-timer.C:
		case <-b.Stop: // elsewhere it may do better
			timer.Stop()
			return refusal(index, ref, f.Status, f.Detail)
		case <-ctx.Done():
			timer.Stop()
			return refusal(index, ref, f.Status, f.Detail)
		}
		backoff = min(2*backoff, lastRetry)
	}
}

// encode makes the line of an answer.
func encode(index int, ref []byte, result protocol.Result) []byte {
	if result.Status >= http.StatusBadRequest {
		var e struct {
			Detail string `json:"detail"`
		}
		if json.Unmarshal(result.Body, &e) == nil && e.Detail != "" {
			return refusal(index, ref, result.Status, e.Detail)
		}
	}
	line := begin(make([]byte, 0, len(result.Body)+len(ref)+64), index, ref, result.Status)
	line = append(line, `,"result":`...)
	if bytes.IndexByte(result.Body, '\n') < 0 {
		line = append(line, result.Body...)
	} else {
		compact := bytes.NewBuffer(line)
		if err := json.Compact(compact, result.Body); err != nil {
			return refusal(index, ref, http.StatusInternalServerError, "The worker's answer can't be read")
		}
		line = compact.Bytes()
	}
	return append(line, "}\n"...)
}

// refusal makes the line of an error.
func refusal(index int, ref []byte, status int, detail string) []byte {
	line := begin(make([]byte, 0, len(detail)+len(ref)+64), index, ref, status)
	text, _ := json.Marshal(detail) // a string always encodes
	line = append(line, `,"detail":`...)
	return append(append(line, text...), "}\n"...)
}

func begin(line []byte, index int, ref []byte, status int) []byte {
	line = strconv.AppendInt(append(line, `{"index":`...), int64(index), 10)
	if ref != nil {
		line = append(append(line, `,"ref":`...), ref...)
	}
	return strconv.AppendInt(append(line, `,"status":`...), int64(status), 10)
}

// readLine reads a line without its end. One that is longer than limit is skipped,
// and tooLong says how much of it there was at least.
func readLine(in *bufio.Reader, limit int64) (line []byte, tooLong int64, err error) {
	for {
		part, err := in.ReadSlice('\n')
		switch {
		case tooLong > 0:
		case int64(len(line)+len(bytes.TrimRight(part, "\r\n"))) > limit:
			line, tooLong = nil, limit+1
		default:
			line = append(line, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return bytes.TrimRight(line, "\r\n"), tooLong, err
		}
	}
}
