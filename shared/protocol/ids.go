package protocol

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"unicode/utf8"
)

// NewID returns 128 random bits in hexadecimal: a job's or a request's id.
func NewID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails, see crypto/rand
	return hex.EncodeToString(b[:])
}

// NewOperationID returns 96 random bits in 16 characters: the id of a change of a
// session, of which journals keep many.
func NewOperationID() string {
	var b [12]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// NewUUID returns a random UUID (RFC 9562, version 4): the id of a forked session.
func NewUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// CheckSessionID returns an error that says what is wrong with a session id,
// or nil. Ids name directories, so two ids never share one and none is special
// to a file system.
func CheckSessionID(id string) error {
	if id == "" {
		return fmt.Errorf("invalid session id: it is empty; use 1 to %d of A-Z a-z 0-9 . _ -, such as a UUID", MaxSessionIDLength)
	}
	if len(id) > MaxSessionIDLength {
		return fmt.Errorf("invalid session id: %d bytes, the limit is %d", len(id), MaxSessionIDLength)
	}
	dots := 0
	for i := range len(id) {
		switch c := id[i]; {
		case c == '.':
			dots++
		case c == '_', c == '-', '0' <= c && c <= '9', 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z':
		default:
			r, _ := utf8.DecodeRuneInString(id[i:])
			return fmt.Errorf("invalid session id: byte %d is %q; use only A-Z a-z 0-9 . _ -", i, r)
		}
	}
	if dots == len(id) {
		return fmt.Errorf("invalid session id %q: it can't be only dots", id)
	}
	return nil
}

// CheckWorkerID returns an error that says what is wrong with a worker id, or
// nil. Worker ids are tokens of subjects and names of consumers.
func CheckWorkerID(id string) error {
	if id == "" || len(id) > 64 {
		return fmt.Errorf("invalid worker id %q: use 1 to 64 of A-Z a-z 0-9 _ -", id)
	}
	for _, c := range []byte(id) {
		if !(c == '_' || c == '-' || '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z') {
			return fmt.Errorf("invalid worker id %q: use only A-Z a-z 0-9 _ -", id)
		}
	}
	return nil
}
