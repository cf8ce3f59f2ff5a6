package fleettest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// cluster is docker-compose.yml, brought up with the offline images under a
// project name of its own, with secrets and free ports of its own, and taken
// down with all it made.
type cluster struct {
	t       *testing.T
	root    string // of the repository
	project string
	files   []string // --env-file
	client  *http.Client
}

// composeTimeout bounds one docker command; bringing everything up takes a few
// seconds where the machine is not busy.
const composeTimeout = 3 * time.Minute

// newCluster skips unless COMPOSE_TEST has a prefix for the project's name: it
// needs a Docker engine and images (make compose-test sees to all of that).
func newCluster(t *testing.T, files ...string) *cluster {
	t.Helper()
	if os.Getenv("COMPOSE_TEST") == "" {
		t.Skip("make compose-test runs this")
	}
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, root: root, project: os.Getenv("COMPOSE_TEST") + "-" + protocol.NewID()[:8], client: &http.Client{Timeout: time.Minute}}
	t.Cleanup(c.client.CloseIdleConnections)
	var env strings.Builder
	for _, name := range []string{"NATS_GATEWAY_PASSWORD", "NATS_WORKER_PASSWORD", "NATS_ROUTE_PASSWORD", "GRAFANA_PASSWORD"} {
		fmt.Fprintf(&env, "%s=s%s\n", name, protocol.NewID())
	}
	// Fixed, and not 0 for any: a container that is started again keeps them.
	for _, name := range []string{"GATEWAY_PORT", "GATEWAY_WEB_PORT", "PROXY_PORT", "PROXY_WEB_PORT", "PROMETHEUS_PORT"} {
		if len(files) == 0 || !strings.HasPrefix(name, "GATEWAY") { // ha.env has those
			fmt.Fprintf(&env, "%s=%d\n", name, freePort(t))
		}
	}
	secrets := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(secrets, []byte(env.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		c.files = append(c.files, filepath.Join(root, f))
	}
	c.files = append(c.files, secrets)
	t.Cleanup(c.down)
	return c
}

// down takes everything away and makes sure that it is.
func (c *cluster) down() {
	if c.t.Failed() {
		out, _ := c.try("logs", "--no-color", "--tail", "25")
		c.t.Logf("the cluster's logs end with\n%s", out)
	}
	volumes := c.volumes()
	if out, err := c.try("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "10"); err != nil {
		c.t.Errorf("take the cluster down: %v\n%s", err, out)
	}
	// Compose leaves those of workers that it has made anew: it gave the old
	// anonymous volume to the new container by name, and then it has one.
	for _, v := range volumes {
		if exec.Command("docker", "volume", "inspect", v).Run() == nil {
			if out, err := exec.Command("docker", "volume", "rm", v).CombinedOutput(); err != nil {
				c.t.Errorf("remove volume %s: %v %s", v, err, out)
			}
		}
	}
	for _, kind := range [][]string{{"ps", "--all"}, {"volume", "ls"}, {"network", "ls"}} {
		out, err := exec.Command("docker", append(kind, "--quiet", "--filter", "label=com.docker.compose.project="+c.project)...).CombinedOutput()
		if err != nil || len(bytes.TrimSpace(out)) > 0 {
			c.t.Errorf("docker %s after the cluster is down: %v %s, want none", strings.Join(kind, " "), err, out)
		}
	}
}

// volumes lists those that the project's containers use.
func (c *cluster) volumes() []string {
	ids, err := exec.Command("docker", "ps", "--all", "--quiet", "--filter", "label=com.docker.compose.project="+c.project).Output()
	if err != nil || len(bytes.TrimSpace(ids)) == 0 {
		return nil
	}
	out, err := exec.Command("docker", append([]string{"inspect", "--format", `{{range .Mounts}}{{if eq .Type "volume"}}{{.Name}} {{end}}{{end}}`},
		strings.Fields(string(ids))...)...).Output()
	if err != nil {
		c.t.Errorf("list volumes: %v", err)
	}
	return strings.Fields(string(out))
}

// try runs a docker compose command.
func (c *cluster) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), composeTimeout)
	defer cancel()
	all := []string{"compose", "--project-directory", c.root, "--project-name", c.project, "--progress", "quiet",
		"--file", filepath.Join(c.root, "docker-compose.yml"), "--file", filepath.Join(c.root, "deploy/offline/compose.yml")}
	for _, f := range c.files {
		all = append(all, "--env-file", f)
	}
	cmd := exec.CommandContext(ctx, "docker", append(all, args...)...)
	cmd.Dir = c.root
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// compose runs a docker compose command that must succeed.
func (c *cluster) compose(args ...string) string {
	c.t.Helper()
	begun := time.Now()
	out, err := c.try(args...)
	if err != nil {
		c.t.Fatalf("docker compose %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	if took := time.Since(begun); took > time.Second {
		c.t.Logf("docker compose %s: %.1f s", args[0], took.Seconds())
	}
	return out
}

// up brings the cluster to so many workers and waits until all is healthy.
func (c *cluster) up(workers int) {
	c.t.Helper()
	c.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "120", "--scale", fmt.Sprint("worker=", workers))
}

