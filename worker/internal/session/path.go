package session

import (
	"path"
	"strings"
)

// Limits of a path, those of Linux; in bytes.
const (
	// MaxPathBytes is the longest path that a file operation takes.
	MaxPathBytes = 4096
	// MaxNameBytes is the longest name of one file or directory.
	MaxNameBytes = 255
)

// cleanPath normalises a path of the API's user: "./x", "a//b", "a/" and
// "a/../b" are taken as people mean them. It only decides what is asked for;
// where that leads is the kernel's to say.
func cleanPath(rel string) (string, error) {
	switch {
	case rel == "":
		return "", fail(ErrInvalidPath, textInvalid+": it is empty")
	case len(rel) > MaxPathBytes:
		return "", fail(ErrInvalidPath, textInvalid+": %d bytes, the limit is %d", len(rel), MaxPathBytes)
	case strings.IndexByte(rel, 0) >= 0:
		return "", fail(ErrInvalidPath, textInvalid+": it contains a NUL byte")
	case rel[0] == '/':
		return "", fail(ErrInvalidPath, textInvalid)
	}
	name := path.Clean(rel)
	switch {
	case name == ".":
		return "", fail(ErrInvalidPath, textInvalid+": it names the session's directory, not a file")
	case name == "..", strings.HasPrefix(name, "../"):
		return "", fail(ErrInvalidPath, textInvalid)
	}
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > MaxNameBytes {
			return "", fail(ErrInvalidPath, textInvalid+": the name %.20q… is %d bytes, the limit is %d", part, len(part), MaxNameBytes)
		}
	}
	return name, nil
}
