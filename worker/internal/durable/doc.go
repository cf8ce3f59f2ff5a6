// Package durable keeps what sessions consist of in JetStream: a journal of
// changes for each session (its manifest), and file contents under their
// digests (blobs). It knows nothing of directories; who changes a session's
// files says so here, and the change is done when this package says so.
//
// # The journal
//
// A session's journal is the messages of one subject of the MANIFESTS stream.
// The first is a base: all entries there are. Those after it say what changed.
// Every message names the owner's epoch and is written with compare-and-set on
// the subject's last sequence, so of two who think they own a session only one
// can write, and it is the one who wrote last. A new owner's first message,
// which changes nothing else, is what shuts the one before out.
//
// When the changes have become more than the base, the next message is a new
// base, which replaces all before it.
//
// # Contents
//
// A file of a few KiB is in the journal itself; others are cut into pieces of
// protocol.BlobBytes, each a message whose subject is its SHA-256.
package durable
