package server_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// The documented requests, as far as a gateway has a say in them.
func TestContract(t *testing.T) {
	c := newCluster(t, 1, nil)
	g := c.gateways[0]
	c.worker("w1", nil)
	g.post("/write_file", write("known", "a.txt", "content")).want(t, 200, `"success":true`)
	long := strings.Repeat("x", 129)
	for _, x := range []struct {
		name         string
		method, path string
		body         any
		status       int
		contains     string
	}{
		{"ping", "GET", "/", nil, 200, "ping"},
		{"unknown path", "GET", "/nope", nil, 404, `{"detail":"Not Found"}`},
		{"trailing slash", "POST", "/run/", run("known"), 404, `{"detail":"Not Found"}`},
		{"wrong method", "GET", "/run", nil, 405, `{"detail":"Method Not Allowed"}`},
		{"wrong method of a read", "POST", "/read_file", "", 405, `{"detail":"Method Not Allowed"}`},

		{"missing fields", "POST", "/evaluate_code", `{"id":"s","code":"x"}`, 422, "body.entry_point: missing, want a string; body.io_cases: missing, want an array of objects"},
		{"wrong type", "POST", "/write_file", `{"id":"s","rel_path":"a","content":5}`, 422, "body.content: want a string, got a number"},
		{"null", "POST", "/run", `{"id":"s","cmd":null}`, 422, "body.cmd: want a string, got null"},
		{"not JSON", "POST", "/run", `{not json`, 422, "not JSON at byte 2"},
		{"an array", "POST", "/run", `[1, 2]`, 422, "want a JSON object, got an array"},
		{"no body", "POST", "/run", ``, 422, "got nothing"},
		{"a case that is no object", "POST", "/evaluate_code", `{"id":"s","code":"","entry_point":"f","io_cases":["a=1"]}`, 422, "io_cases[0]"},
		{"extra field", "POST", "/write_file", `{"id":"known","rel_path":"b","content":"x","extra":1}`, 200, `"success":true`},
		{"bad encoding", "POST", "/write_file", `{"id":"s","rel_path":"a","content":"","encoding":"utf8"}`, 422, "body.encoding"},

		{"id with traversal", "POST", "/write_file", write("../s", "a", "x"), 400, "invalid session id"},
		{"id empty", "POST", "/write_file", write("", "a", "x"), 400, "invalid session id"},
		{"id with a slash", "POST", "/run", run("x/s"), 400, "invalid session id"},
		{"id of dots", "POST", "/evaluate_code", evaluate("."), 400, "only dots"},
		{"id too long", "POST", "/fork_session", map[string]any{"id": long}, 400, "the limit is 128"},
		{"id of a read", "GET", "/read_file?rel_path=a&id=" + url.QueryEscape("../s"), nil, 400, "invalid session id"},
		{"a plain word as id", "POST", "/write_file", write("alice", "a", "x"), 200, `"id":"alice"`},

		{"read", "GET", "/read_file?id=known&rel_path=a.txt", nil, 200, `"content":"content"`},
		{"read with an encoding", "GET", "/read_file?id=known&rel_path=a.txt&encoding=utf-8", nil, 200, `"content":"content"`},
		{"read with a bad encoding", "GET", "/read_file?id=known&rel_path=a.txt&encoding=rot13", nil, 422, "query.encoding"},
		{"read without a path", "GET", "/read_file?id=known", nil, 422, `{"detail":[{"loc":["query","rel_path"],"msg":"field required","type":"value_error.missing"}]}`},
		{"read without anything", "GET", "/read_file", nil, 422, `"loc":["query","id"]`},
		{"read of the last of two paths", "GET", "/read_file?id=known&rel_path=no&rel_path=a.txt", nil, 200, `"content":"content"`},
		{"read outside", "GET", "/read_file?id=known&rel_path=../../etc/passwd", nil, 400, `"Invalid path"`},
		{"read of no file", "GET", "/read_file?id=known&rel_path=no", nil, 404, `"File does not exist"`},
		{"read of no session", "GET", "/read_file?id=unknown&rel_path=a", nil, 404, `"File does not exist"`},
		{"delete in no session", "POST", "/delete_file", map[string]any{"id": "unknown", "rel_path": "a"}, 404, `"File does not exist"`},
		{"rename in no session", "POST", "/rename_file", map[string]any{"id": "unknown", "old_path": "a", "new_path": "b"}, 404, `"Old file does not exist"`},
		{"fork of no session", "POST", "/fork_session", map[string]any{"id": "unknown"}, 404, `"Session to fork not found"`},
		{"run in no session", "POST", "/run", run("unknown"), 400, `"Session does not exist"`},
		{"run", "POST", "/run", run("known"), 200, `"stdout":"w1"`},
		{"evaluate", "POST", "/evaluate_code", evaluate("unknown"), 200, `"passed":true`},
		{"rename", "POST", "/rename_file", map[string]any{"id": "known", "old_path": "b", "new_path": "c"}, 200, `"new_path":"c"`},
		{"delete", "POST", "/delete_file", map[string]any{"id": "known", "rel_path": "c"}, 200, `"success":true`},
	} {
		t.Run(x.name, func(t *testing.T) {
			body := ""
			if x.body != nil {
				body = encode(x.body)
			}
			g.must(g.call(t.Context(), x.method, x.path, body)).want(t, x.status, x.contains)
		})
	}
}

