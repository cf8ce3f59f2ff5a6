package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/gradefleet/gradefleet/gateway/internal/fault"
)

// body is a request's body in memory that is used again after release.
type body struct {
	bytes []byte
	from  *[]byte
}

// buffers keeps bodies' memory. What is over keepBytes is left to the garbage
// collector, so that a few large bodies don't stay for good.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 8<<10); return &b }}

const keepBytes = 1 << 20

func (b *body) release() {
	if cap(*b.from) <= keepBytes {
		buffers.Put(b.from)
	}
	b.bytes, b.from = nil, nil
}

// readBody reads the body at once. One that says it is too large is refused
// unread.
func (a *api) readBody(c *gin.Context) (*body, error) {
	limit := a.MaxBody()
	declared := c.Request.ContentLength
	if declared > limit {
		return nil, fault.TooLarge(fmt.Sprintf("The body is %d bytes, the limit is %d bytes", declared, limit))
	}
	if err := hold(c, declared); err != nil {
		return nil, err
	}
	from := buffers.Get().(*[]byte)
	b := &body{from: from}
	var err error
	if declared >= 0 {
		b.bytes = resize(from, int(declared))
		_, err = io.ReadFull(c.Request.Body, b.bytes)
	} else {
		b.bytes, err = readChunks(from, c.Request.Body, limit, func(more int64) error { return hold(c, more) })
	}
	if err != nil {
		b.release()
		return nil, readFault(c, err)
	}
	a.awaitNoBody(c)
	c.Set(bodyReadKey, true)
	return b, nil
}

// resize returns *b with length n, made anew if it has no room for that.
func resize(b *[]byte, n int) []byte {
	if cap(*b) < n {
		*b = make([]byte, n)
	}
	*b = (*b)[:n]
	return *b
}

// readChunks reads a body of unknown length, up to limit. hold is told of memory
// as it is taken, and may refuse.
func readChunks(b *[]byte, r io.Reader, limit int64, hold func(more int64) error) ([]byte, error) {
	*b = (*b)[:0]
	for held := 0; ; {
		if len(*b) == cap(*b) {
			*b = append(*b, 0)[:len(*b)] // grows as append likes
		}
		if more := cap(*b) - held; more > 0 {
			if err := hold(int64(more)); err != nil {
				return nil, err
			}
			held = cap(*b)
		}
		n, err := r.Read((*b)[len(*b):cap(*b)])
		*b = (*b)[:len(*b)+n]
		if int64(len(*b)) > limit {
			return nil, fault.TooLarge(fmt.Sprintf("The body is at least %d bytes, the limit is %d bytes", len(*b), limit))
		}
		if err == io.EOF {
			return *b, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// readFault says why a body didn't arrive.
func readFault(c *gin.Context, err error) error {
	var f *fault.Error
	switch {
	case errors.As(err, &f):
		return f
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &fault.Error{Status: http.StatusRequestTimeout, Detail: "The body did not arrive in time", Cause: err}
	case c.Request.Context().Err() != nil, errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return fault.Gone()
	}
	return &fault.Error{Status: http.StatusBadRequest, Detail: "The body can't be read: " + err.Error(), Cause: err}
}

// awaitNoBody says that everything of the request was received. The time
// limit on that would otherwise end requests that wait for a worker: net/http
// takes it for a hang-up.
func (a *api) awaitNoBody(c *gin.Context) {
	// Not every writer can (a test's recorder can't); then there is no limit.
	_ = http.NewResponseController(c.Writer).SetReadDeadline(time.Time{})
}
