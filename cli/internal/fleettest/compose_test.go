package fleettest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// The compose file as the README has it: up, scaled, right, under load, with a
// worker killed, a gateway killed, watched, down.
func TestCompose(t *testing.T) {
	c := newCluster(t)
	begun := time.Now()
	c.up(1)
	api := c.url("gateway", 8080)
	c.evaluates(api, time.Minute)
	t.Logf("from nothing to the first graded submission: %.1f s", time.Since(begun).Seconds())
	c.stats()

	c.up(3)
	watch := c.url("prometheus", 9090)
	waitForWorkers(t, c.client, api, 3)
	c.isolation(api, "container")
	c.reach()

	both := []string{api, c.url("gateway", 6000)}
	t.Run("scenarios", func(t *testing.T) {
		scenarios, err := loadScenarios()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range scenarios {
			if err := s.play(c.client, both); err != nil {
				t.Errorf("%s: %v", s.Name, err)
			}
		}
	})
	measured, _ := c.gradefleet("bench", "--url", api, "--clients", "4", "--seconds", "2", "--cases", "1,10,100", "--run", "--files")
	measured()

	// Every target is there, and every query of the dashboard means something.
	c.counts(watch, `sum(up{job="worker"})`, "3", time.Minute)
	c.counts(watch, `sum(up{job="gateway"})`, "1", time.Minute)
	c.counts(watch, `count(up == 0) or vector(0)`, "0", time.Minute)
	c.counts(watch, `gradefleet:workers_live:max`, "3", time.Minute)
	c.dashboard(watch)

	// A worker dies under load: no verdict is lost or wrong.
	finish := c.grade(api, 250)
	c.docker("kill", c.containers("worker")[0])
	finish()

	// A gateway dies: its callers try again, and are served when it is back.
	finish = c.grade(api, 250, "--retries", "60")
	gateway := c.containers("gateway")[0]
	c.docker("kill", gateway)
	c.docker("start", gateway) // at its old port: grade has no other address
	finish()

	// An upgrade makes every container anew: sessions survive it.
	session := map[string]any{"id": protocol.NewUUID(), "rel_path": "notes/a.txt", "content": "kept"}
	if status, answer, err := post(c.client, api+"/write_file", session); err != nil || status != 200 {
		t.Fatalf("write_file: %d %s %v", status, answer, err)
	}
	c.compose("up", "--detach", "--no-build", "--wait", "--force-recreate", "--no-deps", "--scale", "worker=3", "worker", "gateway")
	c.eventually("the session's file is there", time.Minute, func() string {
		resp, err := c.client.Get(api + "/read_file?rel_path=notes/a.txt&id=" + session["id"].(string))
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		var file struct{ Content string }
		if err := json.NewDecoder(resp.Body).Decode(&file); err != nil || file.Content != "kept" {
			return fmt.Sprint(resp.Status, file, err)
		}
		return ""
	})

	// All workers go: somebody is told, and told when they are back.
	c.compose("kill", "worker")
	c.firing(watch, "GradefleetNoWorkers", true, 3*time.Minute)
	c.up(3)
	c.firing(watch, "GradefleetNoWorkers", false, time.Minute)
	c.evaluates(c.url("gateway", 8080), time.Minute)
}

// The profile ha: a NATS server, a gateway and a worker die at once, and the
// callers of the proxy notice nothing but a retry.
func TestComposeHighlyAvailable(t *testing.T) {
	c := newCluster(t, "deploy/docker/ha.env")
	c.up(3)
	api := c.url("proxy", 8080)
	waitForWorkers(t, c.client, api, 3)
	if n := len(c.containers("gateway")); n != 2 {
		t.Fatalf("%d gateways, want 2", n)
	}
	c.evaluates(api, time.Minute)
	finish := c.grade(api, 400, "--retries", "60")
	c.docker("kill", c.containers("gateway")[0])
	c.docker("kill", c.containers("worker")[0])
	c.docker("kill", c.containers("nats-2")[0])
	finish()
	c.up(3)
	waitForWorkers(t, c.client, api, 3)
	c.evaluates(api, time.Minute)
	// The callers' addresses pass through the proxy.
	c.eventually("the gateways name the caller", 2*time.Minute, func() string {
		got, err := c.query(c.url("prometheus", 9090), `max(gradefleet_http_caller_requests) > 10`)
		if err != nil || len(got) == 0 {
			return fmt.Sprint(got, err)
		}
		return ""
	})
}

// stats writes down what each idle container takes.
func (c *cluster) stats() {
	out, err := exec.Command("docker", "stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}").Output()
	if err != nil {
		c.t.Errorf("docker stats: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, c.project) {
			c.t.Log("idle: ", strings.TrimSpace(line))
		}
	}
}

