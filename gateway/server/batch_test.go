package server_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/gateway/server"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// batchLine is a line of a batch's answer.
type batchLine struct {
	Index  *int            `json:"index"`
	Ref    string          `json:"ref"`
	Status int             `json:"status"`
	Result json.RawMessage `json:"result"`
	Detail string          `json:"detail"`
	Done   *bool           `json:"done"`
	Count  int             `json:"count"`
}

// batch is a batch under way.
type batchCall struct {
	t    *testing.T
	in   *io.PipeWriter
	resp *http.Response
	out  *bufio.Scanner
}

func (g *gateway) batch() *batchCall {
	g.c.t.Helper()
	b, err := g.openBatch()
	if err != nil {
		g.c.t.Fatal(err)
	}
	return b
}

func (g *gateway) openBatch() (*batchCall, error) {
	g.c.t.Helper()
	body, in := io.Pipe()
	r, err := http.NewRequestWithContext(g.c.t.Context(), http.MethodPost, g.url+"/evaluate_batch", body)
	if err != nil {
		g.c.t.Fatal(err)
	}
	resp, err := g.c.client.Do(r)
	if err != nil {
		return nil, err
	}
	g.c.t.Cleanup(func() {
		in.Close()
		resp.Body.Close()
	})
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/x-ndjson" {
		g.c.t.Fatalf("answered %d %v", resp.StatusCode, resp.Header)
	}
	b := &batchCall{t: g.c.t, in: in, resp: resp, out: bufio.NewScanner(resp.Body)}
	b.out.Buffer(nil, 1<<20)
	return b, nil
}

func (b *batchCall) next() (l batchLine, ok bool) {
	b.t.Helper()
	if !b.out.Scan() {
		if err := b.out.Err(); err != nil {
			b.t.Logf("batch cut: %v", err)
		}
		return l, false
	}
	if err := json.Unmarshal(b.out.Bytes(), &l); err != nil {
		b.t.Fatalf("line %q: %v", b.out.Bytes(), err)
	}
	return l, true
}

func lineOf(session, ref string) string {
	e := evaluate(session)
	if ref != "" {
		e["ref"] = ref
	}
	return strings.TrimSpace(encode(e)) + "\n"
}

func TestBatch(t *testing.T) {
	c := newCluster(t, 1, func(cfg *server.Config) { cfg.MaxBody = 64 << 10; cfg.ReadTimeout = 300 * time.Millisecond })
	var n atomic.Int64
	c.workerUnseen("w1", func(w *fakeWorker) { // a request of our own may be late
		w.handle = func(j protocol.Job, m jetstream.Msg) *protocol.Result {
			switch k := n.Add(1); {
			case k%97 == 0 && !strings.Contains(j.Session, "t"):
				m.Nak() // a worker that drains
				return nil
			case j.Session == "refused":
				return refusal(400, "no")
			}
			return success(map[string]any{"passed": true, "case_results": []any{}, "error": nil, "id": j.Session})
		}
	})
	const lines = 2000
	var b *batchCall
	eventually(t, "its headers are sent in time", func() bool { // on a busy machine not always
		var err error
		b, err = c.gateways[0].openBatch()
		return err == nil
	})
	wrong := map[int]int{} // status by index
	go func() {
		defer b.in.Close()
		for i := range lines {
			switch {
			case i%50 == 7:
				io.WriteString(b.in, "\n \r\n{not json\n")
			case i%50 == 8:
				fmt.Fprintf(b.in, "{\"ref\":\"r%d\",\"id\":5}\n", i)
			case i == 99:
				io.WriteString(b.in, lineOf("../x", "r99"))
			case i == 100:
				io.WriteString(b.in, lineOf("refused", "r100"))
			case i == 200:
				b.in.Write(bytes.Repeat([]byte("x"), 70<<10))
				io.WriteString(b.in, "\n")
			case i == lines-1:
				io.WriteString(b.in, strings.TrimSuffix(lineOf("s", "last"), "\n")) // no newline at the end
			default:
				io.WriteString(b.in, lineOf(fmt.Sprint("s", i), fmt.Sprint("r", i)))
			}
			if i == 500 {
				time.Sleep(400 * time.Millisecond) // longer than a request may take to be sent
			}
		}
	}()
	for i := range lines {
		switch {
		case i%50 == 7, i%50 == 8:
			wrong[i] = 422
		case i == 99, i == 100:
			wrong[i] = 400
		case i == 200:
			wrong[i] = 413
		}
	}
	seen := map[int]bool{}
	for {
		l, ok := b.next()
		if !ok {
			t.Fatal("no last line")
		}
		if l.Done != nil {
			if !*l.Done || l.Count != lines {
				t.Errorf("last line %+v", l)
			}
			break
		}
		i := *l.Index
		if seen[i] {
			t.Errorf("line %d answered twice", i)
		}
		seen[i] = true
		want := 200
		if status, ok := wrong[i]; ok {
			want = status
		}
		if l.Status != want || (want == 200) != (l.Result != nil) || (want != 200) != (l.Detail != "") {
			t.Errorf("line %d: %+v, want %d", i, l, want)
		}
		if ref := fmt.Sprint("r", i); i%50 != 7 && i != 200 && i != lines-1 && l.Ref != ref {
			t.Errorf("line %d has ref %q", i, l.Ref)
		}
		if want == 200 && i != lines-1 && !strings.Contains(string(l.Result), fmt.Sprintf(`"id":"s%d"`, i)) {
			t.Errorf("line %d has another's answer: %s", i, l.Result)
		}
	}
	if len(seen) != lines {
		t.Errorf("%d lines answered, want %d", len(seen), lines)
	}
	if _, ok := b.next(); ok {
		t.Error("more after the last line")
	}
	c.queued(protocol.BulkQueue, 0)
}

