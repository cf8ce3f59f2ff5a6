package sessionapi

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/embeddednats"
	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/internal/durable"
	"github.com/gradefleet/gradefleet/worker/internal/session"
	"github.com/gradefleet/gradefleet/worker/internal/workcopy"
)

// What was done, and is sent again, is answered as it would have been, also by a
// worker that wasn't there; what was not done is decided now, and the answer says so.
func TestChangeIsSentAgain(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	ns, err := embeddednats.Start(embeddednats.Config{Dir: t.TempDir()}, log)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Stop()
	nc, err := nats.Connect("", ns.Option())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	b, err := bus.Ensure(t.Context(), nc, bus.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	own := func(worker string, epoch uint64) {
		t.Helper()
		value, err := json.Marshal(protocol.SessionRecord{Worker: worker, Epoch: epoch, Created: time.Unix(1_700_000_000, 0), Durable: true})
		if err == nil {
			_, err = b.Sessions.Put(t.Context(), "s", value)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, worker := range []string{"a", "b"} {
		dir, err := os.MkdirTemp("", "gradefleet-sessionapi-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		os.Chmod(dir, 0o711) // the sessions' users pass through
		cfg := session.Config{Root: filepath.Join(dir, "sessions"), QuotaBytes: 64 << 20, QuotaFiles: 2000}
		if os.Getuid() == 0 {
			cfg.UIDBase, cfg.UIDCount = 320_000, 10
		}
		sessions, err := session.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer sessions.Close()
		store, err := durable.New(durable.Config{Bus: b, Worker: worker, Grace: time.Minute, Durable: true})
		if err != nil {
			t.Fatal(err)
		}
		copies := workcopy.New(workcopy.Config{Sessions: sessions, Store: store, Durable: true, Worker: worker, Log: log})
		defer copies.Close()
		s, err := Serve(nc, worker, "1", "test", copies, log)
		if err != nil {
			t.Fatal(err)
		}
		defer s.svc.Stop()
	}
	ask := func(worker string, epoch uint64, op, id, body string, first time.Time) protocol.Result {
		t.Helper()
		o := protocol.SessionOp{Session: "s", Epoch: epoch, ID: id, First: first, Attempt: protocol.NewID(), Instance: "1", Sent: time.Now(), Body: []byte(body)}
		m, err := nc.RequestMsg(&nats.Msg{Subject: protocol.SessionSubject(worker, op), Header: nats.Header(o.Header()), Data: o.Body}, 10*time.Second)
		if err != nil {
			t.Fatalf("%s %s: %v", op, body, err)
		}
		r, err := protocol.ParseResult(m.Header, m.Data)
		if err != nil {
			t.Fatalf("%s %s: %v", op, body, err)
		}
		return r
	}

	own("a", 1)
	begun := time.Now()
	changes := []struct{ op, body string }{
		{protocol.OpWrite, `{"rel_path":"f","content":"one"}`},
		{protocol.OpRename, `{"old_path":"f","new_path":"g"}`},
		{protocol.OpDelete, `{"rel_path":"g"}`},
	}
	var answers []protocol.Result
	for _, c := range changes {
		r := ask("a", 1, c.op, "id-"+c.op, c.body, time.Time{})
		if r.Status != 200 || r.Anew {
			t.Fatalf("%s: %d %s", c.op, r.Status, r.Body)
		}
		answers = append(answers, r)
	}
	own("b", 2)
	for i, c := range slices.Backward(changes) { // so that doing them again would show
		r := ask("b", 2, c.op, "id-"+c.op, c.body, begun)
		if r.Status != 200 || r.Anew || string(r.Body) != string(answers[i].Body) {
			t.Errorf("%s sent again: %d %s, want %s", c.op, r.Status, r.Body, answers[i].Body)
		}
	}
	if r := ask("b", 2, protocol.OpRead, "", `{"rel_path":"f"}`, time.Time{}); r.Status != 404 {
		t.Errorf("f is there again: %d %s", r.Status, r.Body)
	}
	for _, first := range []time.Time{{}, begun} {
		if r := ask("b", 2, protocol.OpDelete, "another", `{"rel_path":"g"}`, first); r.Status != 404 || r.Anew != !first.IsZero() {
			t.Errorf("another delete, first sent at %v: %d %s, anew %v", first, r.Status, r.Body, r.Anew)
		}
	}
}
