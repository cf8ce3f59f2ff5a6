package server_test

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// What one gateway acknowledged, the next request sees through the other.
func TestGatewaysAgree(t *testing.T) {
	c := newCluster(t, 2, nil)
	one, two := c.gateways[0], c.gateways[1]
	for i := range 3 {
		c.worker(fmt.Sprint("w", i+1), nil)
	}
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() {
			s := fmt.Sprint("session-", i)
			two.get("/read_file?id="+s+"&rel_path=a").want(t, 404, "File does not exist") // nobody may remember that
			one.post("/write_file", write(s, "a", s)).want(t, 200, "success")
			two.get("/read_file?id="+s+"&rel_path=a").want(t, 200, `"content":"`+s+`"`)
			two.post("/run", run(s)).want(t, 200, c.owner(s).Worker)
			two.post("/write_file", write(s, "a", "changed")).want(t, 200, "success")
			one.get("/read_file?id="+s+"&rel_path=a").want(t, 200, `"content":"changed"`)
		})
	}
	wg.Wait()
	share := map[string]int{}
	for i := range 60 {
		share[c.owner(fmt.Sprint("session-", i)).Worker]++
	}
	for w, n := range share {
		if n < 5 || n > 40 || len(share) != 3 {
			t.Errorf("worker %s got %d of 60 sessions (%v), want them spread", w, n, share)
		}
	}
}

func TestOneOwnerHoweverManyAsk(t *testing.T) {
	c := newCluster(t, 2, nil)
	workers := []*fakeWorker{c.worker("w1", nil), c.worker("w2", nil), c.worker("w3", nil)}
	for round := range 5 {
		s := fmt.Sprint("s", round)
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				c.gateways[i%2].post("/write_file", write(s, fmt.Sprint("f", i), "x")).want(t, 200, "success")
			})
		}
		wg.Wait()
		owners := 0
		for _, w := range workers {
			w.mu.Lock()
			if f := w.sessions[s]; f != nil {
				owners++
				if len(f.files) != 10 || c.owner(s).Worker != w.id {
					t.Errorf("%s has %d files of %s, owned by %s; want all 10 at the owner", w.id, len(f.files), s, c.owner(s).Worker)
				}
			}
			w.mu.Unlock()
		}
		if owners != 1 {
			t.Errorf("%d workers have files of %s, want 1", owners, s)
		}
	}
}

func TestEvaluateGoesToTheOwner(t *testing.T) {
	c := newCluster(t, 1, nil)
	g := c.gateways[0]
	w1, w2 := c.worker("w1", nil), c.worker("w2", nil)
	g.post("/write_file", write("s", "lib.py", "x = 1")).want(t, 200, "success")
	owner, other := w1, w2
	if c.owner("s").Worker == "w2" {
		owner, other = w2, w1
	}
	for range 10 {
		g.post("/evaluate_code", evaluate("s")).want(t, 200, "passed")
		if job := within(t, "job", owner.jobs); job.Epoch != 1 || job.Session != "s" {
			t.Errorf("job %+v, want epoch 1 of s", job)
		}
	}
	if n := len(other.jobs); n != 0 {
		t.Errorf("%d jobs of the session went to another worker", n)
	}
}

// A gateway that remembers an owner that is one no more.
func TestMisdirected(t *testing.T) {
	for _, x := range []struct {
		name string
		// change makes w2 the owner of s in place of w1.
		change func(c *cluster, w1, w2 *fakeWorker)
	}{
		{"taken over", func(c *cluster, w1, w2 *fakeWorker) {
			w1.give("s", &fakeSession{epoch: 2, files: map[string]string{"a": "at w1"}}) // it knows that it isn't the owner of epoch 1
			w2.give("s", &fakeSession{epoch: 2, files: map[string]string{"a": "at w2"}})
			c.setOwner("s", "w2", 2)
		}},
		{"removed and made again", func(c *cluster, w1, w2 *fakeWorker) {
			w1.mu.Lock()
			delete(w1.sessions, "s") // it knows nothing of it any more
			w1.mu.Unlock()
			w2.give("s", &fakeSession{epoch: 1, files: map[string]string{"a": "at w2"}})
			c.setOwner("s", "w2", 1)
		}},
		{"its worker is gone", func(c *cluster, w1, w2 *fakeWorker) {
			w2.give("s", &fakeSession{epoch: 2, files: map[string]string{"a": "at w2"}})
			c.setOwner("s", "w2", 2)
			w1.goodbye()
			eventually(c.t, "the gateway knows", func() bool { return c.gateways[0].value("gradefleet_workers_live") == 1 })
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := newCluster(t, 1, nil)
			g := c.gateways[0]
			w1 := c.worker("w1", nil)
			g.post("/write_file", write("s", "a", "at w1")).want(t, 200, "success")
			g.post("/run", run("s")).want(t, 200, `"stdout":"w1"`)
			w2 := c.worker("w2", nil)
			for _, ask := range []func(){
				func() { g.get("/read_file?id=s&rel_path=a").want(t, 200, "at w2") },
				func() { g.post("/run", run("s")).want(t, 200, `"stdout":"w2"`) },
				func() { g.post("/evaluate_code", evaluate("s")).want(t, 200, "passed") },
				func() { g.post("/write_file", write("s", "a", "at w2")).want(t, 200, "success") },
				func() { g.post("/fork_session", map[string]any{"id": "s"}).want(t, 200, "new_id") },
			} {
				x.change(c, w1, w2)
				ask()
				if c.owner("s").Worker != "w2" {
					t.Fatal("the gateway changed the owner")
				}
				if x.name == "its worker is gone" {
					break // and can't go again
				}
				// The gateway has it wrong once more, for the next question.
				w1.give("s", &fakeSession{epoch: 1, files: map[string]string{"a": "at w1"}})
				c.setOwner("s", "w1", 1)
				g.post("/write_file", write("s", "a", "at w1")).want(t, 200, "success")
			}
		})
	}
}