// What goes wrong on the way is tried again: here there is no worker at first.
func TestBatchIsPatient(t *testing.T) {
	c := newCluster(t, 1, nil)
	b := c.gateways[0].batch()
	for i := range 5 {
		io.WriteString(b.in, lineOf(fmt.Sprint("s", i), ""))
	}
	c.worker("w1", nil)
	b.in.Close()
	for range 5 {
		if l, ok := b.next(); !ok || l.Status != 200 {
			t.Errorf("line %+v", l)
		}
	}
	if l, ok := b.next(); !ok || l.Count != 5 {
		t.Errorf("last line %+v", l)
	}
}

func TestEmptyBatch(t *testing.T) {
	c := newCluster(t, 1, nil)
	b := c.gateways[0].batch()
	b.in.Close()
	if l, ok := b.next(); !ok || l.Done == nil || !*l.Done || l.Count != 0 {
		t.Errorf("answer %+v", l)
	}
}

// Who doesn't read stops only itself: its window fills, and no more is read.
func TestSlowReaderStopsOnlyItself(t *testing.T) {
	c := newCluster(t, 1, func(cfg *server.Config) { cfg.BatchWindow = 8 })
	g := c.gateways[0]
	big := strings.Repeat("x", 256<<10)
	w := c.worker("w1", func(w *fakeWorker) {
		w.handle = func(j protocol.Job, m jetstream.Msg) *protocol.Result {
			answer := ""
			if strings.HasPrefix(j.Session, "slow") {
				answer = big
			}
			return success(map[string]any{"passed": true, "case_results": []any{}, "error": nil, "pad": answer})
		}
	})
	slow := g.batch()
	go func() {
		for i := range 10_000 {
			if _, err := io.WriteString(slow.in, lineOf(fmt.Sprint("slow", i), "")); err != nil {
				return
			}
		}
	}()
	// It is stopped when no line of it comes to the worker for a while.
	taken := 0
	for ; taken < 8; taken++ {
		within(t, "job", w.jobs)
	}
	for quiet := false; !quiet; {
		select {
		case <-w.jobs:
			taken++
		case <-time.After(500 * time.Millisecond):
			quiet = true
		}
	}
	if taken > 500 {
		t.Errorf("%d lines were done of a caller that reads no answers", taken)
	}
	fast := g.batch()
	for i := range 50 {
		io.WriteString(fast.in, lineOf(fmt.Sprint("fast", i), ""))
		if l, ok := fast.next(); !ok || l.Status != 200 {
			t.Fatalf("another batch: %+v", l)
		}
	}
	g.post("/evaluate_code", evaluate("s")).want(t, 200, "passed")
	fast.in.Close()
	slow.resp.Body.Close()
	eventually(t, "the slow one is gone", func() bool { return g.value("gradefleet_http_in_flight") == 0 })
}

// A caller that hangs up cancels what is unanswered.
func TestBatchHangUp(t *testing.T) {
	c := newCluster(t, 1, nil)
	g := c.gateways[0]
	w := c.worker("w1", mute)
	b := g.batch()
	for i := range 10 {
		io.WriteString(b.in, lineOf(fmt.Sprint("s", i), ""))
	}
	within(t, "job", w.jobs)
	b.in.CloseWithError(io.ErrUnexpectedEOF)
	b.resp.Body.Close()
	c.queued(protocol.BulkQueue, 0)
	eventually(t, "it is over", func() bool { return g.value("gradefleet_http_in_flight") == 0 })
}

