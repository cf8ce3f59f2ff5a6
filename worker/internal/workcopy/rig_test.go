package workcopy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/embeddednats"
	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/internal/durable"
	"github.com/gradefleet/gradefleet/worker/internal/session"
)

// rig is a NATS server and the workers over it.
type rig struct {
	t   testing.TB
	bus *bus.Bus
}

func newRig(t testing.TB) *rig {
	t.Helper()
	s, err := embeddednats.Start(embeddednats.Config{Dir: t.TempDir()}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	nc, err := nats.Connect("", s.Option())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	b, err := bus.Ensure(context.Background(), nc, bus.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	return &rig{t: t, bus: b}
}

// testGrace is the grace of blobs in tests.
const testGrace = 400 * time.Millisecond

// worker is one of them.
type worker struct {
	*Manager
	t   testing.TB
	dir string
	// skew is added to the clock by which sessions are used, in nanoseconds.
	skew *atomic.Int64
}

func (r *rig) worker(name string) *worker { return r.start(name, r.dir(), true) }

func (r *rig) dir() string {
	dir, err := os.MkdirTemp("", "gradefleet-workcopy-")
	if err != nil {
		r.t.Fatal(err)
	}
	os.Chmod(dir, 0o711) // the sessions' users pass through
	r.t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (r *rig) start(name, dir string, stores bool) *worker {
	r.t.Helper()
	cfg := session.Config{Root: filepath.Join(dir, "sessions"), QuotaBytes: 64 << 20, QuotaFiles: 2000}
	skew := new(atomic.Int64)
	cfg.Clock = func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }
	if os.Getuid() == 0 {
		cfg.UIDBase, cfg.UIDCount = 310_000, 100
	}
	sessions, err := session.Open(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	store, err := durable.New(durable.Config{Bus: r.bus, Worker: name, Grace: testGrace, Durable: stores})
	if err != nil {
		r.t.Fatal(err)
	}
	w := &worker{t: r.t, dir: dir, skew: skew, Manager: New(Config{Sessions: sessions, Store: store, Durable: stores, Worker: name, Log: slog.New(slog.DiscardHandler)})}
	// A heartbeat counts for as long as the test needs, however slow the machine is.
	w.clock = func() int64 { return int64(time.Hour) }
	r.t.Cleanup(w.stop)
	return w
}

// stop ends a worker's process; what it has in memory is gone.
func (w *worker) stop() {
	w.Close()
	w.Sessions.Close()
}

// own records a session's owner and returns the record's time.
func (r *rig) own(id, worker string, epoch uint64, stores bool) {
	r.t.Helper()
	created := time.Unix(1_700_000_000, 123)
	value, err := json.Marshal(protocol.SessionRecord{Worker: worker, Epoch: epoch, Created: created, Durable: stores})
	if err == nil {
		_, err = r.bus.Sessions.Put(r.t.Context(), protocol.SessionKey(id), value)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// use acquires a session that must be there.
func (w *worker) use(id string, epoch uint64) *Hold {
	w.t.Helper()
	h, err := w.Acquire(w.t.Context(), id, epoch, true)
	if err != nil {
		w.t.Fatalf("acquire %s: %v", id, err)
	}
	return h
}

// with uses a session for one thing.
func (w *worker) with(id string, epoch uint64, do func(h *Hold) error) {
	w.t.Helper()
	h := w.use(id, epoch)
	defer h.Release()
	if err := do(h); err != nil {
		w.t.Fatal(err)
	}
}

func (w *worker) write(id string, epoch uint64, path, content string) {
	w.t.Helper()
	w.with(id, epoch, func(h *Hold) error { return h.WriteFile(w.t.Context(), path, []byte(content)) })
}

func (w *worker) read(id string, epoch uint64, path string) string {
	w.t.Helper()
	var data []byte
	w.with(id, epoch, func(h *Hold) (err error) {
		data, err = h.ReadFile(path)
		return err
	})
	return string(data)
}

// refused says what keeps a worker from serving a session.
func (w *worker) refused(id string, epoch uint64, want error) {
	w.t.Helper()
	h, err := w.Acquire(w.t.Context(), id, epoch, true)
	if err == nil {
		h.Release()
	}
	if !errors.Is(err, want) {
		w.t.Errorf("worker %s, session %s, epoch %d: %v, want %v", w.Worker, id, epoch, err, want)
	}
}

// job does something in the directory as a job would, and stores it.
func (w *worker) job(id string, epoch uint64, do func(work string) error) {
	w.t.Helper()
	w.with(id, epoch, func(h *Hold) error {
		if err := do(h.Session.WorkDir()); err != nil {
			return err
		}
		own(w.t, h.Session)
		return h.Save(w.t.Context())
	})
}

// own gives what a test made as the worker's user to the session's.
func own(t testing.TB, s *session.Session) {
	t.Helper()
	if s.UID() < 0 {
		return
	}
	err := filepath.WalkDir(s.WorkDir(), func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil || int(info.Sys().(*syscall.Stat_t).Uid) == s.UID() {
			return err
		}
		return os.Lchown(path, s.UID(), s.GID())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// tree describes all that a restored session must have.
func (w *worker) tree(id string, epoch uint64) string {
	w.t.Helper()
	var b strings.Builder
	w.with(id, epoch, func(h *Hold) error {
		root := h.Session.WorkDir()
		return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, os.ErrPermission) && os.Getuid() != 0 {
				return fs.SkipDir // not for an ordinary user to see
			}
			if err != nil || path == root {
				return err
			}
			info, err := os.Lstat(path)
			if err != nil {
				return err
			}
			name, _ := filepath.Rel(root, path)
			switch {
			case info.Mode().IsRegular():
				data, err := os.ReadFile(path)
				if err != nil && (!errors.Is(err, os.ErrPermission) || os.Getuid() == 0) {
					return err
				}
				fmt.Fprintf(&b, "%q %v %d %q\n", name, info.Mode(), info.ModTime().UnixNano(), data)
			case info.Mode().Type() == fs.ModeSymlink:
				target, err := os.Readlink(path)
				if err != nil {
					return err
				}
				fmt.Fprintf(&b, "%q -> %q\n", name, target)
			case info.IsDir():
				fmt.Fprintf(&b, "%q %v\n", name, info.Mode())
			}
			return nil
		})
	})
	return b.String()
}

// messages counts what was ever written to the journals.
func (r *rig) messages() uint64 {
	r.t.Helper()
	info, err := r.bus.Manifests.Info(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return info.State.LastSeq
}

// refuseWrites makes JetStream refuse what is written to journals.
func (r *rig) refuseWrites(refuse bool) {
	r.t.Helper()
	cfg := r.bus.Manifests.CachedInfo().Config
	cfg.MaxMsgSize = -1
	if refuse {
		cfg.MaxMsgSize = 10
	}
	if _, err := r.bus.JS.UpdateStream(r.t.Context(), cfg); err != nil {
		r.t.Fatal(err)
	}
}

// replace records another owner, as a gateway does.
func (r *rig) replace(id, worker string, epoch uint64, former ...protocol.Former) {
	r.t.Helper()
	r.own(id, worker, epoch, true)
	record := r.record(id)
	record.Former = former
	value, err := json.Marshal(record)
	if err == nil {
		_, err = r.bus.Sessions.Put(r.t.Context(), protocol.SessionKey(id), value)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) record(id string) (record protocol.SessionRecord) {
	r.t.Helper()
	e, err := r.bus.Sessions.Get(r.t.Context(), protocol.SessionKey(id))
	if err == nil {
		err = json.Unmarshal(e.Value(), &record)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return record
}

// beat writes a worker's heartbeat, and returns what a gateway says of the worker
// that has seen no other since.
func (w *worker) beat() protocol.Former {
	w.t.Helper()
	if err := w.Heartbeat(w.t.Context(), []byte("{}")); err != nil {
		w.t.Fatal(err)
	}
	return w.seen()
}

func (w *worker) seen() protocol.Former {
	w.t.Helper()
	s, err := w.Store.Sight(w.t.Context(), w.Worker)
	if err != nil {
		w.t.Fatal(err)
	}
	return protocol.Former{Worker: w.Worker, Seen: s.Revision, At: s.Written}
}

// listen answers who asks the worker to let go, and counts that.
func (w *worker) listen(answer bool) *atomic.Int64 {
	w.t.Helper()
	asked := new(atomic.Int64)
	nc := w.Store.Bus.NC
	sub, err := nc.Subscribe(protocol.ReleaseSubject(w.Worker), func(msg *nats.Msg) {
		asked.Add(1)
		var r protocol.Release
		if !answer || json.Unmarshal(msg.Data, &r) != nil {
			return
		}
		w.LetGo(r)
		msg.Respond(msg.Data)
	})
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { sub.Unsubscribe() })
	return asked
}
