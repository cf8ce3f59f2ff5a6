package chaos

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/chaos/procs"
)

// Action is what is done to a process.
type Action string

// The actions. After each the process is as before, for has passed.
const (
	// Kill is SIGKILL; it is started again after a time.
	Kill Action = "kill"
	// Disk is Kill, and its data directory is lost.
	Disk Action = "lose disk"
	// Stop is SIGSTOP until a time has passed.
	Stop Action = "stop"
	// Term is SIGTERM; it is started again when it has ended.
	Term Action = "restart"
	// Freeze holds back all it sends to NATS and gets from there for a time,
	// and then delivers it.
	Freeze Action = "freeze"
	// Lose is Freeze, and then the connections break.
	Lose Action = "freeze and lose"
	// Sever breaks its connections to NATS and refuses new ones for a time. A NATS
	// server's are those to the other servers: its clients stay with it.
	Sever Action = "cut off"
)

// Fault is one planned action.
type Fault struct {
	At     time.Duration // since the load began
	Class  procs.Class
	Index  int // of the process in its class
	Action Action
	For    time.Duration
}

func (f Fault) String() string {
	return fmt.Sprintf("%7.2fs  %s%d: %s, %.2f s", f.At.Seconds(), f.Class, f.Index+1, f.Action, f.For.Seconds())
}

// Plan says what a schedule may do.
type Plan struct {
	Seed     uint64
	For      time.Duration
	Gateways int
	Workers  int
	// LoseDisks lets workers lose their data directories.
	LoseDisks bool
}

const (
	// firstFault lets the load begin.
	firstFault = 2 * time.Second
	// minGap and maxGap are between the beginnings of two faults.
	minGap, maxGap = 300 * time.Millisecond, 2500 * time.Millisecond
	// recovery is how long after its end a fault still counts as one, while the
	// process connects, catches up and takes up what it had.
	recovery = 2 * time.Second
	// natsRecovery is the same for a NATS server, whose cluster must not lose
	// another one before this one has caught up.
	natsRecovery = 6 * time.Second
)

// choices are the actions for each class, each as often as it shall be likely.
var choices = map[procs.Class][]Action{
	procs.Worker:  {Kill, Kill, Kill, Stop, Stop, Term, Freeze, Lose, Sever},
	procs.Gateway: {Kill, Kill, Stop, Term, Freeze, Lose, Sever},
	procs.NATS:    {Kill, Kill, Stop, Term, Freeze, Lose, Sever, Sever},
}

// longest is how long an action may last at most. Some outlast what the fleet
// waits for: a heartbeat's life (3.5 s) and a job's acknowledgement (4 s).
var longest = map[Action]time.Duration{
	Kill: 4 * time.Second, Disk: 4 * time.Second, Term: time.Second,
	Stop: 9 * time.Second, Freeze: 9 * time.Second, Lose: 9 * time.Second, Sever: 9 * time.Second,
}

// Schedule makes the faults of a seed: always the same for the same plan. At any
// time one NATS server, one gateway and all workers but one may be in trouble.
func (p Plan) Schedule() []Fault {
	r := rand.New(rand.NewPCG(p.Seed, 0xfa017))
	type process struct {
		class procs.Class
		index int
	}
	until := map[process]time.Duration{}
	limits := map[procs.Class]int{procs.NATS: 1, procs.Gateway: p.Gateways - 1, procs.Worker: p.Workers - 1}
	counts := map[procs.Class]int{procs.NATS: 3, procs.Gateway: p.Gateways, procs.Worker: p.Workers}
	var faults []Fault
	for at := firstFault; at < p.For; at += minGap + time.Duration(r.Int64N(int64(maxGap-minGap))) {
		class := []procs.Class{procs.Worker, procs.Worker, procs.Worker, procs.Gateway, procs.NATS}[r.IntN(5)]
		action := choices[class][r.IntN(len(choices[class]))]
		index := r.IntN(counts[class])
		lasts := 100*time.Millisecond + time.Duration(r.Int64N(int64(longest[action])))
		diskToo := r.IntN(3) == 0
		inTrouble := 0
		for other, end := range until {
			if other.class == class && end > at {
				inTrouble++
			}
		}
		who := process{class, index}
		if until[who] > at || inTrouble >= limits[class] || at+lasts > p.For {
			continue
		}
		if action == Kill && class == procs.Worker && p.LoseDisks && diskToo {
			action = Disk
		}
		until[who] = at + lasts + recovery
		if class == procs.NATS {
			until[who] = at + lasts + natsRecovery
		}
		faults = append(faults, Fault{at, class, index, action, lasts})
	}
	return faults
}
