package redteam

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/freeport"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Slots is how many slots an attacked fleet has: two, so that an attack has a
// neighbour.
const Slots = 2

// Settings of a fleet under attack: quotas small enough for a flood to reach
// them in little time.
const (
	sessionBytes = 32 << 20
	sessionFiles = 2000
	fileBytes    = 16 << 20
	outputStop   = 4 << 20
	openFiles    = 128
	processes    = 32
)

// uidsPerFleet is the size of the pool of users that a fleet gives its
// sessions; each fleet of a campaign has a pool of its own, so that a process
// tells by its user whose attack it came from.
const (
	firstUID     = 300_000
	uidsPerFleet = 5000
)

// Fleet is a `gradefleet up` of ours in a process of its own, with what lies
// around it to be attacked.
type Fleet struct {
	URL, Monitor string
	Pid          int
	Data         string
	UIDBase      int // 0: sessions have no users of their own
	Started      protocol.Heartbeat

	cmd      *exec.Cmd
	dir      string // ours: the data directory, log, canaries
	exited   chan struct{}
	client   *http.Client
	nats     string // where its NATS listens
	host     *Host
	secrets  map[string]string // by what it is that must not come out
	victim   string            // a session of somebody else
	baseline baseline
	usual    time.Duration // what correct submissions took when they were last sent
}

// Config of a fleet under attack.
type Config struct {
	// Binary is gradefleet's.
	Binary string
	// Number tells the fleets of a campaign apart.
	Number int
	// Env are further settings, NAME=value.
	Env []string
	// Ordinary leaves quotas and limits at their defaults.
	Ordinary bool
}

// Start starts a fleet and waits until it works.
func Start(ctx context.Context, cfg Config) (*Fleet, error) {
	dir, err := os.MkdirTemp("", "gradefleet-redteam-")
	if err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	f := &Fleet{
		dir: dir, Data: filepath.Join(dir, "state"), exited: make(chan struct{}),
		client: &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 16}},
	}
	if err := f.start(ctx, cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("start fleet %d: %w\n%s", cfg.Number, err, f.Log()), f.Stop())
	}
	return f, nil
}

func (f *Fleet) start(ctx context.Context, cfg Config) error {
	// Others may pass through, not look: as the data directory's parent should be.
	if err := os.Chmod(f.dir, 0o711); err != nil {
		return err
	}
	ports, err := freeport.Find(1)
	if err != nil {
		return err
	}
	f.nats = freeport.Address(ports[0])
	password := random(16)
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "DATA=" + f.Data,
		"LISTEN=127.0.0.1:0", "MONITOR=127.0.0.1:0",
		"NATS_LISTEN=" + f.nats, "NATS_USER=fleet", "NATS_PASSWORD=" + password,
		fmt.Sprint("GRADEFLEET_SLOTS=", Slots),
	}
	if !cfg.Ordinary {
		env = append(env,
			fmt.Sprint("GRADEFLEET_SESSION_BYTES=", sessionBytes), fmt.Sprint("GRADEFLEET_SESSION_FILES=", sessionFiles),
			fmt.Sprint("GRADEFLEET_FILE_BYTES=", fileBytes), fmt.Sprint("GRADEFLEET_OUTPUT_STOP=", outputStop),
			fmt.Sprint("GRADEFLEET_OPEN_FILES=", openFiles), fmt.Sprint("GRADEFLEET_PROCESSES=", processes))
	}
	if os.Getuid() == 0 {
		f.UIDBase = firstUID + cfg.Number*uidsPerFleet
		env = append(env, fmt.Sprint("GRADEFLEET_UID_BASE=", f.UIDBase), fmt.Sprint("GRADEFLEET_UID_COUNT=", uidsPerFleet))
	} else {
		env = append(env, "GRADEFLEET_ISOLATION=basic") // what a worker without root is told to accept
	}
	log, err := os.OpenFile(f.logPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	f.cmd = exec.Command(cfg.Binary, "up")
	f.cmd.Env = append(env, cfg.Env...)
	f.cmd.Stderr = log
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := f.cmd.Start(); err != nil {
		close(f.exited)
		f.cmd = nil
		return err
	}
	f.Pid = f.cmd.Process.Pid
	if err := f.readAddresses(out); err != nil {
		return err
	}
	go func() {
		f.cmd.Wait()
		close(f.exited)
	}()
	if f.Started, err = f.awaitWorker(ctx); err != nil {
		return err
	}
	if f.host, err = newHost(f.dir); err != nil {
		return err
	}
	f.secrets = map[string]string{"the password of NATS": password, "a secret of another session": "victims-" + random(16)}
	for what, s := range f.host.secrets {
		f.secrets[what] = s
	}
	if err := f.makeVictim(ctx); err != nil {
		return err
	}
	return f.learn(ctx)
}

