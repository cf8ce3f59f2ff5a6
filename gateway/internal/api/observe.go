package api

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/gradefleet/gradefleet/gateway/internal/fault"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Keys of what handlers leave in a request's context for the log and each other.
const (
	requestIDKey = "request_id"
	sessionKey   = "session"
	faultKey     = "fault"
	callerKey    = "caller"
	allowedKey   = "allowed"
	visitKey     = "visit"
	bodyReadKey  = "body_read"
)

// requestIDHeader carries a request's id, the caller's or one of ours.
const requestIDHeader = "X-Request-ID"

// requestID returns the id of the request under way.
func requestID(c *gin.Context) string { return c.GetString(requestIDKey) }

// saneRequestID reports whether a caller's id can go into headers and logs.
func saneRequestID(id string) bool {
	if id == "" || len(id) > protocol.MaxRequestIDLength {
		return false
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return false
		}
	}
	return true
}

// observe gives each request its id, counts it and logs it.
func (a *api) observe(c *gin.Context) {
	start := time.Now()
	id := c.GetHeader(requestIDHeader)
	if !saneRequestID(id) {
		id = protocol.NewID()
	}
	c.Set(requestIDKey, id)
	c.Header(requestIDHeader, id)
	a.metrics.inFlight.Inc()
	name := a.identify(c)
	a.metrics.callers.count(name)
	defer func() {
		a.metrics.inFlight.Dec()
		took := time.Since(start)
		status := c.Writer.Status()
		a.metrics.observe(c.FullPath(), c.Request.Method, status, took)
		a.access(c, id, status, took)
	}()
	c.Next()
}

// access writes the access log: at debug, and at info what went wrong here.
func (a *api) access(c *gin.Context, id string, status int, took time.Duration) {
	level := slog.LevelDebug
	if status >= http.StatusInternalServerError {
		level = slog.LevelInfo
	}
	ctx := c.Request.Context()
	if !a.Log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("request_id", id),
		slog.String("method", c.Request.Method),
		slog.String("path", c.Request.URL.Path),
		slog.Int("status", status),
		slog.Duration("took", took),
		slog.Int("bytes", c.Writer.Size()),
		slog.String("caller", caller(c)), slog.String("address", c.ClientIP()),
	}
	if session := c.GetString(sessionKey); session != "" {
		attrs = append(attrs, slog.String("session", session))
	}
	if f, ok := c.Get(faultKey); ok {
		attrs = append(attrs, slog.Any("error", f.(*fault.Error)))
	}
	a.Log.LogAttrs(ctx, level, "request", attrs...)
}
