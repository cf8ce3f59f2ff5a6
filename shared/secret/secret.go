// Package secret holds a string that can't end up in a log by accident.
package secret

import "crypto/subtle"

// String is a password or token. It prints as [redacted] in every format.
type String string

const redacted = "[redacted]"

// String implements fmt.Stringer.
func (s String) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString implements fmt.GoStringer, for %#v.
func (s String) GoString() string { return s.String() }

// MarshalText keeps the secret out of JSON and of structured logs.
func (s String) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText takes the secret from a flag or an environment variable.
func (s *String) UnmarshalText(b []byte) error {
	*s = String(b)
	return nil
}

// Reveal returns the secret itself.
func (s String) Reveal() string { return string(s) }

// Equal compares in constant time.
func (s String) Equal(other string) bool {
	return subtle.ConstantTimeCompare([]byte(s), []byte(other)) == 1
}
