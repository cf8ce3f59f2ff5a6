// Package redteam attacks a running fleet, over HTTP and with a look at the
// host from outside: every attack is a row of a table that says what it does,
// what must hold, and which layers of the sandbox stop it. After each one a
// correct submission must be graded right in every slot, the worker must be the
// one it was, and nothing of the attack may be left: no process, no file
// outside its session, no change to what submissions find.
//
// The attacks are in two families. forge_*.go: a wrong submission that passes,
// or one that makes another's verdict wrong. escape_*.go: reading, changing,
// exhausting or leaving behind what is not the submission's own. Expectations
// are those of docs/security.md, not what the code of the day does.
//
// Nothing here knows how the worker is built, but for the layout of its data
// directory, which attackers know too.
//
// Attacks do no harm even where they get through. They aim at files, sockets and
// processes that the campaign made; where they try what is the machine's, they
// stop at having been let in: they open and don't write, make files without
// names, send signal 0. What can't be done by halves (fork bombs, kill -9 -1,
// rm -rf of its own directory) first looks whether it is a user other than root
// in a session's directory, and gives up if not.
package redteam
