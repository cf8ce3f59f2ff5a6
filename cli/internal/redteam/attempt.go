package redteam

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Attempt is one attack on one fleet while it goes on. Its methods note what
// got through; an attempt in which nothing did has been held off.
type Attempt struct {
	attack Attack
	fleet  *Fleet
	ctx    context.Context
	// token is part of every name that the attempt makes anywhere.
	token string
	begun time.Time
	// usual is what a correct submission in every slot took right before.
	usual    time.Duration
	sessions int
	through  []string
	// integrity are the marks that its results carried.
	integrity []string
}

// How an attempt is given up; it is recovered in [Fleet.Try].
type (
	notHere struct{ why string } // this machine has not what the attack needs
	broken  struct{ why string } // the attack did not do what it says: a fault of the table
)

// Through notes that something got through.
func (a *Attempt) Through(format string, args ...any) {
	if len(a.through) < 20 {
		a.through = append(a.through, fmt.Sprintf(format, args...))
	}
}

// NotHere ends the attempt: the machine has not what it needs.
func (a *Attempt) NotHere(format string, args ...any) { panic(notHere{fmt.Sprintf(format, args...)}) }

// Broken ends the attempt: it did not do what the table says of it, so that it
// proves nothing.
func (a *Attempt) Broken(format string, args ...any) { panic(broken{fmt.Sprintf(format, args...)}) }

// Session returns the id of a session that is not there yet.
func (a *Attempt) Session() string {
	a.sessions++
	return fmt.Sprintf("%s-%d", a.token, a.sessions)
}

// elapsed is how long the attack has taken so far.
func (a *Attempt) elapsed() time.Duration { return time.Since(a.begun) }

// Submission is an evaluate request.
type Submission struct {
	ID        string         `json:"id"`
	Code      string         `json:"code"`
	Entry     string         `json:"entry_point"`
	Cases     []Case         `json:"io_cases"`
	Limits    map[string]any `json:"limits,omitempty"`
	Isolation string         `json:"isolation,omitempty"`
}

// Case is one case of it.
type Case struct {
	Input  string `json:"input"`
	Output any    `json:"output"`
}

// Evaluation is the answer.
type Evaluation struct {
	Passed bool         `json:"passed"`
	Cases  []CaseResult `json:"case_results"`
}

// CaseResult is what it says of one case.
type CaseResult struct {
	Passed    bool                `json:"passed"`
	Got       json.RawMessage     `json:"got"`
	Error     string              `json:"error"`
	Status    protocol.CaseStatus `json:"status"`
	Stdout    string              `json:"stdout"`
	Stderr    string              `json:"stderr"`
	CPUMillis float64             `json:"cpu_ms"`
	MemoryKB  int                 `json:"memory_kb"`
	Trust     string              `json:"trust"`
	Integrity []string            `json:"integrity"`
}

func (r CaseResult) String() string {
	s := fmt.Sprintf("%s, got %.200s, error %.300q", r.Status, r.Got, r.Error)
	if r.Stderr != "" {
		s += fmt.Sprintf(", stderr %.300q", r.Stderr)
	}
	return s
}

// Evaluate sends a submission. Whatever a submission does, the answer is a 200:
// any other got through.
func (a *Attempt) Evaluate(s Submission) Evaluation {
	if s.ID == "" {
		s.ID = a.token
	}
	var e Evaluation
	status, body := a.Post("/evaluate_code", s)
	if status != 200 {
		a.Through("evaluate answered %d %.300s: what a submission does is no fault of the platform", status, body)
		return e
	}
	if err := json.Unmarshal(body, &e); err != nil {
		a.Through("evaluate answered what is no JSON: %v", err)
	} else if len(e.Cases) != len(s.Cases) {
		a.Through("evaluate answered %d cases, %d were sent", len(e.Cases), len(s.Cases))
	}
	for _, c := range e.Cases {
		a.integrity = append(a.integrity, c.Integrity...)
		if strings.Contains(c.Error, "UNCONFINED") {
			a.Through("it found itself unconfined and gave up: %s", c.Error)
		}
	}
	return e
}

// RunResult is the answer to a command.
type RunResult struct {
	Stdout    string   `json:"stdout"`
	Stderr    string   `json:"stderr"`
	ExitCode  *int     `json:"exit_code"`
	TimedOut  bool     `json:"timed_out"`
	Truncated bool     `json:"truncated"`
	CPUMillis float64  `json:"cpu_ms"`
	MemoryKB  int      `json:"memory_kb"`
	Integrity []string `json:"integrity"`
}

// Command runs a command in a session, which must be there. limits may be nil.
func (a *Attempt) Command(session, command string, limits map[string]any) RunResult {
	var r RunResult
	request := map[string]any{"id": session, "cmd": command}
	if limits != nil {
		request["limits"] = limits
	}
	status, body := a.Post("/run", request)
	if status != 200 {
		a.Through("run answered %d %.300s: what a command does is no fault of the platform", status, body)
	} else if err := json.Unmarshal(body, &r); err != nil {
		a.Through("run answered what is no JSON: %v", err)
	}
	a.integrity = append(a.integrity, r.Integrity...)
	if strings.Contains(r.Stdout+r.Stderr, "UNCONFINED") {
		a.Through("it found itself unconfined and gave up: %s %s", r.Stdout, r.Stderr)
	}
	return r
}

