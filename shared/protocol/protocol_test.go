package protocol

import (
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"
)

// The wire of version 1, as written down: a change here is a change of version.
func TestGoldenHeaders(t *testing.T) {
	at := time.UnixMicro(1_700_000_000_123_456)
	job := Job{ID: "j1", Kind: Evaluate, RequestID: "r1", Session: "s1", Epoch: 3, Reply: "gf.reply.g.j1", Enqueued: at, Deadline: at.Add(time.Minute), Body: []byte("{}")}
	want := map[string][]string{
		"Gf-Version": {"1"}, "Gf-Job": {"j1"}, "Gf-Kind": {"evaluate"}, "Gf-Request": {"r1"}, "Gf-Session": {"s1"}, "Gf-Epoch": {"3"},
		"Gf-Reply": {"gf.reply.g.j1"}, "Gf-Enqueued": {"1700000000123456"}, "Gf-Deadline": {"1700000060123456"},
	}
	if got := job.Header(); !reflect.DeepEqual(got, want) {
		t.Errorf("job headers %v, want %v", got, want)
	}
	want["Gf-Of-The-Future"] = []string{"x"}
	got, err := ParseJob(want, job.Body)
	if err != nil || !reflect.DeepEqual(got, job) {
		t.Errorf("parsed %+v, %v", got, err)
	}
	res := Result{Job: "j1", Worker: "w1", Status: 200, Body: []byte("{}")}
	if got := res.Header(); !reflect.DeepEqual(got, map[string][]string{"Gf-Job": {"j1"}, "Gf-Worker": {"w1"}, "Gf-Status": {"200"}}) {
		t.Errorf("result headers %v", got)
	}
	if got, err := ParseResult(res.Header(), res.Body); err != nil || !reflect.DeepEqual(got, res) {
		t.Errorf("parsed %+v, %v", got, err)
	}
	res.Anew = true
	if got, err := ParseResult(res.Header(), res.Body); err != nil || !reflect.DeepEqual(got, res) {
		t.Errorf("parsed %+v, %v", got, err)
	}
	op := SessionOp{RequestID: "r", Session: "s", Epoch: 1, ID: "o", First: at, Attempt: "a", Instance: "7", Sent: at.Add(time.Second), Body: []byte("{}")}
	want = map[string][]string{
		"Gf-Version": {"1"}, "Gf-Request": {"r"}, "Gf-Session": {"s"}, "Gf-Epoch": {"1"}, "Gf-Operation": {"o"}, "Gf-First": {"1700000000123456"},
		"Gf-Job": {"a"}, "Gf-Instance": {"7"}, "Gf-Enqueued": {"1700000001123456"},
	}
	if got := op.Header(); !reflect.DeepEqual(got, want) {
		t.Errorf("operation headers %v, want %v", got, want)
	}
	if got, err := ParseSessionOp(want, op.Body); err != nil || !reflect.DeepEqual(got, op) {
		t.Errorf("parsed %+v, %v", got, err)
	}
	want[HeaderOperation] = []string{strings.Repeat("x", MaxOperationIDLength+1)}
	if _, err := ParseSessionOp(want, nil); err == nil || !strings.Contains(err.Error(), "33 bytes") {
		t.Errorf("an id too long: %v", err)
	}
	op = SessionOp{RequestID: "r", Session: "s", Epoch: 1, NewID: "n", NewEpoch: 1, Body: []byte("{}")}
	if got, err := ParseSessionOp(op.Header(), op.Body); err != nil || !reflect.DeepEqual(got, op) {
		t.Errorf("parsed %+v, %v", got, err)
	}
}

