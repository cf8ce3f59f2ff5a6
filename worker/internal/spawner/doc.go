// Package spawner is the fork server of commands: what forkserver.py and
// enter.py are for submissions, in Go, for jobs that need no Python. It runs as
// a process of its own inside a slot's part of the sandbox, speaks the fork
// server's protocol on descriptor 3, and for each job makes a process that
// enters the session's confinement and becomes /bin/sh.
//
// The process is made as vfork(2) does, sharing its memory until it executes the
// shell: no page is copied. A command costs half of what it does forked from an
// interpreter.
package spawner
