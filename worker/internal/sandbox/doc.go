// Package sandbox is the one place where a child is confined. It has two
// halves: what all jobs of a slot share is put on the slot's fork server once,
// by Launcher (before the interpreter starts) and is inherited for nothing;
// what is a session's own (user, limits, directory, environment) is prepared
// here as a Confinement and entered by the forked child, in enter.py, before
// the first line of a submission runs.
//
// It takes directories and user ids, and knows nothing of sessions, Python
// values or verdicts.
package sandbox

import _ "embed"

// EnterSource is the Python source that defines enter(confinement).
//
//go:embed enter.py
var EnterSource string
