package redteam

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Bounds of what must still work right after an attack. The promise is a
// second; the rest is for a machine with other things to do.
const (
	nextBound    = 5 * time.Second // a correct submission's answer in every slot
	aloneBound   = 2 * time.Second // the same, when nothing else of ours runs
	loaded       = 5               // times what they took before the attack come on top
	vanishBound  = 3 * time.Second // the last process of the attack
	heartbeatGap = protocol.WorkerTTL
)

// baseline is how a fleet is when nothing is the matter.
type baseline struct {
	host map[string]string
	// found is what a submission finds in each slot, by its directory.
	found map[string]string
	tree  int // descendants of the fleet's process, at rest
}

// inventory is a correct submission that also tells what it finds: an attack
// must not change that for those who come after it.
const inventory = `
import os, resource, signal, sys, time

def sort_down(numbers):
    time.sleep(0.03)  # so that each slot gets one of those sent at once
    print("sorting", len(numbers))
    return sorted(numbers, reverse=True)

def found(numbers):
    def listing(path):
        try:
            return sorted(os.listdir(path))
        except OSError as e:
            return type(e).__name__
    work = os.getcwd()
    names = [r for r in dir(resource) if r.startswith("RLIMIT_")]
    return {
        "work": "%s of %d" % (work, os.stat(os.path.dirname(work)).st_ino), "listings": [listing(work), listing(os.environ["HOME"]), listing(os.environ["TMPDIR"])],
        "mode": [os.stat(d).st_mode for d in (work, os.environ["HOME"], os.environ["TMPDIR"])],
        "litter": [d + "/" + n for d in ("/tmp", "/var/tmp", "/dev/shm") if type(listing(d)) is list for n in listing(d) if "MINE" in n],
        "environment": sorted(os.environ.items()), "path": sys.path, "argv": sys.argv, "umask": os.umask(0o22),
        "limits": sorted((r, resource.getrlimit(getattr(resource, r))) for r in names),
        "nice": os.nice(0), "blocked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))),
        "handlers": [repr(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGXCPU)],
        "processors": sorted(os.sched_getaffinity(0)), "descriptors": sorted(os.listdir("/proc/self/fd")),
        "builtins": len(dir(__builtins__)), "recursion": sys.getrecursionlimit(), "hooks": [len(sys.meta_path), len(sys.path_hooks)],
        "oom": open("/proc/self/oom_score_adj").read(),
    }
`

// learn takes the baseline: every slot must have been seen.
func (f *Fleet) learn(ctx context.Context) error {
	f.baseline.found = map[string]string{}
	for tries := 0; len(f.baseline.found) < Slots; tries++ {
		if tries == 50 {
			return fmt.Errorf("%d of %d slots ran a submission after %d rounds", len(f.baseline.found), Slots, tries)
		}
		for _, r := range f.graded(ctx) {
			if r.fault != "" {
				return fmt.Errorf("an ordinary submission, before any attack: %s", r.fault)
			}
			f.baseline.found[r.slot] = r.found
		}
	}
	for tries := 0; f.spawners() < Slots; tries++ {
		if tries == 50 {
			return fmt.Errorf("%d of %d slots have a spawner after %d rounds of commands", f.spawners(), Slots, tries)
		}
		if fault := f.commands(ctx); fault != "" {
			return fmt.Errorf("before any attack: %s", fault)
		}
	}
	f.baseline.host = f.fingerprint()
	f.baseline.tree = -1
	f.settle(func() bool { // the spare children may still be on their way
		n := len(f.tree())
		same := n == f.baseline.tree
		f.baseline.tree = n
		return same && n >= 3*Slots
	})
	return nil
}

// spawners counts the processes that commands are started by: a slot gets its own
// with its first command, and anew with the first after it was lost.
func (f *Fleet) spawners() int {
	n := 0
	for _, p := range f.tree() {
		if strings.Contains(fmt.Sprint(p), ": /proc/self/exe gradefleet-spawner ") {
			n++
		}
	}
	return n
}

// commands sends an ordinary command for each slot at once, of a session each.
func (f *Fleet) commands(ctx context.Context) (fault string) {
	faults := make([]string, Slots)
	var all sync.WaitGroup
	for i := range Slots {
		all.Go(func() {
			session := fmt.Sprintf("patron-%d", i)
			status, body, err := f.do(ctx, "POST", "/write_file", map[string]string{"id": session, "rel_path": "file", "content": "mine"})
			if err == nil && status == 200 {
				status, body, err = f.do(ctx, "POST", "/run", map[string]string{"id": session, "cmd": "cat file; sleep 0.05"})
			}
			if err != nil || status != 200 || !strings.Contains(string(body), `"stdout":"mine"`) {
				faults[i] = fmt.Sprintf("an ordinary command was answered %d %.300s %v", status, body, err)
			}
		})
	}
	all.Wait()
	return strings.Join(faults, "")
}

// graded is what came of one ordinary submission.
type graded struct {
	slot, found, fault string
}

// graded sends an ordinary submission for each slot at once, right in one case
// and wrong in another, and holds the answers against what they must be.
func (f *Fleet) graded(ctx context.Context) []graded {
	results := make([]graded, Slots)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() { results[i] = f.gradeOne(ctx) })
	}
	wg.Wait()
	return results
}

