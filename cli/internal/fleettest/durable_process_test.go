package fleettest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// ask posts to the n-th gateway and returns the answer, which must be a 200.
func (p *processes) ask(n int, path string, body map[string]any) map[string]any {
	p.t.Helper()
	status, answer, err := post(p.client, p.urls[n%len(p.urls)]+path, body)
	var m map[string]any
	if err != nil || status != 200 || json.Unmarshal(answer, &m) != nil {
		p.t.Fatalf("%s %v: %d %s %v", path, body, status, answer, err)
	}
	return m
}

// read reads a file through the n-th gateway.
func (p *processes) read(n int, id, path string) (int, string) {
	p.t.Helper()
	resp, err := p.client.Get(p.urls[n%len(p.urls)] + "/read_file?" + url.Values{"id": {id}, "rel_path": {path}, "encoding": {"base64"}}.Encode())
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	var m struct{ Content, Detail string }
	if err := json.Unmarshal(data, &m); err != nil {
		p.t.Fatalf("%s: %v", data, err)
	}
	content, _ := base64.StdEncoding.DecodeString(m.Content)
	if resp.StatusCode != 200 {
		return resp.StatusCode, m.Detail
	}
	return 200, string(content)
}

// owner is the process that owns a session: the one whose directory has it.
func (p *processes) owner(id string) *process {
	p.t.Helper()
	for _, w := range p.workers {
		select {
		case <-w.done:
			continue
		default:
		}
		if _, err := os.Stat(w.data + "/sessions/sessions/" + id); err == nil {
			return w
		}
	}
	p.t.Fatalf("no worker has session %s", id)
	return nil
}

// loseDisk ends a worker as a fire would.
func (pr *process) loseDisk(t *testing.T) {
	pr.kill()
	if err := os.RemoveAll(pr.data); err != nil {
		t.Fatal(err)
	}
}

// What was acknowledged is there after the owner and its disk are gone.
func TestProcessesKeepSessionsOfALostWorker(t *testing.T) {
	p := newProcesses(t, 3)
	id := protocol.NewUUID()
	write := func(path, content string) {
		p.ask(0, "/write_file", map[string]any{"id": id, "rel_path": path, "content": content})
	}
	big := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB: three pieces
	write("a.txt", "first")
	write("a.txt", "second")
	write("dir/deep/big.bin", big)
	write("gone.txt", "x")
	write("old.txt", "moved")
	p.ask(0, "/rename_file", map[string]any{"id": id, "old_path": "old.txt", "new_path": "sub/new.txt"})
	p.ask(0, "/delete_file", map[string]any{"id": id, "rel_path": "gone.txt"})
	p.ask(0, "/run", map[string]any{"id": id, "cmd": "mkdir empty; echo made > made.txt; chmod 750 made.txt; ln -s a.txt link; rm -r dir/deep; mkdir -p dir/other; head -c 1000000 /dev/zero > dir/other/zeros"})
	p.ask(0, "/evaluate_code", map[string]any{"id": id, "code": "def f(x):\n    open('evaluated.txt', 'w').write('yes')\n    return x", "entry_point": "f", "io_cases": []map[string]string{{"input": "x=1", "output": "1"}}})
	fork := p.ask(0, "/fork_session", map[string]any{"id": id})["new_id"].(string)
	write("after_fork.txt", "only here")

	owner := p.owner(id)
	owner.loseDisk(t)
	still := watchMachine(t)
	lost := time.Now()
	status, got := p.read(1, id, "a.txt")
	took := time.Since(lost)
	t.Logf("first answer %v after the loss", took.Round(time.Millisecond))
	if status != 200 || got != "second" {
		t.Fatalf("a.txt: %d %q", status, got)
	}
	if stood := still(); took-stood > 5*time.Second {
		t.Errorf("the session was back after %v, in which the machine stood still for %v; want 5 s at most", took, stood)
	}
	for _, s := range []string{id, fork} {
		for path, want := range map[string]string{"a.txt": "second", "sub/new.txt": "moved", "made.txt": "made\n", "link": "second", "evaluated.txt": "yes", "dir/other/zeros": strings.Repeat("\x00", 1000000)} {
			if status, got := p.read(0, s, path); status != 200 || got != want {
				t.Errorf("%s: %d %.40q, want %.40q", path, status, got, want)
			}
		}
		for _, path := range []string{"gone.txt", "old.txt", "dir/deep/big.bin"} {
			if status, got := p.read(0, s, path); status != 404 {
				t.Errorf("%s: %d %.40q, want 404", path, status, got)
			}
		}
		out := p.ask(1, "/run", map[string]any{"id": s, "cmd": "stat -c '%a %F' made.txt empty link"})["stdout"]
		if out != "750 regular file\n755 directory\n777 symbolic link\n" {
			t.Errorf("modes and types: %q", out)
		}
	}
	if status, _ := p.read(0, fork, "after_fork.txt"); status != 404 {
		t.Errorf("the fork has what was written after it: %d", status)
	}
	write("again.txt", "goes on")
	if status, got := p.read(1, id, "again.txt"); status != 200 || got != "goes on" {
		t.Errorf("again.txt: %d %q", status, got)
	}
}

