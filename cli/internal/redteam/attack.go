package redteam

// Family says what an attack is after.
type Family string

// The families.
const (
	// Forge: a wrong submission passes, or makes a right one fail.
	Forge Family = "forge"
	// Escape: reading, changing, exhausting or leaving behind what is not the
	// submission's own.
	Escape Family = "escape"
)

// Layer is a part of the sandbox that a worker can be told to leave out
// (GRADEFLEET_WITHOUT); the names are that setting's.
type Layer string

// The layers.
const (
	Landlock        Layer = "landlock"
	Seccomp         Layer = "seccomp"
	Users           Layer = "users"
	Namespaces      Layer = "namespaces"
	Rlimits         Layer = "rlimits"
	SessionLandlock Layer = "session-landlock"
	Memory          Layer = "memory"
)

// Layers lists them all.
var Layers = []Layer{Landlock, Seccomp, Users, Namespaces, Rlimits, SessionLandlock, Memory}

// The integrity marks that a result carries when a submission was seen trying.
const (
	markSubclass = "subclass"
	markExit     = "early_exit"
	markChannel  = "result_channel"
	markEquals   = "equals_anything"
	markBlocked  = "blocked_call"
)

// Attack is one row of the table.
type Attack struct {
	Name   string
	Family Family
	// Does says in a sentence what the attack does, Holds what must hold.
	Does, Holds string
	// Marks are the integrity marks that its results must carry.
	Marks []string
	// Stopped lists the layers each of which stops the attack: it gets through
	// when all of them are left out, and not before. Empty: no layer that can be
	// left out does, or nobody has shown it.
	Stopped []Layer
	// Alone: it loads the machine or is measured, so nothing runs beside it.
	Alone bool
	// Tame: it aims at nothing but what the campaign made, so that it may be
	// tried by root and with layers left out. What isn't tame gives up, as having
	// got through, where it finds itself with rights that it shouldn't have.
	Tame bool
	// Run carries it out.
	Run func(a *Attempt)
}

// Attacks returns the whole table, in the order in which it is reported.
func Attacks() []Attack {
	var all []Attack
	for _, group := range [][]Attack{
		forgedValues, lineUps, searches, channels, exits, patches, expectations, poisons, saboteurs,
		foreignFiles, links, oddTrees, privileges, systemCalls, sockets, processFloods, memoryFloods, outputFloods, litter,
	} {
		all = append(all, group...)
	}
	return all
}

// marked, tame and stoppedBy return the attack with a field set: they keep a
// row of the table on few lines.
func (a Attack) marked(marks ...string) Attack    { a.Marks = marks; return a }
func (a Attack) tame() Attack                     { a.Tame = true; return a }
func (a Attack) stoppedBy(layers ...Layer) Attack { a.Stopped = layers; return a }

// careful is what an attack begins with that would do harm to a machine on
// which nothing held it: it goes on only as a user who is not root, and in a
// directory of a session or a slot.
const careful = `
import os as _o
if _o.getuid() == 0 or not any(p in _o.getcwd() for p in ("/sessions/", "/scratch/", "/gradefleet/here/")):
    raise SystemExit("UNCONFINED: user %d in %s" % (_o.getuid(), _o.getcwd()))
`

// carefulShell is the same for a command of the shell.
const carefulShell = `[ "$(id -u)" != 0 ] || { echo UNCONFINED; exit 99; }; case "$PWD" in */sessions/*/work | /run/gradefleet/here/work) ;; *) echo UNCONFINED; exit 99 ;; esac; case "$HOME" in */sessions/* | /run/gradefleet/here/*) ;; *) echo UNCONFINED; exit 99 ;; esac; case "$TMPDIR" in */sessions/* | /run/gradefleet/here/*) ;; *) echo UNCONFINED; exit 99 ;; esac; `
