// Package fault is the error that an HTTP caller may be told about: a status,
// a sentence written for the caller, and a cause that only the log gets. Where
// something goes wrong decides what is said; one adapter in package api writes
// it. Nothing else lives here.
package fault

import (
	"errors"
	"fmt"
	"net/http"
)

// Error is an answer that is not a success.
type Error struct {
	// Status is the HTTP status, 400 to 599.
	Status int
	// Detail is written for the caller: what is wrong, and what to do.
	Detail string
	// RetryAfter is the Retry-After header in seconds; 0 for none.
	RetryAfter int
	// Cause is for the log, never for the caller; it may be nil.
	Cause error
}

// Error implements error: what the log gets.
func (e *Error) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("%d %s: %v", e.Status, e.Detail, e.Cause)
	}
	return fmt.Sprintf("%d %s", e.Status, e.Detail)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// StatusClientClosed is the status logged and counted for a caller that went
// away before its answer; nobody receives it. Source: nginx's 499.
const StatusClientClosed = 499

// BadRequest is a 400.
func BadRequest(detail string) *Error { return &Error{Status: http.StatusBadRequest, Detail: detail} }

// NotFound is a 404.
func NotFound(detail string) *Error { return &Error{Status: http.StatusNotFound, Detail: detail} }

// Unprocessable is a 422: the request's shape is wrong.
func Unprocessable(detail string) *Error {
	return &Error{Status: http.StatusUnprocessableEntity, Detail: detail}
}

// TooLarge is a 413.
func TooLarge(detail string) *Error {
	return &Error{Status: http.StatusRequestEntityTooLarge, Detail: detail}
}

// Unavailable is a 503 worth another try in a second.
func Unavailable(detail string, cause error) *Error {
	return &Error{Status: http.StatusServiceUnavailable, Detail: detail, RetryAfter: 1, Cause: cause}
}

// Timeout is a 504.
func Timeout(detail string) *Error { return &Error{Status: http.StatusGatewayTimeout, Detail: detail} }

// Gone says that the caller went away; nobody will read it.
func Gone() *Error { return &Error{Status: StatusClientClosed, Detail: "The caller went away"} }

// Of returns err as a fault. An error that nobody expected is a 500 whose text
// stays in the log.
func Of(err error) *Error {
	var f *Error
	if errors.As(err, &f) {
		return f
	}
	return &Error{Status: http.StatusInternalServerError, Detail: "Internal Server Error", Cause: err}
}