// A worker that was stopped, and continues after another has taken over, can
// neither write nor serve what it has, and removes it.
func TestProcessesFenceAWorkerThatComesBack(t *testing.T) {
	p := newProcesses(t, 2)
	id := protocol.NewUUID()
	write := func(gateway int, content string) {
		p.ask(gateway, "/write_file", map[string]any{"id": id, "rel_path": "f", "content": content})
	}
	write(0, "one")
	p.read(1, id, "f") // both gateways remember the owner
	old := p.owner(id)
	if err := old.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	// In the stopped worker's socket when it continues.
	done := make(chan string, 1)
	go func() {
		status, answer, err := post(p.client, p.urls[1]+"/write_file", map[string]any{"id": id, "rel_path": "g", "content": "asked while it was stopped"})
		done <- fmt.Sprintf("%d %s %v", status, answer, err)
	}()
	begun := time.Now()
	write(0, "two")
	t.Logf("written elsewhere after %v", time.Since(begun).Round(time.Millisecond))
	if got := <-done; !strings.HasPrefix(got, "200 ") {
		t.Errorf("a write that had been sent to the stopped worker: %s", got)
	}
	if err := old.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for _, u := range p.urls {
		waitForWorkers(t, p.client, u, 2)
	}
	for i := range 20 {
		want := fmt.Sprint("content ", i)
		write(i, want)
		if status, got := p.read(i+1, id, "f"); status != 200 || got != want {
			t.Fatalf("read %d: %d %q, want %q", i, status, got, want)
		}
	}
	if status, got := p.read(0, id, "g"); status != 200 || got != "asked while it was stopped" {
		t.Errorf("g: %d %q", status, got)
	}
}

// A job that waits in the queue of a worker that dies is done by the next owner.
func TestProcessesMoveQueuedJobs(t *testing.T) {
	p := newProcesses(t, 2)
	id := protocol.NewUUID()
	p.ask(0, "/write_file", map[string]any{"id": id, "rel_path": "n", "content": "1"})
	owner := p.owner(id)
	type answer struct {
		status int
		body   string
		took   time.Duration
	}
	var lost time.Time
	send := func(path string, body map[string]any) chan answer {
		c := make(chan answer, 1)
		go func() {
			status, data, err := post(p.client, p.urls[0]+path, body)
			c <- answer{status, fmt.Sprint(string(data), err), time.Since(lost)}
		}()
		return c
	}
	waiting := func(n int) {
		t.Helper()
		p.eventually(fmt.Sprint(n, " jobs wait in its queue"), func() bool {
			resp, err := p.client.Get(p.urls[0] + "/workers")
			if err != nil {
				return false
			}
			defer resp.Body.Close()
			var seen struct {
				Queues []struct {
					Queue   string `json:"queue"`
					Waiting int    `json:"waiting"`
				} `json:"queues"`
			}
			return json.NewDecoder(resp.Body).Decode(&seen) == nil && slices.ContainsFunc(seen.Queues, func(q struct {
				Queue   string `json:"queue"`
				Waiting int    `json:"waiting"`
			}) bool {
				return strings.HasPrefix(q.Queue, "worker") && q.Waiting == n
			})
		})
	}
	begun := send("/run", map[string]any{"id": id, "cmd": "touch begun; sleep 20"}) // holds the worker's only slot
	p.eventually("the first has begun", func() bool {
		_, err := os.Stat(filepath.Join(owner.data, "sessions", "sessions", id, "work", "begun"))
		return err == nil
	})
	queued := send("/run", map[string]any{"id": id, "cmd": "echo $(($(cat n) + 1)) > n; cat n"})
	waiting(1)
	evaluate := send("/evaluate_code", map[string]any{"id": id, "code": "def f(x): return int(open('n').read()) > 0", "entry_point": "f", "io_cases": []map[string]string{{"input": "x=1", "output": "True"}}})
	waiting(2)
	still := watchMachine(t)
	lost = time.Now()
	owner.loseDisk(t)
	if a := <-begun; a.status != 502 || !strings.Contains(a.body, "may have run") {
		t.Errorf("the command that had begun: %d %s", a.status, a.body)
	}
	if a := <-queued; a.status != 200 || !strings.Contains(a.body, `"stdout":"2\n"`) {
		t.Errorf("the command in the queue: %d %s", a.status, a.body)
	} else {
		t.Logf("run answered %v after the loss", a.took.Round(time.Millisecond))
		if stood := still(); a.took-stood > 5*time.Second {
			t.Errorf("run answered %v after the loss, in which the machine stood still for %v; want 5 s at most", a.took, stood)
		}
	}
	if a := <-evaluate; a.status != 200 || !strings.HasPrefix(a.body, `{"passed":true`) {
		t.Errorf("the evaluate in the queue: %d %s", a.status, a.body)
	} else {
		t.Logf("evaluate answered %v after the loss", a.took.Round(time.Millisecond))
	}
}