// makeVictim makes the session of somebody else, anew if an attack spoilt it.
func (f *Fleet) makeVictim(ctx context.Context) error {
	f.victim = "victim-" + random(4)
	status, body, err := f.do(ctx, "POST", "/write_file", map[string]string{"id": f.victim, "rel_path": "notes/secret.txt", "content": f.secrets["a secret of another session"]})
	if err != nil || status != 200 {
		return fmt.Errorf("write the victim's file: %d %s: %w", status, body, err)
	}
	return nil
}

// readAddresses reads what the fleet prints at its start, up to its end.
func (f *Fleet) readAddresses(out io.Reader) error {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		name, value, _ := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		value = strings.TrimSpace(value)
		switch name {
		case "API":
			f.URL = value
		case "metrics":
			f.Monitor = strings.TrimSuffix(value, "/metrics")
		case "curl":
			go io.Copy(io.Discard, out)
			return nil
		}
	}
	f.cmd.Wait()
	close(f.exited)
	return fmt.Errorf("it ended before it listened: %v", f.cmd.ProcessState)
}

// How long a fleet may take to have its worker, and to end.
const startTimeout, stopTimeout = 2 * time.Minute, time.Minute

func (f *Fleet) awaitWorker(ctx context.Context) (protocol.Heartbeat, error) {
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(20 * time.Millisecond) {
		workers, err := f.workers(ctx)
		if err == nil && len(workers) == 1 {
			return workers[0], nil
		}
		if time.Now().After(deadline) {
			return protocol.Heartbeat{}, fmt.Errorf("no worker after %v: %v, %w", startTimeout, workers, err)
		}
	}
}

// Stop ends the fleet and removes what it and we made.
func (f *Fleet) Stop() error {
	var errs []error
	if f.cmd != nil {
		f.cmd.Process.Signal(syscall.SIGCONT)
		f.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-f.exited:
		case <-time.After(stopTimeout):
			errs = append(errs, fmt.Errorf("the fleet did not end within %v of SIGTERM", stopTimeout))
			f.cmd.Process.Kill()
			<-f.exited
		}
	}
	f.client.CloseIdleConnections()
	if f.host != nil {
		f.host.close()
	}
	for _, p := range f.strays() {
		syscall.Kill(p.pid, syscall.SIGKILL)
	}
	if err := removeAll(f.dir); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// removeAll removes a tree in which directories may forbid it.
func removeAll(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}

func (f *Fleet) logPath() string { return filepath.Join(f.dir, "log") }

// Log is the end of what the fleet logged.
func (f *Fleet) Log() string {
	text, _ := os.ReadFile(f.logPath())
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

// Ended says whether its process is gone.
func (f *Fleet) Ended() bool {
	select {
	case <-f.exited:
		return true
	default:
		return false
	}
}

func (f *Fleet) do(ctx context.Context, method, path string, body any) (int, []byte, error) {
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return 0, nil, fmt.Errorf("encode request: %w", err)
		}
		reader = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, f.URL+path, reader)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := f.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

func (f *Fleet) readFile(ctx context.Context, session, path string) (int, []byte, error) {
	return f.do(ctx, "GET", "/read_file?"+url.Values{"id": {session}, "rel_path": {path}}.Encode(), nil)
}

func (f *Fleet) workers(ctx context.Context) ([]protocol.Heartbeat, error) {
	status, body, err := f.do(ctx, "GET", "/workers", nil)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Workers []protocol.Heartbeat `json:"workers"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("status %d: %w", status, err)
	}
	return answer.Workers, nil
}

// sessionDir is where a session lies on the host.
func (f *Fleet) sessionDir(id string) string {
	return filepath.Join(f.Data, "sessions", "sessions", id)
}

// sessionDirs are the paths under which a submission may find a session: the
// host's, and that of a slot with mounts of its own.
func (f *Fleet) sessionDirs(id string) []string {
	return []string{f.sessionDir(id), "/run/gradefleet/sessions/" + id}
}

// facts is what attackers are told: all there is to know from outside, but for
// the secrets themselves.
func (f *Fleet) facts(token string) map[string]any {
	port := func(address string) int {
		n := 0
		_, p, _ := net.SplitHostPort(strings.TrimPrefix(address, "http://"))
		fmt.Sscan(p, &n)
		return n
	}
	return map[string]any{
		"token": token, "pid": f.Pid, "data": f.Data, "uid_base": f.UIDBase, "victims": f.sessionDirs(f.victim),
		"api": port(f.URL), "monitor": port(f.Monitor), "nats": port(f.nats),
		"shared": f.host.shared, "private": f.host.private, "home": f.host.home,
		"tcp4": f.host.port("tcp4"), "tcp6": f.host.port("tcp6"), "udp4": f.host.port("udp4"),
		"unix": f.host.unixPath, "abstract": f.host.abstract, "dgram": f.host.dgramPath,
		"test_pid": os.Getpid(),
	}
}

func random(bytes int) string {
	b := make([]byte, bytes)
	rand.Read(b)
	return hex.EncodeToString(b)
}