// A gateway that stops answers what it has read, and says where to go on.
func TestBatchAtStop(t *testing.T) {
	c := newCluster(t, 1, nil)
	g := c.gateways[0]
	release := make(chan struct{})
	w := c.worker("w1", func(w *fakeWorker) {
		w.handle = func(j protocol.Job, m jetstream.Msg) *protocol.Result {
			<-release
			return w.answer(j, m)
		}
	})
	b := g.batch()
	for i := range 3 {
		io.WriteString(b.in, lineOf(fmt.Sprint("s", i), ""))
	}
	within(t, "job", w.jobs)
	c.queued(protocol.BulkQueue, 3) // all lines are read
	g.stop()
	eventually(t, "it stops", func() bool { return g.Ready() != nil })
	close(release)
	for range 3 {
		if l, ok := b.next(); !ok || l.Status != 200 {
			t.Fatalf("line %+v", l)
		}
	}
	if l, ok := b.next(); !ok || l.Done == nil || *l.Done || l.Count != 3 || !strings.Contains(l.Detail, "stopping") {
		t.Errorf("last line %+v", l)
	}
	b.in.Close()
	if err := g.end(); err != nil {
		t.Error(err)
	}
}

// What isn't done when the drain timeout is over is answered, and the batch ends
// with its last line.
func TestBatchAtTheEndOfTheDrain(t *testing.T) {
	c := newCluster(t, 1, func(cfg *server.Config) { cfg.DrainTimeout = 100 * time.Millisecond })
	g := c.gateways[0]
	w := c.worker("w1", mute)
	b := g.batch()
	for i := range 30 { // more than are published at a time
		io.WriteString(b.in, lineOf(fmt.Sprint("s", i), ""))
	}
	within(t, "job", w.jobs)
	eventually(t, "the others wait", func() bool { return g.value("gradefleet_jobs_waiting") == 10 })
	g.stop()
	for range 30 {
		if l, ok := b.next(); !ok || l.Status != 503 {
			t.Fatalf("line %+v", l)
		}
	}
	if l, ok := b.next(); !ok || l.Done == nil || *l.Done || l.Count != 30 {
		t.Errorf("last line %+v", l)
	}
	b.in.Close()
	if err := g.end(); err != nil {
		t.Error(err)
	}
	c.queued(protocol.BulkQueue, 0)
}

func TestIdleBatchEnds(t *testing.T) {
	// On a busy machine a batch may be idle before its line comes: then it is given
	// more time.
	for limit := 200 * time.Millisecond; !testIdleBatch(t, limit); limit *= 2 {
		if limit > waitLimit {
			t.Fatal("no line comes before the batch is idle")
		}
	}
}

// testIdleBatch reports whether the gateway got the batch's line in time.
func testIdleBatch(t *testing.T, limit time.Duration) bool {
	c := newCluster(t, 1, func(cfg *server.Config) { cfg.IdleTimeout = limit })
	w := c.workerUnseen("w1", mute)
	b := c.gateways[0].batch()
	io.WriteString(b.in, lineOf("s", ""))
	ended := make(chan batchLine, 1)
	go func() {
		l, _ := b.next()
		ended <- l
	}()
	var j protocol.Job
	select {
	case j = <-w.jobs:
	case l := <-ended:
		if l.Done == nil || *l.Done || l.Count != 0 {
			t.Fatalf("line %+v", l)
		}
		return false
	}
	select {
	case l := <-ended:
		t.Fatalf("line %+v while one is unanswered: it isn't idle", l)
	case <-time.After(limit + limit/2):
	}
	w.reply(j, *success(map[string]any{"passed": true}))
	if l := within(t, "line", ended); l.Status != 200 {
		t.Errorf("line %+v", l)
	}
	if l, ok := b.next(); !ok || l.Done == nil || *l.Done || l.Count != 1 || !strings.Contains(l.Detail, "too long") {
		t.Errorf("last line %+v", l)
	}
	b.in.Close()
	return true
}

// What many clients do: send everything with a length and Expect: 100-continue,
// then read.
func TestBatchOfKnownLength(t *testing.T) {
	c := newCluster(t, 1, nil)
	c.worker("w1", nil)
	body := lineOf("s1", "a") + lineOf("s2", "b")
	conn, err := net.Dial("tcp", c.gateways[0].Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(waitLimit))
	fmt.Fprintf(conn, "POST /evaluate_batch HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n", len(body))
	in := bufio.NewReader(conn)
	if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("%q %v, want to be told to go on", line, err)
	}
	io.WriteString(conn, body)
	all, err := io.ReadAll(in)
	if err != nil || !strings.Contains(string(all), `"count":2`) || !strings.Contains(string(all), `"ref":"b"`) {
		t.Errorf("answer %s %v", all, err)
	}
}