func TestPingAsJSON(t *testing.T) {
	g := newCluster(t, 1, nil).gateways[0]
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "application/json")
	if a := g.must(g.do(r)); a.body != `"ping"` || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("ping as JSON: %s of type %s", a.body, a.header.Get("Content-Type"))
	}
	if a := g.get("/"); a.body != "ping" || !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
		t.Errorf("ping: %s of type %s", a.body, a.header.Get("Content-Type"))
	}
}

func TestMethodNotAllowedSaysWhatIs(t *testing.T) {
	g := newCluster(t, 1, nil).gateways[0]
	if a := g.get("/run"); a.header.Get("Allow") != "POST" {
		t.Errorf("Allow %q, want POST", a.header.Get("Allow"))
	}
}

func TestRequestIDGoesAllTheWay(t *testing.T) {
	c := newCluster(t, 1, nil)
	g, w := c.gateways[0], c.worker("w1", nil)
	for _, x := range []struct {
		path string
		body any
		seen func() string
	}{
		{"/evaluate_code", evaluate("s"), func() string { return within(t, "job", w.jobs).RequestID }},
		{"/write_file", write("s", "a", "x"), func() string { return within(t, "operation", w.ops).RequestID }},
		{"/run", run("s"), func() string { return within(t, "job", w.jobs).RequestID }},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.url+x.path, strings.NewReader(encode(x.body)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Request-ID", "mine-"+x.path[1:])
		a := g.must(g.do(r))
		if echo, seen := a.header.Get("X-Request-ID"), x.seen(); echo != "mine-"+x.path[1:] || seen != echo {
			t.Errorf("%s: answered with %q, the worker saw %q", x.path, echo, seen)
		}
	}
}

// What a job carries is the caller's JSON, byte for byte.
func TestBodiesTravelUnchanged(t *testing.T) {
	c := newCluster(t, 1, nil)
	g, w := c.gateways[0], c.worker("w1", nil)
	odd := ` {"id" : "s", "code":"\ud800 ` + "\xff" + `", "entry_point":"f","io_cases":[ ],"io_cases":[{"x":1e400}], "z":{}}` + "\n"
	g.post("/evaluate_code", odd).want(t, 200, "passed")
	job := within(t, "job", w.jobs)
	if string(job.Body) != odd {
		t.Errorf("the worker got %q, the caller sent %q", job.Body, odd)
	}
	if job.Session != "s" || job.Epoch != 0 || job.Kind != protocol.Evaluate || job.Deadline.Sub(job.Enqueued).Round(time.Second) != 300*time.Second {
		t.Errorf("job %+v", job)
	}
	file := `{"id":"s","content":"` + "\xff" + `","rel_path":"a"}`
	g.post("/write_file", file).want(t, 200, "success")
	if op := within(t, "operation", w.ops); string(op.Body) != file || op.Epoch != 1 {
		t.Errorf("the worker got %q in epoch %d", op.Body, op.Epoch)
	}
	g.get("/read_file?id=s&rel_path="+url.QueryEscape(`d"é/x`)+"&encoding=base64").want(t, 404, "")
	var q map[string]string
	if op := within(t, "operation", w.ops); json.Unmarshal(op.Body, &q) != nil || q["rel_path"] != `d"é/x` || q["encoding"] != "base64" || q["id"] != "s" {
		t.Errorf("the worker got %q for a read", op.Body)
	}
}

func TestWorkersList(t *testing.T) {
	c := newCluster(t, 1, nil)
	g := c.gateways[0]
	if a := g.get("/workers"); !strings.HasPrefix(a.body, `{"workers":[],"queues":[{"queue":"backlog","waiting":0,`) {
		t.Errorf("workers: %s, want an empty list", a.body)
	}
	c.worker("w2", nil)
	c.worker("w1", nil)
	var list struct {
		Workers []protocol.Heartbeat `json:"workers"`
	}
	if err := json.Unmarshal([]byte(g.get("/workers").body), &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Workers) != 2 || list.Workers[0].Worker != "w1" || list.Workers[1].Slots != 4 {
		t.Errorf("workers %+v, want w1 and w2", list.Workers)
	}
	if n := g.value("gradefleet_workers_live"); n != 2 {
		t.Errorf("gradefleet_workers_live is %v, want 2", n)
	}
}

func TestDescriptionIsServed(t *testing.T) {
	g := newCluster(t, 1, nil).gateways[0]
	g.get("/openapi.yaml").want(t, 200, "openapi: 3.1.0")
	g.get("/docs").want(t, 200, "gradefleet")
}