// isolation holds what the workers say is in force against the least wanted.
func (c *cluster) isolation(api, least string) {
	for _, w := range c.workers(api) {
		if w.IsolationLevel != least && w.IsolationLevel != "strict" {
			c.t.Errorf("worker %s has isolation %q, want %s or better: %s", w.Worker, w.IsolationLevel, least, w.Isolation)
		}
	}
}

func (c *cluster) workers(api string) []protocol.Heartbeat {
	c.t.Helper()
	resp, err := c.client.Get(api + "/workers")
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct{ Workers []protocol.Heartbeat }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		c.t.Fatal(err)
	}
	return answer.Workers
}

// busy is a check that the fleet works.
func (c *cluster) busy(api string) func() string {
	return func() string {
		for _, w := range c.workers(api) {
			if w.Busy > 0 {
				return ""
			}
		}
		return "no slot is busy"
	}
}

// reach tries from a worker's container what it may connect to: NATS, and
// nothing else of the fleet or the world.
func (c *cluster) reach() {
	c.t.Helper()
	gateway := c.address("gateway", "control")
	prometheus := c.address("prometheus", "work")
	const program = `
import socket, sys
for name, host, port in [a.split(",") for a in sys.argv[1:]]:
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
        print(name, "open")
    except OSError:
        print(name, "closed")
`
	out := c.compose("exec", "-T", "worker", "python3", "-c", program,
		"nats,nats,4222", "route,nats,6222", "monitor,nats,8222", "gateway,"+gateway+",8080", "metrics,"+gateway+",9464",
		"prometheus,"+prometheus+",9090", "world,192.0.2.1,80", "resolver,198.51.100.1,53")
	want := "nats open\nroute closed\nmonitor closed\ngateway closed\nmetrics closed\nprometheus closed\nworld closed\nresolver closed"
	if out != want {
		c.t.Errorf("a worker reaches\n%s\nwant\n%s", out, want)
	}
}

// address is a container's on one of the project's networks.
func (c *cluster) address(service, network string) string {
	c.t.Helper()
	out, err := exec.Command("docker", "inspect", "--format",
		fmt.Sprintf(`{{(index .NetworkSettings.Networks "%s_%s").IPAddress}}`, c.project, network), c.containers(service)[0]).Output()
	if err != nil || strings.TrimSpace(string(out)) == "" {
		c.t.Fatalf("address of %s on %s: %q %v", service, network, out, err)
	}
	return strings.TrimSpace(string(out))
}

// workload writes submissions that take a while, half of their cases right, so
// that there is time to break something.
func (c *cluster) workload(rows int) string {
	c.t.Helper()
	var b strings.Builder
	for i := range rows {
		line, err := json.Marshal(map[string]any{
			"task_id": fmt.Sprint("square-", i), "entry_point": "square",
			"code":     "import time\ndef square(x):\n    time.sleep(0.03)\n    return x * x\n",
			"io_cases": []map[string]string{{"input": fmt.Sprint("x=", i), "output": fmt.Sprint(i * i)}, {"input": "x=2", "output": "5"}},
			"verdicts": []bool{true, false},
		})
		if err != nil {
			c.t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	file := filepath.Join(c.t.TempDir(), "workload.jsonl")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return file
}

// dashboard asks Prometheus each query of the dashboard: all must be sound, and
// all have an answer in a fleet that has worked.
func (c *cluster) dashboard(watch string) {
	c.t.Helper()
	for _, q := range dashboardQueries(c.t, c.root) {
		c.eventually(q, 30*time.Second, func() string {
			got, err := c.query(watch, q)
			if err != nil {
				return err.Error()
			}
			if len(got) == 0 && !strings.Contains(q, "ALERTS") {
				return "no data"
			}
			return ""
		})
	}
}

// dashboardQueries reads the expressions of the dashboard's panels.
func dashboardQueries(t *testing.T, root string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, "deploy/grafana/dashboards/gradefleet.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title       string
			Type        string
			Description string
			Targets     []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(data, &dashboard); err != nil {
		t.Fatal(err)
	}
	var queries []string
	for _, p := range dashboard.Panels {
		if p.Type != "row" && (p.Description == "" || len(p.Targets) == 0) {
			t.Errorf("panel %q has no description or no query", p.Title)
		}
		for _, target := range p.Targets {
			queries = append(queries, target.Expr)
		}
	}
	if len(queries) < 20 {
		t.Fatalf("%d queries in the dashboard, want all of them", len(queries))
	}
	return queries
}
