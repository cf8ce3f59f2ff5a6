package load

import (
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/gradefleet/gradefleet/cli/internal/chaos/history"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Every file that a client writes is a module that says which value it holds, so
// that it can be read, printed and imported.
func content(value string) string { return "VERSION = '" + value + "'\n" }

var contentForm = regexp.MustCompile(`^VERSION = '([^']+)'\n$`)

// held is the value that a file's content stands for; content that nobody wrote
// stands for itself.
func held(text string) string {
	if m := contentForm.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return fmt.Sprintf("content %.60q", text)
}

// logPath is the file that commands append their tokens to.
const logPath = "log"

// grade sends a submission without a session.
func (c *client) grade() {
	s := c.submission()
	c.insist(history.Op{Kind: history.Evaluate, Want: s.want}, request{path: "/evaluate_code", body: s.body(protocol.NewUUID())},
		func(o *history.Op, a *answer) history.Outcome {
			g, err := readGraded(a.body)
			if err != nil {
				return history.Fault
			}
			o.Got = g.verdicts()
			return history.OK
		})
}

// edit does something in a session.
func (c *client) edit() {
	s := c.session()
	path := history.Paths[c.rand.IntN(len(history.Paths))]
	switch n := c.rand.IntN(100); {
	case n < 30:
		c.write(s, path)
	case n < 52:
		c.read(s, path)
	case n < 62:
		c.evaluateIn(s)
	case n < 67 && c.cfg.Keys:
		c.runKeyed(s)
	case n < 80:
		c.run(s)
	case n < 88:
		c.must(history.Op{Kind: history.Delete, Session: s, Path: path}, request{path: "/delete_file", body: map[string]any{"id": s, "rel_path": path}}, nil)
	case n < 96:
		to := history.Paths[c.rand.IntN(len(history.Paths))]
		if to == path {
			return
		}
		c.must(history.Op{Kind: history.Rename, Session: s, Path: path, To: to},
			request{path: "/rename_file", body: map[string]any{"id": s, "old_path": path, "new_path": to}}, nil)
	default:
		c.fork(s)
	}
}

func (c *client) write(s, path string) {
	v := c.value()
	c.must(history.Op{Kind: history.Write, Session: s, Path: path, Value: v},
		request{path: "/write_file", body: map[string]any{"id": s, "rel_path": path, "content": content(v)}}, nil)
}

func readRequest(s, path string) request {
	return request{path: "/read_file", query: url.Values{"id": {s}, "rel_path": {path}}}
}

func readContent(a *answer) (string, error) {
	var f struct{ Content *string }
	if err := json.Unmarshal(a.body, &f); err != nil || f.Content == nil {
		return "", fmt.Errorf("answer without content: %w", err)
	}
	return *f.Content, nil
}

func fillRead(o *history.Op, a *answer) history.Outcome {
	text, err := readContent(a)
	if err != nil {
		return history.Fault
	}
	o.Value = held(text)
	return history.OK
}

func (c *client) read(s, path string) {
	c.must(history.Op{Kind: history.Read, Session: s, Path: path}, readRequest(s, path), fillRead)
}

// evaluateIn grades a submission that imports a file of its session: what it
// returns, and whether that passes, depends on the file.
func (c *client) evaluateIn(s string) {
	const path = "mod.py"
	expected := fmt.Sprintf("v%d.%d", c.n, c.rand.IntN(c.values+1))
	body := map[string]any{"id": s, "code": "from mod import VERSION\ndef f(x):\n    return VERSION\n", "entry_point": "f",
		"io_cases": []map[string]string{{"input": "x=1", "output": "'" + expected + "'"}}}
	c.insist(history.Op{Kind: history.Import, Session: s, Path: path}, request{path: "/evaluate_code", body: body},
		func(o *history.Op, a *answer) history.Outcome {
			g, err := readGraded(a.body)
			if err != nil {
				return history.Fault
			}
			o.Got = g.verdicts()
			switch {
			case o.Got == "error" && (strings.Contains(string(a.body), "No module named 'mod'") ||
				// It was found, and removed before it was read.
				strings.Contains(string(a.body), "No such file or directory") && strings.Contains(string(a.body), "/mod.py'")):
				o.Want = "error"
				return history.Missing
			case len(g.Cases) == 1 && json.Unmarshal(g.Cases[0].Got, &o.Value) == nil && o.Value != "":
				o.Want = "failed"
				if o.Value == expected {
					o.Want = "passed"
				}
				return history.OK
			}
			return history.Fault
		})
}

// run runs a command that leaves a token, reads a file, and sometimes writes one.
func (c *client) run(s string) {
	token := "t" + c.value()
	from := history.Paths[c.rand.IntN(len(history.Paths))]
	cmd := fmt.Sprintf("echo %s >>%s && { cat %s 2>/dev/null || true; }", token, logPath, from)
	o := history.Op{Kind: history.Run, Session: s, Token: token}
	if c.rand.IntN(2) == 0 {
		o.Path, o.Value = history.Paths[c.rand.IntN(len(history.Paths))], c.value()
		// Late: a command that was queued can't be called back by who lost the
		// connection to its gateway.
		o.Late = true
		cmd += fmt.Sprintf(` && mkdir -p d && printf "VERSION = '%%s'\n" %s >.new && mv .new %s`, o.Value, o.Path)
	}
	// What the command reads is an operation of its own: one of its session's
	// files at some time between.
	seen := c.cfg.History.Begin(history.Op{Client: c.n, Kind: history.Read, Session: s, Path: from, Detail: "by a command"})
	found, end := "", history.Refused
	op, out := c.must(o, request{path: "/run", body: map[string]any{"id": s, "cmd": cmd}}, func(o *history.Op, a *answer) history.Outcome {
		var r struct {
			Stdout   string
			ExitCode *int `json:"exit_code"`
		}
		if err := json.Unmarshal(a.body, &r); err != nil || r.ExitCode == nil || *r.ExitCode != 0 {
			return history.Fault
		}
		o.Got = r.Stdout
		if end = history.Missing; r.Stdout != "" {
			found, end = held(r.Stdout), history.OK
		}
		return history.OK
	})
	if out != history.OK {
		end = history.Refused
	}
	c.cfg.History.End(seen, end, func(o *history.Op) { o.Value, o.Gateway = found, op.Gateway })
}

func (c *client) fork(s string) {
	op, out := c.must(history.Op{Kind: history.Fork, Session: s}, request{path: "/fork_session", body: map[string]any{"id": s}},
		func(o *history.Op, a *answer) history.Outcome {
			var f struct {
				NewID string `json:"new_id"`
			}
			if err := json.Unmarshal(a.body, &f); err != nil || f.NewID == "" {
				return history.Fault
			}
			o.Copy = f.NewID
			c.copied(f.NewID)
			return history.OK
		})
	if out == history.OK {
		c.read(op.Copy, history.Paths[c.rand.IntN(len(history.Paths))])
	}
}
