package load

import (
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/gradefleet/gradefleet/cli/internal/chaos/history"
)

// Audit reads every session to the end, once the fleet is whole again, and
// records what is there.
func (l *Load) Audit() {
	c := &client{Load: l, n: l.clients(), rand: rand.New(rand.NewPCG(l.cfg.Seed, 0))}
	l.mu.Lock()
	begun, copies := slices.Clone(l.begun), slices.Clone(l.copies)
	l.mu.Unlock()
	for _, s := range begun {
		c.readAll(s)
		c.readLog(s)
	}
	for _, s := range copies {
		l.cfg.History.Copied(s, c.readAll(s))
	}
}

func (c *client) readAll(s string) map[string]string {
	held := map[string]string{}
	for _, path := range history.Paths {
		op, _ := c.insist(history.Op{Kind: history.Read, Session: s, Path: path}, readRequest(s, path), fillRead)
		held[path] = op.Value
	}
	return held
}

// readLog reads the tokens. The model of a session's files doesn't know the log.
func (c *client) readLog(s string) {
	op, out := c.insist(history.Op{Kind: history.Read, Path: logPath, Detail: s}, readRequest(s, logPath), func(o *history.Op, a *answer) history.Outcome {
		text, err := readContent(a)
		if err != nil {
			return history.Fault
		}
		o.Value = text
		return history.OK
	})
	if out == history.OK || out == history.Missing {
		c.cfg.History.Log(s, strings.Fields(op.Value))
	}
}
