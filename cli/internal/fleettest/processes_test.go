package fleettest

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/freeport"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// processes is a fleet of separate processes: an external NATS server, two
// gateways, three workers. It needs `make build` and a nats-server in bin/.
type processes struct {
	t       *testing.T
	bin     string
	dir     string
	natsURL string
	client  *http.Client
	urls    []string
	workers []*process
	// gateways are in the order of urls.
	gateways []*process
}

// process is one of them, with its log.
type process struct {
	*exec.Cmd
	data string
	done chan struct{}
}

func newProcesses(t *testing.T, workers int) *processes {
	t.Helper()
	if os.Getenv("TEST_SEPARATE_PROCESSES") == "" {
		t.Skip("run by make test-processes")
	}
	bin, err := filepath.Abs("../../../bin")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "gradefleet-processes-")
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(dir, 0o711)
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &processes{t: t, bin: bin, dir: dir, client: &http.Client{Timeout: 90 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 256}}}
	port := freePort(t)
	p.natsURL = fmt.Sprintf("nats://127.0.0.1:%d", port)
	conf := filepath.Join(dir, "nats.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "listen: 127.0.0.1:%d\nmax_payload: 16MB\nmax_pending: 128MB\njetstream { store_dir: %q }\nauthorization { user: fleet, password: s3cret }\n", port, dir+"/nats"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.start("nats-server", nil, "-c", conf)
	for range 2 {
		addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
		p.gateways = append(p.gateways, p.start("gateway", []string{"LISTEN=" + addr, "MONITOR=127.0.0.1:0"}))
		p.urls = append(p.urls, "http://"+addr)
	}
	for i := range workers {
		p.startWorker(filepath.Join(dir, fmt.Sprint("worker", i)))
	}
	for _, u := range p.urls {
		waitForWorkers(t, p.client, u, workers)
	}
	return p
}

func freePort(t *testing.T) int {
	t.Helper()
	ports, err := freeport.Find(1)
	if err != nil {
		t.Fatal(err)
	}
	return ports[0]
}

// start runs a program of bin/ and ends it with the test.
func (p *processes) start(name string, env []string, args ...string) *process {
	p.t.Helper()
	cmd := exec.Command(filepath.Join(p.bin, name), args...)
	cmd.Env = append(append(os.Environ(), "NATS_URL="+p.natsURL, "NATS_USER=fleet", "NATS_PASSWORD=s3cret"), env...)
	log, err := os.CreateTemp(p.dir, name+"-*.log")
	if err != nil {
		p.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	pr := &process{Cmd: cmd, done: make(chan struct{})}
	go func() {
		cmd.Wait()
		close(pr.done)
	}()
	p.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-pr.done:
		case <-time.After(waitLimit):
			cmd.Process.Kill()
			<-pr.done
			p.t.Errorf("%s did not end within %v of SIGTERM", name, waitLimit)
		}
		if text, err := os.ReadFile(log.Name()); err == nil && p.t.Failed() {
			p.t.Logf("%s (pid %d):\n%s", name, cmd.Process.Pid, tail(string(text), 20))
		}
		log.Close()
	})
	return pr
}

// eventually waits for what a process brings about.
func (p *processes) eventually(what string, cond func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(waitLimit); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("never happened: %s", what)
		}
	}
}

// watchMachine measures for how long, from now on, the machine stands still. A limit
// of time is for one that doesn't.
func watchMachine(t *testing.T) (stood func() time.Duration) {
	const beat, late = 10 * time.Millisecond, 50 * time.Millisecond
	var sum atomic.Int64
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	go func() {
		for last := time.Now(); ; {
			select {
			case <-stop:
				return
			case <-time.After(beat):
			}
			now := time.Now()
			if gap := now.Sub(last); gap > late {
				sum.Add(int64(gap - beat))
			}
			last = now
		}
	}()
	return func() time.Duration { return time.Duration(sum.Load()) }
}

