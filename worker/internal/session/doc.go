// Package session owns the session directories on a worker's disk: their
// creation, paths, file operations, copies, user ids, sizes and removal. It
// knows nothing of queues, HTTP or Python, nor who owns a session in the fleet;
// it only remembers the ownership epoch it was last told.
//
// On disk:
//
//	<root>/layout                     what this directory is; locked while a Store is open
//	<root>/sessions/<id>/             a session:
//	    meta.json                     id, epoch, user, creation time
//	    work/                         what the caller sees
//	    tmp/                          TMPDIR of its jobs
//	    home/                         HOME of its jobs
//	<root>/scratch/<name>/…           the same three, for jobs without a session
//	<root>/staging/                   directories on their way in or out
//
// With a pool of user ids (a worker that runs as root) each session has a user
// and a group of its own. That user owns work, tmp and home (mode 0700) but not
// the session's own directory (worker's user, the session's group, mode 0710):
// it can pass through, but can't rename the three, replace them, or see
// meta.json. Without a pool everything belongs to the worker's user, mode 0700.
//
// # What is trusted
//
// Nothing below work, tmp and home: whoever owns them may have a process running
// that swaps files, links and directories while an operation is under way.
//
//   - Paths are resolved by [os.Root], so no link leads out of work. Absolute
//     links are refused even when they point back inside.
//   - With a pool, file operations are done under the session's own user (see
//     asUser), so the kernel allows them nothing that a job of the session
//     couldn't do itself, hard links included.
//   - Files are opened without waiting and looked at before they are used:
//     FIFOs, sockets, devices and files of other users are refused.
//   - Trees are copied, measured and removed relative to directory descriptors,
//     never following a link, with a bounded number of descriptors.
//
// Without a pool a job is the worker's own user, so these checks keep the API
// from being led astray, but only the sandbox keeps the job itself inside.
//
// File contents are not forced to the disk: they outlive the worker's process,
// not a power failure. meta.json is.
//
// Errors for the API's user are of type [Error]; their text never holds a host
// path. Everything else is a fault of the platform.
package session
