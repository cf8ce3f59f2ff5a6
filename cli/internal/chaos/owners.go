package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/cli/internal/chaos/history"
	"github.com/gradefleet/gradefleet/cli/internal/chaos/procs"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// tap listens on the wire to who owns which session: which worker answered with
// success for a session, by the epoch that it was asked in, and what the
// bucket's records say. It misses what passes while its server is down; what it
// hears is enough to catch two owners of one epoch.
type tap struct {
	nc      *nats.Conn
	history *history.History
	bucket  jetstream.KeyValue
	records jetstream.KeyWatcher

	mu    sync.Mutex
	asked map[string]asked // by reply subject, or by job
}

type asked struct {
	session string
	epoch   uint64
}

// maxAsked bounds what is remembered of requests that were never answered.
const maxAsked = 100_000

func listen(ctx context.Context, f *procs.Fleet, h *history.History) (*tap, error) {
	url, user, password := f.NATSLogin()
	nc, err := nats.Connect(url, nats.UserInfo(user, password), nats.Name("chaos"), nats.MaxReconnects(-1))
	if err != nil {
		return nil, err
	}
	t := &tap{nc: nc, history: h, asked: map[string]asked{}}
	for subject, handle := range map[string]nats.MsgHandler{
		"gf.session.>":                  func(m *nats.Msg) { t.ask(m.Reply, m) },
		protocol.JobsSubjects:           func(m *nats.Msg) { t.ask(m.Header.Get(protocol.HeaderJob), m) },
		"_INBOX.>":                      func(m *nats.Msg) { t.told(m.Subject, m) },
		protocol.ReplyPrefix("*") + ">": func(m *nats.Msg) { t.told(m.Header.Get(protocol.HeaderJob), m) },
	} {
		if _, err := nc.Subscribe(subject, handle); err != nil {
			nc.Close()
			return nil, err
		}
	}
	if err := t.watch(ctx); err != nil {
		nc.Close()
		return nil, err
	}
	return t, nc.Flush()
}

func (t *tap) ask(key string, m *nats.Msg) {
	epoch, err := strconv.ParseUint(m.Header.Get(protocol.HeaderEpoch), 10, 64)
	if key == "" || err != nil || epoch == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.asked) < maxAsked {
		t.asked[key] = asked{m.Header.Get(protocol.HeaderSession), epoch}
	}
}

func (t *tap) told(key string, m *nats.Msg) {
	worker := m.Header.Get(protocol.HeaderWorker)
	if worker == "" {
		return
	}
	t.mu.Lock()
	a, ok := t.asked[key]
	delete(t.asked, key)
	t.mu.Unlock()
	if ok && m.Header.Get(protocol.HeaderStatus) == "200" {
		t.history.Owned(history.Ownership{Session: a.session, Epoch: a.epoch, Worker: worker})
	}
}

// watch records what the bucket's entries say, and become.
func (t *tap) watch(ctx context.Context) error {
	js, err := jetstream.New(t.nc)
	if err != nil {
		return err
	}
	if t.bucket, err = js.KeyValue(ctx, protocol.SessionsBucket); err != nil {
		return err
	}
	if t.records, err = t.bucket.WatchAll(ctx); err != nil {
		return err
	}
	go func() {
		for e := range t.records.Updates() {
			var r protocol.SessionRecord
			if e == nil || e.Operation() != jetstream.KeyValuePut || json.Unmarshal(e.Value(), &r) != nil {
				continue
			}
			t.history.Owned(history.Ownership{
				Session: protocol.SessionOfKey(e.Key()), Epoch: r.Epoch, Worker: r.Worker, Recorded: true, Revision: e.Revision(),
			})
		}
	}()
	return nil
}

// record reads the bucket's entry of a session.
func (t *tap) record(ctx context.Context, session string) (r protocol.SessionRecord, err error) {
	e, err := t.bucket.Get(ctx, protocol.SessionKey(session))
	if err != nil {
		return r, fmt.Errorf("look up session %s: %w", session, err)
	}
	return r, json.Unmarshal(e.Value(), &r)
}

func (t *tap) close() {
	if t.records != nil {
		t.records.Stop()
	}
	t.nc.Close()
}