func tail(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func (p *processes) startWorker(data string) *process {
	w := p.start("worker", []string{"DATA=" + data, "MONITOR=127.0.0.1:0", "GRADEFLEET_SLOTS=1"})
	w.data = data
	p.workers = append(p.workers, w)
	return w
}

// kill ends a process as a power cut would.
func (pr *process) kill() {
	pr.Process.Kill()
	<-pr.done
}

func TestProcessesAnswerTheScenarios(t *testing.T) {
	p := newProcesses(t, 3)
	scenarios, err := loadScenarios()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range scenarios {
		if err := s.play(p.client, p.urls); err != nil {
			t.Errorf("%s: %v", s.Name, err)
		}
	}
}

// 200 queued evaluate requests, and one worker is killed in their midst.
func TestKilledWorkerLosesNothing(t *testing.T) {
	p := newProcesses(t, 3)
	const jobs = 200
	var wg sync.WaitGroup
	var mu sync.Mutex
	right := 0
	begun := time.Now()
	for i := range jobs {
		wg.Go(func() {
			status, answer, err := post(p.client, p.urls[i%2]+"/evaluate_code", map[string]any{
				"id": protocol.NewUUID(), "code": "import time\ndef f(x):\n    time.sleep(0.05)\n    return x * x", "entry_point": "f",
				"io_cases": []map[string]string{{"input": fmt.Sprint("x=", i), "output": fmt.Sprint(i * i)}, {"input": "x=2", "output": "5"}},
			})
			mu.Lock()
			defer mu.Unlock()
			if err == nil && status == 200 && verdicts.FindAllString(string(answer), -1) != nil && strings.Count(string(answer), `"status":"passed"`) == 1 && strings.Count(string(answer), `"status":"failed"`) == 1 {
				right++
			} else {
				t.Errorf("job %d: %d %.300s %v", i, status, answer, err)
			}
			if right == 40 {
				p.workers[0].Process.Kill()
			}
		})
	}
	wg.Wait()
	t.Logf("%d of %d answers right, %v after the first was sent; a worker was killed at the 40th", right, jobs, time.Since(begun).Round(time.Millisecond))
}

// Asynchronous jobs and a request with an idempotency key are taken by a gateway
// that is killed then, and so is a worker that had some of them.
func TestKilledGatewayLosesNoJob(t *testing.T) {
	p := newProcesses(t, 2)
	f := &fleet{urls: p.urls, client: p.client}
	const jobs = 60
	var at []string
	for i := range jobs {
		at = append(at, f.async(t, submission(fmt.Sprint("s", i), "import time\ndef f(x):\n    time.sleep(0.05)\n    return x", "1")))
	}
	keyed := func(url string) (*http.Response, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/evaluate_code",
			strings.NewReader(submission("k", "import os, time\ndef f(x):\n    time.sleep(1)\n    print(os.urandom(8))\n    return x", "1")))
		if err != nil {
			return nil, err
		}
		r.Header.Set("Idempotency-Key", "k")
		return p.client.Do(r)
	}
	cut := make(chan struct{})
	go func() {
		defer close(cut)
		if resp, err := keyed(p.urls[0]); err == nil {
			resp.Body.Close()
		}
	}()
	time.Sleep(300 * time.Millisecond)
	p.gateways[0].kill()
	p.workers[0].Process.Kill()
	<-cut
	var first string
	for range 2 {
		resp, err := keyed(p.urls[1])
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || first != "" && first != string(answer) {
			t.Errorf("under the key: %d %s %v, before %s", resp.StatusCode, answer, err, first)
		}
		first = string(answer)
	}
	for _, path := range at {
		resp, err := p.client.Get(p.urls[1] + path + "?wait=60")
		if err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if !strings.Contains(string(answer), `"state":"done"`) || !strings.Contains(string(answer), `"status":200,"result":{"passed":true`) {
			t.Errorf("%s: %d %s", path, resp.StatusCode, answer)
		}
	}
}

