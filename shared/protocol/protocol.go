// Package protocol is the wire format that gateways and workers share: jobs,
// results, session operations, heartbeats, and the subjects, headers and
// buckets they travel on. It holds no behaviour beyond encoding and checking,
// and imports nothing but the standard library.
//
// Readers ignore headers and JSON keys they don't know, so that a fleet can be
// upgraded one process at a time.
//
// History of changes:
//
//   - Version 1 (2026-11-24): first version. Later that day, and ignored by who
//     doesn't know them: the bulk queue, kept jobs and their records.
//   - 2026-11-24: durable sessions. SessionRecord and Heartbeat say "durable";
//     who doesn't know it treats sessions as their owners' directories.
//   - 2026-11-29: changes of a session have an id for life. A worker that doesn't know
//     them answers without "anew", so that a gateway doesn't take its answer to
//     what was sent before for the whole truth.
//   - 2026-11-29: News of a job says more than that it begins again; gateways that
//     don't know it count all news as beginnings. Records of kept jobs count how
//     often the job was begun.
//   - 2026-11-29: asynchronous jobs wait in the backlog. What comes to workers is
//     as before; gateways that don't know it put theirs into the bulk queue.
package protocol

// Version is the version of the wire format that this build writes. A worker
// refuses jobs of a version it doesn't know with a clear error; see [ParseJob].
const Version = 1
