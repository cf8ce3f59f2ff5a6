package durable

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// Kind of an Entry.
type Kind string

// The kinds of entries.
const (
	File Kind = ""
	Dir  Kind = "d"
	Link Kind = "l"
)

// Digest is the SHA-256 of a piece of content.
type Digest [sha256.Size]byte

// Entry is one file, directory or symbolic link of a session. It isn't changed
// once made.
type Entry struct {
	// Path below the session's work directory; any bytes but NUL.
	Path string
	Kind Kind
	// Mode is the permission bits; 0 for links.
	Mode uint32
	// Size in bytes and MTime in nanoseconds since 1970, of files.
	Size  int64
	MTime int64
	// Inline is the content of a file without Blobs.
	Inline []byte
	// Blobs are the pieces of the content, in order, each but the last of
	// protocol.BlobBytes.
	Blobs []Digest
	// Target of a link.
	Target string
}

// wireEntry is an Entry in a message.
type wireEntry struct {
	Path    string   `json:"p,omitempty"`
	RawPath []byte   `json:"P,omitempty"` // of a path that isn't UTF-8
	Kind    Kind     `json:"k,omitempty"`
	Mode    uint32   `json:"m,omitempty"`
	Size    int64    `json:"s,omitempty"`
	MTime   int64    `json:"t,omitempty"`
	Inline  []byte   `json:"i,omitempty"`
	Blobs   [][]byte `json:"b,omitempty"`
	Target  []byte   `json:"l,omitempty"`
}

func (e *Entry) wire() wireEntry {
	w := wireEntry{Kind: e.Kind, Mode: e.Mode, Size: e.Size, MTime: e.MTime, Inline: e.Inline, Target: []byte(e.Target)}
	w.Path, w.RawPath = wirePath(e.Path)
	for i := range e.Blobs {
		w.Blobs = append(w.Blobs, e.Blobs[i][:])
	}
	return w
}

func wirePath(path string) (text string, raw []byte) {
	if utf8.ValidString(path) {
		return path, nil
	}
	return "", []byte(path)
}

func (w *wireEntry) entry() (Entry, error) {
	e := Entry{Path: w.Path + string(w.RawPath), Kind: w.Kind, Mode: w.Mode, Size: w.Size, MTime: w.MTime, Inline: w.Inline, Target: string(w.Target)}
	for _, b := range w.Blobs {
		if len(b) != len(Digest{}) {
			return e, fmt.Errorf("digest of %d bytes, want %d", len(b), len(Digest{}))
		}
		e.Blobs = append(e.Blobs, Digest(b))
	}
	if e.Kind == File && len(e.Blobs) == 0 && int64(len(e.Inline)) != e.Size {
		return e, fmt.Errorf("%d bytes of content for a file of %d", len(e.Inline), e.Size)
	}
	return e, nil
}

// message is one message of a journal.
type message struct {
	Version int `json:"v"`
	// Session and Created name the session.
	Session string `json:"session"`
	Created int64  `json:"created"`
	Epoch   uint64 `json:"epoch"`
	Worker  string `json:"worker"`
	// Base says that Set is everything there is; then there is no Delete.
	Base bool `json:"base,omitempty"`
	// Gone says that the session was removed.
	Gone   bool        `json:"gone,omitempty"`
	Set    []wireEntry `json:"set,omitempty"`
	Delete []wireEntry `json:"del,omitempty"` // paths alone
	// Operations are the ids of those whose changes these are, in a base the latest;
	// not all changes are an operation's. Nil if the writer knew of none.
	Operations []string `json:"ops,omitzero"`
	// Forgotten, in a base, is when the last operation was stored that isn't among
	// them, in nanoseconds since 1970; 0 if there was none.
	Forgotten int64 `json:"forgot,omitempty"`
	// Pieces hold what would be in Set if it weren't too much for a message:
	// its JSON, of Size bytes.
	Pieces [][]byte `json:"pieces,omitempty"`
	Size   int64    `json:"size,omitempty"`
}

// messageVersion is the version of the journal's format. A worker doesn't touch
// a journal of a version it doesn't know.
const messageVersion = 1

func decodeMessage(data []byte) (message, error) {
	var m message
	if err := json.Unmarshal(data, &m); err != nil {
		return m, err
	}
	if m.Version != messageVersion {
		return m, fmt.Errorf("it is of version %d, this worker knows %d", m.Version, messageVersion)
	}
	return m, nil
}