// A gateway that is told to stop ends a batch in order, and with success.
func TestProcessesStopABatch(t *testing.T) {
	p := newProcesses(t, 1)
	f := &fleet{urls: p.urls, client: p.client}
	stop := make(chan struct{})
	go func() {
		<-stop
		p.gateways[0].Process.Signal(syscall.SIGTERM)
	}()
	right, sent := 0, 0
	last := f.batch(t, p.urls[0], func(w io.Writer) {
		for ; sent < 5000; sent++ {
			if _, err := io.WriteString(w, submission("s", "def f(x): return x", "1")); err != nil {
				return
			}
		}
	}, func(l line) {
		if right++; right == 50 {
			close(stop)
		}
		if l.Status != 200 || !l.Result.Passed {
			t.Errorf("line %+v", l)
		}
	})
	if last.Done == nil || *last.Done || last.Count != right || right < 50 {
		t.Errorf("last line %+v after %d answers", last, right)
	}
	<-p.gateways[0].done
	if code := p.gateways[0].ProcessState.ExitCode(); code != 0 {
		t.Errorf("the gateway ended with %d", code)
	}
}

var verdicts = regexp.MustCompile(`"passed":(true|false)`)

// A worker that was killed finds its sessions again when it is started anew on
// the same directory.
func TestRestartedWorkerHasItsSessions(t *testing.T) {
	p := newProcesses(t, 3)
	ids := map[string]string{}
	for i := range 12 {
		id := protocol.NewUUID()
		ids[id] = fmt.Sprint("content ", i)
		if status, answer, err := post(p.client, p.urls[i%2]+"/write_file", map[string]string{"id": id, "rel_path": "d/a.txt", "content": ids[id]}); status != 200 {
			t.Fatalf("write: %d %s %v", status, answer, err)
		}
	}
	for _, w := range p.workers {
		w.kill()
	}
	for _, w := range p.workers[:3] {
		p.startWorker(w.data)
	}
	for _, u := range p.urls {
		waitForWorkers(t, p.client, u, 3)
	}
	i := 0
	for id, content := range ids {
		status, answer, err := post(p.client, p.urls[i%2]+"/run", map[string]string{"id": id, "cmd": "cat d/a.txt"})
		if status != 200 || !strings.Contains(string(answer), `"stdout":"`+content+`"`) {
			t.Errorf("session %s: %d %s %v", id, status, answer, err)
		}
		i++
	}
}

// Nothing that a submission can reach listens for NATS in the all-in-one fleet.
func TestEmbeddedNATSHasNoPort(t *testing.T) {
	if os.Getenv("TEST_SEPARATE_PROCESSES") == "" {
		t.Skip("run by make test-processes")
	}
	p := &processes{t: t, dir: t.TempDir()}
	p.bin, _ = filepath.Abs("../../../bin")
	data, err := os.MkdirTemp("", "gradefleet-up-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(data) })
	up := p.start("gradefleet", []string{"NATS_URL=", "NATS_USER=", "NATS_PASSWORD=", "LISTEN=127.0.0.1:0", "MONITOR=127.0.0.1:0", "DATA=" + data}, "up")
	want := 2 // the API and the monitor
	got := -1
	for deadline := time.Now().Add(waitLimit); time.Now().Before(deadline) && got != want; time.Sleep(50 * time.Millisecond) {
		got = listening(t, up.Process.Pid)
	}
	time.Sleep(500 * time.Millisecond) // a port opened late would show now
	if got = listening(t, up.Process.Pid); got != want {
		t.Errorf("the process listens on %d TCP ports, want %d", got, want)
	}
}

// listening counts the TCP ports that a process listens on.
func listening(t *testing.T, pid int) int {
	inodes := map[string]bool{}
	for _, name := range []string{"tcp", "tcp6"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", pid, name))
		if err != nil {
			continue
		}
		for sc := bufio.NewScanner(f); sc.Scan(); {
			if fields := strings.Fields(sc.Text()); len(fields) > 9 && fields[3] == "0A" {
				inodes["socket:["+fields[9]+"]"] = true
			}
		}
		f.Close()
	}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && inodes[target] {
			n++
		}
	}
	return n
}
