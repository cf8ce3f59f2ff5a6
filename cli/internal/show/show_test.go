package show

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

const (
	workersAnswer = `{"workers":[{"version":1,"worker":"w-1","build":"v1","started":"2026-11-24T10:00:00Z","slots":4,"busy":1,"sessions":12,"session_bytes":40960,"free_bytes":53687091200,"isolation":"x","isolation_level":"strict","python":"p","draining":true}],` +
		`"queues":[{"queue":"bulk","waiting":1200,"running":3,"oldest_s":41.5},{"queue":"evaluate","waiting":0,"running":0,"oldest_s":0}],"waiting":7}`
	done = `{"job_id":"abc","kind":"evaluate","state":"done","session":"s-1","created":"2026-11-24T10:00:00Z","deadline":"2026-11-24T10:20:00Z","worker":"w-1","since":"2026-11-24T10:00:01Z","finished":"2026-11-24T10:00:03Z","status":200,"result":{"passed":true}}`
)

func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-API-Key") != "k" {
			w.WriteHeader(401)
			w.Write([]byte(`{"detail":"Send a valid API key"}`))
			return
		}
		switch r.Method + " " + r.URL.RequestURI() {
		case "GET /workers":
			w.Write([]byte(workersAnswer))
		case "GET /jobs?limit=20":
			w.Write([]byte(`{"jobs":[` + done + `,{"job_id":"def","kind":"run","state":"queued","session":"s-2","created":"2026-11-24T10:00:00Z"}]}`))
		case "GET /jobs/abc?wait=0":
			w.Write([]byte(done))
		case "DELETE /jobs/abc":
			w.WriteHeader(409)
			w.Write([]byte(`{"detail":"The job is done"}`))
		default:
			w.WriteHeader(404)
			w.Write([]byte(`{"detail":"no such job"}`))
		}
	}))
	defer s.Close()
	var c struct {
		Workers Workers `cmd:""`
		Jobs    Jobs    `cmd:""`
	}
	parser, err := kong.New(&c)
	if err != nil {
		t.Fatal(err)
	}
	command, err := parser.Parse(append(args, "--url", s.URL))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if strings.HasPrefix(command.Command(), "jobs") {
		err = c.Jobs.Run(t.Context(), command.Command(), &out)
	} else {
		err = c.Workers.Run(t.Context(), &out)
	}
	return out.String(), err
}

func TestCommands(t *testing.T) {
	for _, c := range []struct {
		args string
		want []string // in the output, or in the error
	}{
		{"workers --api-key k", []string{"WORKER", "w-1     draining  4      1", "40.0 KiB", "50.0 GiB", "strict", "1 workers, 1 of 4 slots busy", "bulk      1200     3        41.5s", "evaluate  0        0        -", "7 more wait"}},
		{"workers --api-key k --json", []string{workersAnswer}},
		{"workers", []string{"401", "valid API key"}},
		{"jobs --api-key k", []string{"JOB", "abc  evaluate  done    200     w-1", "2.0s", "def  run       queued  -       -", "bulk "}},
		{"jobs list --api-key k --json", []string{`"result":{"passed":true}`, `"queues":[{"queue":"bulk"`}},
		{"jobs list --api-key k --limit 5000", []string{"want 1 to 1000"}},
		{"jobs get abc --api-key k", []string{"state    done", "took     2.0s", `{"passed":true}`}},
		{"jobs get abc --api-key k --json", []string{done}},
		{"jobs get xyz --api-key k", []string{"404", "no such job"}},
		{"jobs get xyz --api-key k --wait 61", []string{"0 to 60"}},
		{"jobs cancel abc --api-key k", []string{"409", "is done"}},
	} {
		out, err := run(t, strings.Fields(c.args)...)
		if err != nil {
			out += err.Error()
		}
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in\n%s", c.args, want, out)
			}
		}
	}
}

func TestUnits(t *testing.T) {
	for bytes, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 5 << 40: "5.0 TiB"} {
		if got := size(bytes); got != want {
			t.Errorf("%d bytes: %s, want %s", bytes, got, want)
		}
	}
	for d, want := range map[time.Duration]string{-time.Second: "0.0s", 90 * time.Second: "90.0s", 5 * time.Minute: "5m", 3 * time.Hour: "3h", 72 * time.Hour: "3d"} {
		if got := age(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
