package api

import (
	"errors"
	"io"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/gradefleet/gradefleet/gateway/internal/fault"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

var (
	errNotFound = fault.NotFound("Not Found")
	errMethod   = &fault.Error{Status: http.StatusMethodNotAllowed, Detail: "Method Not Allowed"}
)

// handle is the one place where what a handler returns becomes an answer.
func (a *api) handle(h handler) gin.HandlerFunc {
	return func(c *gin.Context) {
		result, err := h(c)
		if err != nil {
			a.fail(c, err)
			return
		}
		if result.Status == http.StatusServiceUnavailable { // said by a worker, which knows nothing of HTTP
			c.Header("Retry-After", "1")
		}
		a.write(c, result.Status, "application/json", result.Body)
	}
}

// fail answers with an error's public part; the log gets the rest.
func (a *api) fail(c *gin.Context, err error) {
	f := fault.Of(err)
	a.failWith(c, f, f.Status == http.StatusRequestEntityTooLarge || bodyAwaited(c))
}

// receivedUnread is how much of an unread body net/http receives for nothing, in
// bytes; with more on its way it cuts the connection.
const receivedUnread = 256 << 10

// bodyAwaited reports whether so much of the request may be on its way that a
// client which sends everything before it reads would not get to the answer.
func bodyAwaited(c *gin.Context) bool {
	declared := c.Request.ContentLength
	return !c.GetBool(bodyReadKey) && (declared < 0 || declared > receivedUnread)
}

// failUnread is fail for a request whose body wasn't read and may have no end:
// net/http would receive it before it answers.
func (a *api) failUnread(c *gin.Context, err error) { a.failWith(c, fault.Of(err), true) }

func (a *api) failWith(c *gin.Context, f *fault.Error, unread bool) {
	c.Set(faultKey, f)
	if f.Status == fault.StatusClientClosed {
		c.Status(f.Status) // nobody reads it
		return
	}
	if f.RetryAfter > 0 {
		c.Header("Retry-After", strconv.Itoa(f.RetryAfter))
	}
	if unread {
		a.refuseBody(c, f)
		return
	}
	a.write(c, f.Status, "application/json", protocol.ErrorBody(f.Detail))
}

const (
	// lingerTime and lingerBytes bound how much of a refused body is received.
	lingerTime  = 5 * time.Second
	lingerBytes = 64 << 20
)

// refuseBody answers before the body is there, then receives some of it for
// nothing: many clients send everything before they read, and would be told of a
// broken connection instead of the limit.
func (a *api) refuseBody(c *gin.Context, f *fault.Error) {
	rc := http.NewResponseController(c.Writer)
	early := rc.EnableFullDuplex() == nil // else net/http receives it first
	c.Header("Connection", "close")
	a.write(c, f.Status, "application/json", protocol.ErrorBody(f.Detail))
	if early && rc.Flush() == nil && rc.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
		io.CopyN(io.Discard, c.Request.Body, lingerBytes)
	}
}

func (a *api) write(c *gin.Context, status int, contentType string, body []byte) {
	if a.WriteTimeout > 0 {
		// Not every writer can; then there is no limit.
		_ = http.NewResponseController(c.Writer).SetWriteDeadline(time.Now().Add(a.WriteTimeout))
	}
	h := c.Writer.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	c.Status(status)
	c.Writer.Write(body) // an error means that the caller went away
}

// recover turns a panic into a 500.
func (a *api) recover(c *gin.Context) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(p) // net/http's own way to cut a connection
		}
		a.Log.Error("panic while answering", "panic", p, "request_id", requestID(c), "stack", string(debug.Stack()))
		if !c.Writer.Written() {
			a.fail(c, &fault.Error{Status: http.StatusInternalServerError, Detail: "Internal Server Error"})
		}
		c.Abort()
	}()
	c.Next()
}
