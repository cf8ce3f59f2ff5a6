package load

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/chaos/history"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// line is one line of a batch's answer.
type line struct {
	Index  *int            `json:"index"`
	Status int             `json:"status"`
	Detail string          `json:"detail"`
	Result json.RawMessage `json:"result"`
	Done   *bool           `json:"done"`
	Count  int             `json:"count"`
}

// batch sends submissions through one /evaluate_batch request and calls each with
// every line of the answer. It returns when the answer has ended: nil if its last
// line says that all was done.
func (g *Gateways) batch(ctx context.Context, gateway int, limit time.Duration, subs []submission, each func(line)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	body, send := io.Pipe()
	go func() {
		w := bufio.NewWriter(send)
		enc := json.NewEncoder(w)
		for _, s := range subs {
			if err := enc.Encode(s.body(protocol.NewUUID())); err != nil {
				break // the answer has ended
			}
		}
		w.Flush()
		send.Close()
	}()
	defer body.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, g.urls[gateway]+"/evaluate_batch", body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := g.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return fmt.Errorf("batch: %s %s", resp.Status, text)
	}
	for d := json.NewDecoder(resp.Body); ; {
		var l line
		if err := d.Decode(&l); err != nil {
			return fmt.Errorf("batch: its answer ends without a last line: %w", err)
		}
		if l.Done != nil {
			if !*l.Done {
				return fmt.Errorf("batch: not done: %s", l.Detail)
			}
			if l.Count != len(subs) {
				return fmt.Errorf("%w: it says that %d lines were read, %d were sent", errBatch, l.Count, len(subs))
			}
			return nil
		}
		each(l)
	}
}

// errBatch is in the chain of the error for an answer that must never be.
var errBatch = errors.New("batch")

// batch sends many submissions in one request, and in another one those that
// were not answered in the first.
func (c *client) batch() {
	var subs []submission
	for range 5 + c.rand.IntN(25) {
		subs = append(subs, c.submission())
	}
	begun := time.Now()
	for len(subs) > 0 {
		gateway := c.rand.IntN(len(c.cfg.Gateways.urls))
		var ops []*history.Op
		for _, s := range subs {
			ops = append(ops, c.cfg.History.Begin(history.Op{Client: c.n, Kind: history.Batch, Gateway: gateway, Want: s.want}))
		}
		ended := make([]bool, len(subs))
		err := c.cfg.Gateways.batch(context.Background(), gateway, Deadline, subs, func(l line) {
			if l.Index == nil || *l.Index < 0 || *l.Index >= len(subs) {
				o := c.cfg.History.Begin(history.Op{Client: c.n, Kind: history.Batch, Gateway: gateway})
				c.cfg.History.End(o, history.Fault, func(o *history.Op) { o.Detail = "an answer to no line" })
				return
			}
			at := *l.Index
			a := answer{status: l.Status, sent: true, body: l.Result}
			if l.Status != http.StatusOK {
				a.body = protocol.ErrorBody(l.Detail)
			}
			out := outcome(history.Batch, &a)
			if out == history.Unknown {
				out = history.Refused // an evaluate may be asked again
			}
			c.cfg.History.End(ops[at], out, func(o *history.Op) {
				o.Answers++
				o.Status, o.Detail = l.Status, a.detail()
				if g, err := readGraded(l.Result); out == history.OK && err == nil {
					o.Got = g.verdicts()
				}
			})
			ended[at] = out != history.Refused || ended[at]
		})
		var left []submission
		for i, o := range ops {
			if ended[i] {
				continue
			}
			left = append(left, subs[i])
			if o.Answers > 0 {
				continue
			}
			out := history.Unknown
			if err == nil || errors.Is(err, errBatch) || errors.Is(err, context.DeadlineExceeded) {
				out = history.Unanswered
			}
			c.cfg.History.End(o, out, func(o *history.Op) { o.Detail = fmt.Sprint(err) })
		}
		if subs = left; len(subs) > 0 {
			if time.Since(begun) > bulkPatience {
				o := c.cfg.History.Begin(history.Op{Client: c.n, Kind: history.Batch, Gateway: gateway})
				c.cfg.History.End(o, history.Unanswered, func(o *history.Op) {
					o.Detail = fmt.Sprintf("%d submissions not answered in %v; the last time: %v", len(subs), bulkPatience, err)
				})
				return
			}
			time.Sleep(backOff)
		}
	}
}

// bulkPatience is patience for what goes behind everything that somebody waits for.
const bulkPatience = 90 * time.Second

