package fleetclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"
)

// StatusError is an answer of another status than 200.
type StatusError struct {
	Op   string
	Code int
	// Detail is the API's detail, or the start of whatever the body was.
	Detail string
	// RetryAfter is how long the server asked to wait; 0 if it didn't.
	RetryAfter time.Duration
	// Foreign is set if the body is none of the API's: another server answered, or
	// a proxy on the way.
	Foreign bool
}

func (e *StatusError) Error() string {
	if e.Foreign {
		return fmt.Sprintf("%s: status %d, which is no answer of a gateway; is the address right? %s", e.Op, e.Code, strings.Join(strings.Fields(e.Detail), " "))
	}
	return fmt.Sprintf("%s: status %d: %s", e.Op, e.Code, e.Detail)
}

// AnswerError is an answer of status 200 that isn't what the API documents.
type AnswerError struct {
	Op  string
	Err error
}

func (e *AnswerError) Error() string { return fmt.Sprintf("decode %s answer: %v", e.Op, e.Err) }

// Unwrap returns the cause.
func (e *AnswerError) Unwrap() error { return e.Err }

// maxDetailBytes is how much of an error's body is kept, in bytes.
const maxDetailBytes = 300

// maxRetryAfter bounds what a server may ask for.
const maxRetryAfter = time.Minute

func newStatusError(op string, resp *http.Response, body []byte) *StatusError {
	detail := string(body)
	var documented struct {
		Detail string `json:"detail"`
	}
	if json.Unmarshal(body, &documented) == nil && documented.Detail != "" {
		detail = documented.Detail
	}
	return &StatusError{
		Foreign:    documented.Detail == "",
		Op:         op,
		Code:       resp.StatusCode,
		Detail:     shortDetail(detail),
		RetryAfter: parseRetryAfter(resp.Header.Get("Retry-After"), time.Now()),
	}
}

// shortDetail is what an error keeps of a text.
func shortDetail(text string) string {
	if len(text) > maxDetailBytes {
		text = text[:maxDetailBytes] + "…"
	}
	return strings.ToValidUTF8(strings.TrimSpace(text), "�")
}

// parseRetryAfter reads both forms of the header (RFC 9110, 10.2.3): seconds
// or a date. What it can't read is no wish.
func parseRetryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseInt(value, 10, 32); err == nil {
		return min(max(time.Duration(seconds)*time.Second, 0), maxRetryAfter)
	}
	if date, err := http.ParseTime(value); err == nil {
		return min(max(date.Sub(now), 0), maxRetryAfter)
	}
	return 0
}

// Busy says whether the server refused a request because it has too much to do
// (429).
func Busy(err error) bool {
	e, ok := errors.AsType[*StatusError](err)
	return ok && e.Code == http.StatusTooManyRequests
}

// RetryAfter is how long the server asked to wait before the next request; 0 if
// it didn't.
func RetryAfter(err error) time.Duration {
	if e, ok := errors.AsType[*StatusError](err); ok {
		return e.RetryAfter
	}
	return 0
}

// Unreached says whether a request got no HTTP answer at all.
func Unreached(err error) bool {
	if err == nil {
		return false
	}
	_, status := errors.AsType[*StatusError](err)
	_, answer := errors.AsType[*AnswerError](err)
	return !status && !answer
}

// Transient says whether the same request may do better later: there was no
// answer, the server was busy (429), or it wasn't ready (503). A request that
// ran into its timeout would only take as long again.
func Transient(err error) bool {
	if e, ok := errors.AsType[*StatusError](err); ok {
		return e.Code == http.StatusTooManyRequests || e.Code == http.StatusServiceUnavailable
	}
	return Unreached(err) && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, ErrRemote)
}

// Reason names an error in a word or two, out of a small set: the status, or
// what became of the connection.
func Reason(err error) string {
	if e, ok := errors.AsType[*StatusError](err); ok {
		return strconv.Itoa(e.Code)
	}
	if _, ok := errors.AsType[*AnswerError](err); ok {
		return "bad answer"
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded): // net's own timeouts too
		return "timeout"
	case errors.Is(err, context.Canceled):
		return "cancelled"
	case errors.Is(err, ErrRemote):
		return "remote"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "closed"
	default:
		return "transport"
	}
}