func TestNobodyOwnsIt(t *testing.T) {
	c := newCluster(t, 1, nil)
	g, w := c.gateways[0], c.worker("w1", nil)
	w.give("s", &fakeSession{epoch: 5, files: map[string]string{}})
	c.setOwner("s", "w1", 4)
	a := g.post("/run", run("s"))
	a.want(t, 503, "moving")
	if a.header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q, want 1", a.header.Get("Retry-After"))
	}
	if n := len(w.jobs); n != 2 {
		t.Errorf("the worker was asked %d times, want twice", n)
	}
}

func TestFork(t *testing.T) {
	c := newCluster(t, 2, nil)
	one, two := c.gateways[0], c.gateways[1]
	w := c.worker("w1", nil)
	one.post("/write_file", write("s", "a", "v")).want(t, 200, "success")
	var forked struct {
		NewID string `json:"new_id"`
	}
	a := one.post("/fork_session", map[string]any{"id": "s"})
	if err := json.Unmarshal([]byte(a.body), &forked); err != nil || a.status != 200 {
		t.Fatalf("fork: %d %s", a.status, a.body)
	}
	two.get("/read_file?id="+forked.NewID+"&rel_path=a").want(t, 200, `"content":"v"`)
	two.post("/write_file", write("s", "a", "changed")).want(t, 200, "success")
	one.get("/read_file?id="+forked.NewID+"&rel_path=a").want(t, 200, `"content":"v"`)
	if r := c.owner(forked.NewID); r.Worker != "w1" || r.Epoch != 1 {
		t.Errorf("record of the copy: %+v", r)
	}

	// One that the worker refuses leaves no record.
	w.mu.Lock()
	delete(w.sessions, "s")
	w.mu.Unlock()
	before := c.sessions()
	one.post("/fork_session", map[string]any{"id": "s"}).want(t, 404, "Session to fork not found")
	if after := c.sessions(); after != before {
		t.Errorf("%d records after a refused fork, %d before", after, before)
	}
}

// sessions counts the records in the bucket.
func (c *cluster) sessions() int {
	c.t.Helper()
	keys, err := c.bus.Sessions.ListKeys(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	n := 0
	for range keys.Keys() {
		n++
	}
	return n
}

// The worker that gets a new session died a moment ago; nobody has noticed yet.
func TestNewSessionGoesToALivingWorker(t *testing.T) {
	c := newCluster(t, 1, nil)
	g := c.gateways[0]
	c.worker("dead", nil).rest() // its heartbeats still count
	g.post("/write_file", write("s", "a", "x")).want(t, 503, "No worker")
	if n := c.sessions(); n != 0 {
		t.Errorf("%d records left of a session that could not be placed", n)
	}
	c.worker("w1", nil)
	placedElsewhere := false
	for i := range 20 {
		s := fmt.Sprint("s", i)
		g.post("/write_file", write(s, "a", "x")).want(t, 200, "success")
		r := c.owner(s)
		if r.Worker != "w1" {
			t.Errorf("%s is owned by %s", s, r.Worker)
		}
		placedElsewhere = placedElsewhere || r.Epoch == 2
	}
	if !placedElsewhere {
		t.Error("no session was first placed on the dead worker: the test shows nothing")
	}
}

func TestKeysOfOddIDs(t *testing.T) {
	c := newCluster(t, 1, nil)
	g := c.gateways[0]
	c.worker("w1", nil)
	for _, id := range []string{"a.b", ".hidden", "trailing.", "a..b", "-", "_", "A", "a"} {
		g.post("/write_file", write(id, "f", id)).want(t, 200, "success")
	}
	for _, id := range []string{"a.b", ".hidden", "trailing.", "a..b", "-", "_", "A", "a"} {
		g.get("/read_file?rel_path=f&id="+id).want(t, 200, `"content":"`+id+`"`)
	}
	if n := c.sessions(); n != 8 {
		t.Errorf("%d records of 8 sessions", n)
	}
	if protocol.SessionOfKey(protocol.SessionKey(".a..b.")) != ".a..b." {
		t.Error("a key does not lead back to its session")
	}
}