func TestGoldenJSON(t *testing.T) {
	at := time.Date(2026, 11, 24, 1, 2, 3, 0, time.UTC)
	tests := []struct {
		value any
		want  string
	}{
		{SessionRecord{Worker: "w", Epoch: 2, Created: at}, `{"worker":"w","epoch":2,"created":"2026-11-24T01:02:03Z"}`},
		{Heartbeat{Version: 1, Worker: "w", Build: "b", Started: at, Slots: 2, Busy: 1, Sessions: 3, SessionBytes: 4, FreeBytes: 5, Isolation: "basic: x", IsolationLevel: "basic", Python: "p"},
			`{"version":1,"worker":"w","build":"b","started":"2026-11-24T01:02:03Z","slots":2,"busy":1,"sessions":3,"session_bytes":4,"free_bytes":5,"isolation":"basic: x","isolation_level":"basic","python":"p","draining":false}`},
	}
	for _, tt := range tests {
		got, err := json.Marshal(tt.value)
		if err != nil || string(got) != tt.want {
			t.Errorf("%T is %s, want %s", tt.value, got, tt.want)
		}
	}
	if got := string(ErrorBody(`a "b"`)); got != `{"detail":"a \"b\""}` {
		t.Errorf("error body %s", got)
	}
}

func TestJobsThatCantBeRead(t *testing.T) {
	good := (&Job{ID: "j", Kind: Run, Reply: "r", Enqueued: time.Now(), Deadline: time.Now()}).Header()
	tests := []struct {
		name, header, value, want string
	}{
		{"another version", HeaderVersion, "2", "Gf-Version"},
		{"no id", HeaderJob, "", "Gf-Job"},
		{"no reply", HeaderReply, "", "Gf-Reply"},
		{"unknown kind", HeaderKind, "dance", "Gf-Kind"},
		{"no deadline", HeaderDeadline, "", "Gf-Deadline"},
		{"no time", HeaderEnqueued, "soon", "Gf-Enqueued"},
		{"no epoch", HeaderEpoch, "-1", "Gf-Epoch"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := maps.Clone(good)
			h[tt.header] = []string{tt.value}
			_, err := ParseJob(h, nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) || errors.Is(err, ErrVersion) != (tt.header == HeaderVersion) {
				t.Errorf("error %v, want one that names %s", err, tt.want)
			}
		})
	}
}

func TestSessionIDs(t *testing.T) {
	for _, id := range []string{"a", "demo", NewUUID(), ".hidden", "a.", "a..b", strings.Repeat("x", 128), "-", "_"} {
		if err := CheckSessionID(id); err != nil {
			t.Errorf("%q: %v", id, err)
		}
		key := SessionKey(id)
		if strings.Contains(key, ".") || SessionOfKey(key) != id {
			t.Errorf("%q has key %q, which is of %q", id, key, SessionOfKey(key))
		}
	}
	for id, want := range map[string]string{"": "empty", ".": "only dots", "...": "only dots", "a/b": `'/'`, "ü": "byte 0 is 'ü'", "a b": "byte 1", "a\x00": "byte 1", "a=b": `'='`, strings.Repeat("x", 129): "129 bytes"} {
		if err := CheckSessionID(id); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %q", id, err, want)
		}
	}
}

func TestWorkerIDsAreSubjectTokens(t *testing.T) {
	for _, id := range []string{"", "a.b", "a*", "a>", "a b", strings.Repeat("x", 65)} {
		if CheckWorkerID(id) == nil {
			t.Errorf("%q was taken", id)
		}
	}
	if got := LastToken(ReplySubject("g", "j")); got != "j" {
		t.Errorf("last token %q", got)
	}
}

func TestIDsDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		for _, id := range []string{NewID(), NewUUID(), NewOperationID()} {
			if seen[id] || CheckSessionID(id) != nil {
				t.Fatalf("id %q came twice or can't be a session's", id)
			}
			seen[id] = true
		}
	}
}

// Whatever a caller's name is, it has one token of a subject, and its own.
func TestBacklogSubjects(t *testing.T) {
	seen := map[string]bool{}
	for _, caller := range []string{"", "a", "b", "a.b", "*", ">", "key with spaces\r\n"} {
		s := BacklogSubject(caller)
		if seen[s] || !strings.HasPrefix(s, strings.TrimSuffix(BacklogSubjects, "*")) || strings.Trim(LastToken(s), "0123456789abcdef") != "" || strings.Count(s, ".") != 2 {
			t.Errorf("caller %q has the subject %s", caller, s)
		}
		seen[s] = true
	}
}
