package session

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
)

// Kinds of [Error], to be told apart with errors.Is. After each of them the
// session is as it was before, except that parent directories may have been made.
var (
	// ErrInvalidPath: the path names no file inside a session.
	ErrInvalidPath = errors.New("invalid path")
	// ErrRefused: the path leads out of the session, or to something that is
	// not a regular file of the session's user, or its mode forbids the access.
	ErrRefused = errors.New("refused")
	// ErrNotExist: there is no such file.
	ErrNotExist = errors.New("file does not exist")
	// ErrConflict: a directory where a file is asked for, a file where a
	// directory is, a file in use, or a session that exists already.
	ErrConflict = errors.New("conflict")
	// ErrTooLarge: more bytes than one read or write may carry.
	ErrTooLarge = errors.New("too large")
	// ErrNoSpace: the disk is full, or the session's quota is.
	ErrNoSpace = errors.New("no space")
	// ErrNoSession: no session of that id here (any more).
	ErrNoSession = errors.New("no such session")
	// ErrStaleEpoch: the request is older than the session's owner here.
	ErrStaleEpoch = errors.New("stale epoch")
	// ErrBusy: the session is in use and can't be removed.
	ErrBusy = errors.New("session in use")
	// ErrNoUsers: every user id of the pool is taken.
	ErrNoUsers = errors.New("no free user id")
)

// Error is an error for the API's user.
type Error struct {
	// Kind is one of the Err variables of this package.
	Kind error
	// Text is the message for the user; it holds no host path.
	Text string
	// Cause is for the log; may be nil.
	Cause error
}

func (e *Error) Error() string { return e.Text }

// Unwrap gives errors.Is and errors.As both the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Cause}
}

func fail(kind error, format string, args ...any) error {
	return &Error{Kind: kind, Text: fmt.Sprintf(format, args...)}
}

// Texts that the API's users know.
const (
	textInvalid    = "Invalid path"
	textNotExist   = "File does not exist"
	textOldMissing = "Old file does not exist"
)

// escapes returns the error that os.Root has for a path that leads out. It has
// no exported name, so it is provoked once: ".." leads out of any Root.
var escapes = sync.OnceValue(func() error {
	root, err := os.OpenRoot("/")
	if err != nil {
		return nil
	}
	defer root.Close()
	_, err = root.Lstat("..")
	if pe, ok := errors.AsType[*os.PathError](err); ok {
		return pe.Err
	}
	return nil
})

// errEscape is our own word for the same.
var errEscape = errors.New("link leads out of the session")

func isEscape(err error) bool {
	return errors.Is(err, errEscape) || escapes() != nil && errors.Is(err, escapes())
}

// missing is the text for a file that isn't there, which depends on the
// operation; belowFile says whether a path through a file is a conflict (of a
// write) or just another way of not being there.
type missing struct {
	text      string
	belowFile error
}

var (
	readMissing   = missing{textNotExist, ErrNotExist}
	writeMissing  = missing{textNotExist, ErrConflict}
	renameMissing = missing{textOldMissing, ErrNotExist}
)

// explain turns what the kernel or os.Root said about name into an Error, or
// into a plain error for what is no fault of the caller's.
func explain(verb, name string, m missing, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	as := func(kind error, format string, args ...any) error {
		return &Error{Kind: kind, Text: fmt.Sprintf(format, args...), Cause: err}
	}
	if isEscape(err) {
		return as(ErrRefused, "Refused: a link on the way to %q leads out of the session, or is absolute", name)
	}
	errno, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		return fmt.Errorf("%s file: %w", verb, err)
	}
	switch errno {
	case syscall.ENOENT:
		return as(ErrNotExist, "%s", m.text)
	case syscall.ENOTDIR:
		if m.belowFile == ErrNotExist {
			return as(ErrNotExist, "%s", m.text)
		}
		return as(ErrConflict, "Conflict: a part of the path %q is a file, not a directory", name)
	case syscall.EISDIR, syscall.EEXIST, syscall.ENOTEMPTY:
		return as(ErrConflict, "Conflict: %q is a directory", name)
	case syscall.ELOOP, syscall.ENAMETOOLONG:
		return as(ErrRefused, "Refused: too many links on the way to %q", name)
	case syscall.EACCES, syscall.EPERM:
		return as(ErrRefused, "Refused: the mode of %q or of a directory on the way forbids it; change it with chmod", name)
	case syscall.ENXIO, syscall.ENODEV:
		return as(ErrRefused, "Refused: %q is not a regular file", name)
	case syscall.EAGAIN, syscall.ETXTBSY, syscall.EBUSY:
		return as(ErrConflict, "Conflict: %q is in use by a running command", name)
	case syscall.ENOSPC, syscall.EDQUOT:
		return as(ErrNoSpace, "No space left for %q; delete files and try again", name)
	}
	// The errno alone: an *os.PathError may carry a host path.
	return fmt.Errorf("%s file: %w", verb, errno)
}