func (f *Fleet) gradeOne(ctx context.Context) graded {
	request := Submission{
		ID: "after-" + random(6), Code: strings.Replace(inventory, "MINE", tokenPrefix+f.tag(), 1), Entry: "sort_down",
		Cases: []Case{{"numbers=[3, 1, 2]", "[3, 2, 1]"}, {"numbers=[3, 1, 2]", "[3, 1, 2]"}},
	}
	var e Evaluation
	if fault := f.ask(ctx, request, &e); fault != "" {
		return graded{fault: fault}
	}
	for i, want := range []protocol.CaseStatus{protocol.Passed, protocol.Failed} {
		c := e.Cases[i]
		if c.Status != want || c.Passed != (want == protocol.Passed) || string(c.Got) != "[3,2,1]" || c.Error != "" ||
			c.Trust != "" || len(c.Integrity) > 0 || c.Stdout != "sorting 3\n" || c.Stderr != "" {
			return graded{fault: fmt.Sprintf("case %d of a correct submission: want %s and nothing else of note, have %s, stdout %q, trust %q, integrity %v", i, want, c, c.Stdout, c.Trust, c.Integrity)}
		}
	}
	request.Entry = "found"
	request.Cases = request.Cases[:1]
	if fault := f.ask(ctx, request, &e); fault != "" {
		return graded{fault: fault}
	}
	var where struct {
		Work string `json:"work"`
	}
	if err := json.Unmarshal(e.Cases[0].Got, &where); err != nil {
		return graded{fault: fmt.Sprintf("an ordinary submission that tells what it finds: %s", e.Cases[0])}
	}
	return graded{slot: where.Work, found: string(e.Cases[0].Got)}
}

func (f *Fleet) ask(ctx context.Context, s Submission, e *Evaluation) (fault string) {
	status, body, err := f.do(ctx, "POST", "/evaluate_code", s)
	*e = Evaluation{}
	if err != nil {
		return fmt.Sprintf("an ordinary submission got no answer: %v", err)
	}
	if status != 200 || json.Unmarshal(body, e) != nil || len(e.Cases) != len(s.Cases) {
		return fmt.Sprintf("an ordinary submission was answered %d %.300s", status, body)
	}
	return ""
}

// aftermath notes what the attack left broken, and how long the next correct
// submissions took.
func (a *Attempt) aftermath() time.Duration {
	f := a.fleet
	begun := time.Now()
	results := f.graded(a.ctx)
	took := time.Since(begun)
	bound := nextBound
	if a.attack.Alone {
		bound = aloneBound
	}
	bound += loaded * a.usual
	f.usual = min(took, time.Second)
	if took > bound {
		a.Through("the next correct submissions took %v, the bound is %v", took.Round(time.Millisecond), bound)
	}
	for _, r := range results {
		if r.fault != "" {
			a.Through("afterwards: %s", r.fault)
		} else if was, ok := f.baseline.found[r.slot]; ok && was != r.found {
			a.Through("afterwards a submission finds another world: %s", firstDifference(was, r.found))
		} else if !ok {
			a.Through("afterwards a submission runs in %s, which no slot had before", r.slot)
		}
	}
	if f.Ended() {
		a.Through("the fleet's process ended")
		return took
	}
	a.workerLives()
	// An attack may have cost a slot its spawner, which it gets anew.
	for tries := 0; tries == 0 || tries < 5 && f.spawners() < Slots; tries++ {
		if fault := f.commands(a.ctx); fault != "" {
			a.Through("afterwards: %s", fault)
		}
	}
	f.settle(func() bool { return len(f.strays()) == 0 && len(f.tree()) == f.baseline.tree })
	for _, p := range f.strays() {
		a.Through("a process of the attack is left: %s", p)
		p.kill()
	}
	if n := len(f.tree()); n != f.baseline.tree {
		a.Through("the fleet's process has %d descendants, at rest it had %d: %v", n, f.baseline.tree, f.tree())
		f.baseline.tree = n // so that it is not held against the next attack too
	}
	for _, d := range differences(f.baseline.host, f.fingerprint()) {
		a.Through("outside its session: %s", d)
	}
	for _, c := range f.host.contacted() {
		a.Through("a socket of the host got %s", c)
	}
	if status, body, err := f.readFile(a.ctx, f.victim, "notes/secret.txt"); status != 200 || !strings.Contains(string(body), f.secrets["a secret of another session"]) {
		a.Through("another session's file reads as %d %.200s %v", status, body, err)
	}
	f.restore(a)
	return took
}

// restore makes good what an attack spoilt outside its session, so that it is
// not held against the next one too.
func (f *Fleet) restore(a *Attempt) {
	if len(a.through) == 0 {
		return
	}
	f.tidy()
	if err := f.host.fill(); err != nil {
		a.Through("afterwards: %v", err)
	}
	if err := f.makeVictim(a.ctx); err != nil {
		a.Through("afterwards: %v", err)
	}
	f.baseline.host = f.fingerprint()
}

// workerLives checks that the worker is the one that was there at first.
func (a *Attempt) workerLives() {
	var workers []protocol.Heartbeat
	var err error
	a.fleet.settle(func() bool {
		workers, err = a.fleet.workers(a.ctx)
		return err == nil && len(workers) == 1
	})
	was := a.fleet.Started
	if len(workers) != 1 || workers[0].Worker != was.Worker || !workers[0].Started.Equal(was.Started) {
		a.Through("the workers are %v (%v), want %s, started %v", workers, err, was.Worker, was.Started)
	}
}

// settle waits until something holds, for as long as it may take to vanish on a
// machine that doesn't stand still meanwhile: it looks so often, at least.
func (f *Fleet) settle(holds func() bool) {
	const pause, least = 15 * time.Millisecond, 100
	deadline := time.Now().Add(max(vanishBound, heartbeatGap))
	for looks := 0; !holds() && (looks < least || time.Now().Before(deadline)); looks++ {
		time.Sleep(pause)
	}
}

// firstDifference shows two long texts from where they part.
func firstDifference(a, b string) string {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	cut := func(s string) string {
		from := max(0, i-60)
		return strconv.Quote(s[from:min(len(s), i+120)])
	}
	return fmt.Sprintf("was %s, is %s", cut(a), cut(b))
}
