// Package workcopy makes a session's directory the working copy of what is
// stored of it: it restores the directory from the journal when this worker
// becomes the owner, stores what file operations and jobs change before they are
// answered, and gives the copy up when another worker has taken over. With
// durability off it hands out the directories as they are.
//
// # Who may serve a session
//
// The session's record names its owner. A worker that gets a request for a
// session it doesn't have reads the record, and if it is the owner claims the
// journal by writing to it (see package durable): from then on nobody before it
// can store anything.
//
// That leaves reads, which write nothing. They are served without asking only
// while the worker's heartbeats count: one that was stopped or cut off for
// longer than protocol.WorkerTTL may have been replaced, and looks at record and
// journal before it serves a session again. But a gateway that was held up may
// replace one that is back, or was there all the time. So a worker, before it
// serves an epoch of a session, makes sure that the owners before, which the
// record names, are gone, or asks them to let go.
//
// # What is stored
//
// Regular files with content, mode and time, directories with their mode, and
// symbolic links, of work alone: tmp and home are as lasting as their worker.
// After a job the directory is scanned: files whose size, times, mode and inode
// are as they were aren't read, unless they changed so recently that a second
// change could have the same time.
package workcopy