// Write writes a file of a session, which it makes.
func (a *Attempt) Write(session, path, content string) {
	if status, body := a.Post("/write_file", map[string]string{"id": session, "rel_path": path, "content": content}); status != 200 {
		a.Through("write_file of %s answered %d %.300s", path, status, body)
	}
}

// Post sends a request and returns its answer. No answer within the time that
// any job may take got through, and so has an answer that holds a secret.
func (a *Attempt) Post(path string, body any) (int, []byte) {
	return a.checked(a.fleet.do(a.ctx, "POST", path, body))
}

// Get asks for a file of a session.
func (a *Attempt) Get(session, path string) (int, []byte) {
	return a.checked(a.fleet.readFile(a.ctx, session, path))
}

func (a *Attempt) checked(status int, body []byte, err error) (int, []byte) {
	if err != nil {
		a.Through("no answer: %v", err)
		return 0, nil
	}
	for what, secret := range a.fleet.secrets {
		if strings.Contains(string(body), secret) {
			a.Through("an answer holds %s", what)
		}
	}
	return status, body
}

//go:embed probe.py
var probeSource string

// program is a whole Python program out of a probe's attack(), as submission
// and as script: it knows what there is to attack.
func (a *Attempt) program(source string) string {
	known := a.fleet.facts(a.token)
	known["tame"] = a.attack.Tame
	facts, err := json.Marshal(known)
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	return strings.Replace(probeSource, "FACTS_JSON", fmt.Sprintf("%q", facts), 1) + "\n" + source +
		"\nif __name__ == '__main__' and sys.argv[0].endswith('attack.py'):\n    print('REPORT ' + json.dumps(probe()))\n"
}

// report is what a probe says of itself.
type report struct {
	Tried   []string `json:"tried"`
	Through []string `json:"through"`
	Missing string   `json:"missing"`
	Notes   []string `json:"notes"`
}

// judge takes in a probe's report: a probe that tried nothing proves nothing.
func (a *Attempt) judge(r report) {
	if r.Missing != "" {
		a.NotHere("%s", r.Missing)
	}
	if len(r.Tried) == 0 {
		a.Broken("the probe tried nothing")
	}
	for _, t := range r.Through {
		a.Through("%s", t)
	}
}

var probeLimits = map[string]any{"wall_s": 20, "cpu_s": 20}

// Probe runs a program as a submission. Its attack() tries what must not work.
func (a *Attempt) Probe(source string) {
	e := a.Evaluate(Submission{Code: a.program(source), Entry: "probe", Limits: probeLimits, Cases: []Case{{"", "'held'"}}})
	if len(e.Cases) != 1 {
		return
	}
	var r report
	c := e.Cases[0]
	if c.Status != protocol.Failed || json.Unmarshal(c.Got, &r) != nil {
		a.Broken("the probe did not report: %s", c)
	}
	a.judge(r)
}

// ProbeMayDie is Probe for what may end its own process: that is no report,
// and nothing got through.
func (a *Attempt) ProbeMayDie(source string) {
	e := a.Evaluate(Submission{Code: a.program(source), Entry: "probe", Limits: probeLimits, Cases: []Case{{"", "'held'"}}})
	if len(e.Cases) != 1 || e.Cases[0].Status == protocol.Crashed {
		return
	}
	var r report
	if c := e.Cases[0]; c.Status != protocol.Failed || json.Unmarshal(c.Got, &r) != nil {
		a.Broken("the probe neither reported nor died: %s", c)
	}
	a.judge(r)
}

// Script runs a program as a command of a session of its own.
func (a *Attempt) Script(source string) RunResult {
	session := a.Session()
	a.Write(session, "attack.py", a.program(source))
	result := a.Command(session, "python3 attack.py", nil)
	_, text, ok := strings.Cut(result.Stdout, "REPORT ")
	var r report
	if !ok || json.Unmarshal([]byte(text), &r) != nil {
		a.Broken("the script did not report: exit %v, timed out %v, stdout %.300q, stderr %.500q",
			deref(result.ExitCode), result.TimedOut, result.Stdout, result.Stderr)
	}
	a.judge(r)
	return result
}

func deref(n *int) any {
	if n == nil {
		return "unknown"
	}
	return *n
}

// script makes an attack of a program that tries what must not work.
func script(name, does, holds, source string) Attack {
	return Attack{Name: name, Family: Escape, Does: does, Holds: holds, Run: func(a *Attempt) { a.Script(source) }}
}

// inBoth runs a program both ways.
func inBoth(name, does, holds, source string) Attack {
	return Attack{Name: name, Family: Escape, Does: does, Holds: holds, Run: func(a *Attempt) {
		a.Probe(source)
		a.Script(source)
	}}
}

// outcome ends the attempt: what it came to.
func (a *Attempt) outcome(took time.Duration) Outcome {
	o := Outcome{Attack: a.attack.Name, Family: a.attack.Family, Does: a.attack.Does, Result: Held, Seen: a.through, TookMillis: took.Milliseconds()}
	for _, m := range a.attack.Marks {
		if !slices.Contains(a.integrity, m) {
			o.Unmarked = append(o.Unmarked, m)
		}
	}
	if len(a.through) > 0 {
		o.Result = GotThrough
	}
	return o
}
