package fleettest

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Workers are replaced one after the other, as an upgrade does it, under load:
// no request fails, and nothing that was acknowledged is lost.
func TestRollingRestart(t *testing.T) {
	f := newFleet(t, 2, 3)
	var stop atomic.Bool
	var wg sync.WaitGroup
	var requests atomic.Int64
	for client := range 6 {
		wg.Go(func() {
			id := protocol.NewUUID()
			for n := 0; !stop.Load() && !t.Failed(); n++ {
				want := fmt.Sprintf("client %d, %d", client, n)
				do := func(path string, body map[string]any, has string) string {
					requests.Add(1)
					body["id"] = id
					status, answer, err := post(f.client, f.urls[(client+n)%2]+path, body)
					if err != nil || status != 200 || !strings.Contains(string(answer), has) {
						t.Errorf("client %d, round %d: %s %v: %d %s %v, want %q", client, n, path, body, status, answer, err, has)
					}
					return string(answer)
				}
				do("/write_file", map[string]any{"rel_path": "f", "content": want}, "true")
				status, answer := f.get(t, url.Values{"id": {id}, "rel_path": {"f"}})
				if status != 200 || answer["content"] != want {
					t.Errorf("client %d: read %d %v, want %q", client, status, answer, want)
				}
				do("/run", map[string]any{"cmd": "cat f; mv f g"}, want)
				do("/rename_file", map[string]any{"old_path": "g", "new_path": "h"}, "true")
				do("/evaluate_code", map[string]any{"code": "def f(x): return open('h').read()", "entry_point": "f",
					"io_cases": []map[string]string{{"input": "x=1", "output": fmt.Sprintf("%q", want)}}}, `{"passed":true`)
				do("/delete_file", map[string]any{"rel_path": "h"}, "true")
			}
		})
	}
	for i := range 3 {
		time.Sleep(500 * time.Millisecond)
		f.startWorker()
		for _, u := range f.urls {
			waitForWorkers(t, f.client, u, 4)
		}
		f.workers[i].stop()
	}
	time.Sleep(300 * time.Millisecond)
	stop.Store(true)
	wg.Wait()
	t.Logf("%d requests while three workers were replaced", requests.Load())
}

// A fork is a session of its own at once, and survives its worker.
func TestForksAreDurable(t *testing.T) {
	f := newFleet(t, 2, 2)
	ask := func(path string, body map[string]any) map[string]any {
		t.Helper()
		status, raw, err := post(f.client, f.urls[0]+path, body)
		var answer map[string]any
		if err != nil || status != 200 || json.Unmarshal(raw, &answer) != nil {
			t.Errorf("%s %v: %d %s %v", path, body, status, raw, err)
		}
		return answer
	}
	ask("/write_file", map[string]any{"id": "s", "rel_path": "f", "content": "one"})
	ids := make([]string, 16)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			ids[i] = ask("/fork_session", map[string]any{"id": "s"})["new_id"].(string)
			ask("/write_file", map[string]any{"id": ids[i], "rel_path": "g", "content": ids[i]})
		})
	}
	wg.Wait()
	ask("/write_file", map[string]any{"id": "s", "rel_path": "f", "content": "two"})
	for _, w := range f.workers[:1] {
		w.stop()
	}
	for _, id := range ids {
		if got := ask("/run", map[string]any{"id": id, "cmd": "cat f g"})["stdout"]; got != "one"+id {
			t.Errorf("fork %s has %q", id, got)
		}
	}
}

// A session that nobody uses is gone after its time, and its id is free.
func TestSessionsExpire(t *testing.T) {
	const ttl = time.Second
	f := newFleet(t, 1, 2, "--session-ttl", ttl.String(), "--collect-interval", "1s")
	write := func(id, content string) {
		t.Helper()
		if status, answer, err := post(f.client, f.urls[0]+"/write_file", map[string]string{"id": id, "rel_path": "f", "content": content}); status != 200 {
			t.Fatalf("write: %d %s %v", status, answer, err)
		}
	}
	expired := func() float64 { return f.counter(t, "gradefleet_expired_sessions_total") }
	// used uses a session until so many others have expired. It reports false if the
	// machine stood still for so long that this one may have expired, too.
	used := func(id string, others float64) bool {
		t.Helper()
		write(id, "one")
		last := time.Now()
		for deadline := last.Add(time.Minute); expired() < others; time.Sleep(100 * time.Millisecond) {
			begun := time.Now()
			if begun.After(deadline) {
				t.Fatal("the idle session doesn't expire")
			}
			status, answer := f.get(t, url.Values{"id": {id}, "rel_path": {"f"}})
			switch {
			case time.Since(last) > ttl/2:
				return false
			case status != 200:
				t.Fatalf("the session in use: %d %v", status, answer)
			}
			last = begun
		}
		return true
	}
	idle := ""
	for i := 0; ; i++ {
		idle = fmt.Sprint("idle", i)
		write(idle, "one")
		if used(fmt.Sprint("used", i), float64(2*i+1)) {
			break
		}
		for expired() < float64(2*i+2) { // both
			time.Sleep(100 * time.Millisecond)
		}
	}
	if status, answer := f.get(t, url.Values{"id": {idle}, "rel_path": {"f"}}); status != 404 {
		t.Errorf("the idle session: %d %v, want 404", status, answer)
	}
	if status, answer, _ := post(f.client, f.urls[0]+"/run", map[string]string{"id": idle, "cmd": "ls"}); status != 400 {
		t.Errorf("a command in the idle session: %d %s, want 400", status, answer)
	}
	write(idle, "anew")
	if status, answer := f.get(t, url.Values{"id": {idle}, "rel_path": {"f"}}); status != 200 || answer["content"] != "anew" {
		t.Errorf("the new session of that id: %d %v", status, answer)
	}
}

// counter is a metric of all processes together.
func (f *fleet) counter(t *testing.T, name string) (sum float64) {
	t.Helper()
	for _, r := range f.registries {
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			if family.GetName() == name {
				for _, m := range family.GetMetric() {
					sum += m.GetCounter().GetValue()
				}
			}
		}
	}
	return sum
}

// Local sessions cost nothing and go with their worker, as they say.
func TestLocalDurability(t *testing.T) {
	f := newFleet(t, 1, 2, "--durability", "local")
	if status, answer, err := post(f.client, f.urls[0]+"/write_file", map[string]string{"id": "s", "rel_path": "f", "content": "x"}); status != 200 {
		t.Fatalf("write: %d %s %v", status, answer, err)
	}
	for _, w := range f.workers {
		w.stop()
	}
	if status, answer := f.get(t, url.Values{"id": {"s"}, "rel_path": {"f"}}); status != 503 || !strings.Contains(fmt.Sprint(answer), "may come back") {
		t.Errorf("read: %d %v, want 503", status, answer)
	}
}