// async sends a submission that is answered later, and fetches the answer through
// any gateway. The key makes it safe to send it again.
func (c *client) async() {
	s := c.submission()
	key := protocol.NewUUID()
	body := s.body(protocol.NewUUID())
	var job string
	_, out := c.insist(history.Op{Kind: history.Async, Key: key}, request{path: "/evaluate_code", body: body,
		header: map[string]string{"Prefer": "respond-async", "Idempotency-Key": key}}, func(o *history.Op, a *answer) history.Outcome {
		var j struct {
			ID string `json:"job_id"`
		}
		if err := json.Unmarshal(a.body, &j); err != nil || j.ID == "" {
			return history.Fault
		}
		job, o.Got = j.ID, j.ID
		return history.OK
	})
	if out != history.OK {
		return
	}
	// From here on the job is accepted: it must be answered.
	whole := c.cfg.History.Begin(history.Op{Client: c.n, Kind: history.Async, Want: s.want, Detail: "job " + job})
	last := ""
	for begun := time.Now(); time.Since(begun) < bulkPatience; {
		a := c.cfg.Gateways.send(context.Background(), c.rand.IntN(len(c.cfg.Gateways.urls)),
			request{path: "/jobs/" + job, query: url.Values{"wait": {"5"}}})
		var j struct {
			State  string
			Status int
			Result json.RawMessage
		}
		last = fmt.Sprintf("%d %s %.200s", a.status, a.detail(), a.body)
		if a.status == http.StatusNotFound || a.status == http.StatusOK && json.Unmarshal(a.body, &j) != nil {
			break
		}
		if j.State == "done" && j.Status == http.StatusOK {
			c.cfg.History.End(whole, history.OK, func(o *history.Op) {
				if g, err := readGraded(j.Result); err == nil {
					o.Got = g.verdicts()
				}
			})
			return
		}
		if j.State == "done" || j.State == "cancelled" {
			end := outcome(history.Async, &answer{status: j.Status, sent: true, body: j.Result})
			if end != history.GivenUp {
				end = history.Fault
			}
			c.cfg.History.End(whole, end, func(o *history.Op) { o.Detail += ": " + last })
			return
		}
		if a.status != http.StatusOK {
			time.Sleep(backOff)
		}
	}
	c.cfg.History.End(whole, history.Unanswered, func(o *history.Op) { o.Detail += ": " + last })
}

// runKeyed sends a command with an idempotency key through every gateway at once,
// and again until there is an answer: it runs once.
func (c *client) runKeyed(s string) {
	token, key := "t"+c.value(), protocol.NewUUID()
	r := request{path: "/run", header: map[string]string{"Idempotency-Key": key},
		body: map[string]any{"id": s, "cmd": fmt.Sprintf("echo %s >>%s && echo %s", token, logPath, token)}}
	var wg sync.WaitGroup
	for gateway := range c.cfg.Gateways.urls {
		wg.Go(func() {
			for begun := time.Now(); ; {
				op, out, after := c.try(history.Op{Kind: history.Run, Session: s, Token: token, Key: key, Gateway: gateway}, r, func(o *history.Op, a *answer) history.Outcome {
					var r struct{ Stdout string }
					if err := json.Unmarshal(a.body, &r); err != nil || strings.TrimSpace(r.Stdout) != token {
						return history.Fault
					}
					o.Got = r.Stdout
					return history.OK
				})
				// An answer that says "unknown" is kept under the key, like any other.
				if out != history.Refused && (out != history.Unknown || op.Status != 0) {
					return
				}
				if time.Since(begun) > patience {
					return
				}
				time.Sleep(max(after, backOff))
			}
		})
	}
	wg.Wait()
}

// HasBulk reports whether a gateway knows batches, asynchronous jobs and keys.
func (g *Gateways) HasBulk(ctx context.Context) bool {
	a := g.send(ctx, 0, request{path: "/openapi.yaml"})
	return bytes.Contains(a.body, []byte("/evaluate_batch:"))
}

// Many is what became of many submissions in one batch.
type Many struct {
	Right, Missing, Twice, Wrong int
	// Examples are some of those that are not right.
	Examples []string
}

// examples bounds those kept.
const examples = 5

// manyDeadline bounds a batch of many.
const manyDeadline = 15 * time.Minute

// GradeMany sends n submissions in one batch and calls each with how many were
// answered so far.
func (g *Gateways) GradeMany(ctx context.Context, seed uint64, n int, each func(answered int)) (m Many, err error) {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	subs := make([]submission, n)
	for i := range subs {
		subs[i] = newSubmission(r, r.IntN(40) == 0)
	}
	answers := make([]int, n)
	verdicts := make([]string, n)
	answered := 0
	err = g.batch(ctx, 0, manyDeadline, subs, func(l line) {
		if l.Index == nil || *l.Index < 0 || *l.Index >= n {
			return
		}
		answers[*l.Index]++
		verdicts[*l.Index] = fmt.Sprintf("%d %s", l.Status, l.Detail)
		if a, err := readGraded(l.Result); l.Status == http.StatusOK && err == nil {
			verdicts[*l.Index] = a.verdicts()
		}
		answered++
		each(answered)
	})
	for i, s := range subs {
		switch {
		case answers[i] == 0:
			m.Missing++
		case answers[i] > 1:
			m.Twice++
		case verdicts[i] != s.want:
			m.Wrong++
		default:
			m.Right++
			continue
		}
		if len(m.Examples) < examples {
			m.Examples = append(m.Examples, fmt.Sprintf("line %d: %d answers, %q, want %q", i, answers[i], verdicts[i], s.want))
		}
	}
	return m, err
}