// url is where a service's port is published.
func (c *cluster) url(service string, port int) string {
	c.t.Helper()
	return "http://" + c.compose("port", service, fmt.Sprint(port))
}

// containers lists those of a service that run.
func (c *cluster) containers(service string) []string {
	c.t.Helper()
	return strings.Fields(c.compose("ps", "--quiet", service))
}

// docker runs a docker command that must succeed.
func (c *cluster) docker(args ...string) {
	c.t.Helper()
	if out, err := exec.Command("docker", args...).CombinedOutput(); err != nil {
		c.t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// eventually waits until check returns "", or fails with what it returned last.
func (c *cluster) eventually(what string, within time.Duration, check func() string) {
	c.t.Helper()
	begun := time.Now()
	for {
		missing := check()
		if missing == "" {
			if took := time.Since(begun); took > time.Second {
				c.t.Logf("%s after %.1f s", what, took.Seconds())
			}
			return
		}
		if time.Since(begun) > within {
			c.t.Fatalf("%s: not within %v: %s", what, within, missing)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// sample is one result of a Prometheus query.
type sample struct {
	Metric map[string]string `json:"metric"`
	Value  [2]any            `json:"value"`
}

// query asks Prometheus.
func (c *cluster) query(base, expr string) ([]sample, error) {
	resp, err := c.client.Get(base + "/api/v1/query?query=" + url.QueryEscape(expr))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct {
		Status string
		Error  string
		Data   struct {
			ResultType string
			Result     json.RawMessage
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if answer.Status != "success" {
		return nil, fmt.Errorf("query %s: %s", expr, answer.Error)
	}
	if answer.Data.ResultType == "scalar" {
		return []sample{{}}, nil
	}
	var samples []sample
	return samples, json.Unmarshal(answer.Data.Result, &samples)
}

// counts waits until a query has a single result of that value.
func (c *cluster) counts(base, expr, want string, within time.Duration) {
	c.t.Helper()
	c.eventually(expr+" is "+want, within, func() string {
		got, err := c.query(base, expr)
		if err != nil {
			return err.Error()
		}
		if len(got) == 1 && got[0].Value[1] == want {
			return ""
		}
		return fmt.Sprintf("it is %v", got)
	})
}

// firing waits until an alert fires, or doesn't any more.
func (c *cluster) firing(base, alert string, want bool, within time.Duration) {
	c.t.Helper()
	state := map[bool]string{true: "fires", false: "is resolved"}[want]
	c.eventually(alert+" "+state, within, func() string {
		got, err := c.query(base, fmt.Sprintf(`ALERTS{alertname=%q,alertstate="firing"}`, alert))
		if err != nil {
			return err.Error()
		}
		if (len(got) > 0) != want {
			return fmt.Sprint("it is ", got)
		}
		return ""
	})
}

// evaluates waits for the first submission that is graded.
func (c *cluster) evaluates(base string, within time.Duration) {
	c.t.Helper()
	c.eventually("a submission is graded", within, func() string {
		status, answer, err := post(c.client, base+"/evaluate_code", map[string]any{
			"id": protocol.NewUUID(), "code": "def f(x):\n    return x + 1", "entry_point": "f",
			"io_cases": []map[string]string{{"input": "x=1", "output": "2"}},
		})
		if err != nil {
			return err.Error()
		}
		if status != 200 || !strings.HasPrefix(string(answer), `{"passed":true`) {
			return fmt.Sprintf("%d %s", status, answer)
		}
		return ""
	})
}

// gradefleet starts the command line against the cluster; finish waits for it, and
// over reports whether it has ended.
func (c *cluster) gradefleet(args ...string) (finish func(), over func() bool) {
	c.t.Helper()
	cmd := exec.Command(filepath.Join(c.root, "bin/gradefleet"), args...)
	cmd.Dir = c.root
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		c.t.Fatalf("run gradefleet (make build makes it): %v", err)
	}
	var err error
	done := make(chan struct{})
	go func() {
		err = cmd.Wait()
		close(done)
	}()
	c.t.Cleanup(func() { cmd.Process.Kill() })
	finish = func() {
		c.t.Helper()
		<-done
		if c.t.Logf("gradefleet %s\n%s", strings.Join(args, " "), out.String()); err != nil {
			c.t.Errorf("gradefleet %s: %v", args[0], err)
		}
	}
	return finish, func() bool {
		select {
		case <-done:
			return true
		default:
			return false
		}
	}
}

// grade starts the grading of so many submissions and waits until the workers are at
// it. On a busy machine nobody may be seen to be before all is done: then again.
func (c *cluster) grade(api string, rows int, more ...string) (finish func()) {
	c.t.Helper()
	c.eventually("the queue is at work", 3*time.Minute, func() string {
		var over func() bool
		finish, over = c.gradefleet(append([]string{"grade", "--url", api, "--progress", "0", c.workload(rows)}, more...)...)
		for !over() {
			if c.busy(api)() == "" {
				return ""
			}
			time.Sleep(100 * time.Millisecond)
		}
		finish()
		return "no slot was seen to be busy"
	})
	return finish
}
