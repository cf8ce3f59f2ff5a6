package sessionapi

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/shared/embeddednats"
	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/internal/durable"
	"github.com/gradefleet/gradefleet/worker/internal/session"
	"github.com/gradefleet/gradefleet/worker/internal/workcopy"
)

// Whether something was done, was not, or may have been decides what a caller may
// do next.
func TestDescribe(t *testing.T) {
	notStored := func(cause error) error { return fmt.Errorf("%w: %w", workcopy.ErrNotStored, cause) }
	for _, c := range []struct {
		err    error
		status int
	}{
		{notStored(errors.New("refused")), 503},
		{notStored(fmt.Errorf("%w: no answer", durable.ErrDoubt)), 504},
		{notStored(durable.ErrFull), 507},
		{session.ErrNotExist, 404},
		{workcopy.ErrForgotten, 502},
		{&workcopy.Anew{Err: session.ErrNotExist}, 404},
		{workcopy.ErrElsewhere, protocol.StatusMisdirected},
		{fmt.Errorf("%w: worker w", workcopy.ErrHeld), 503},
		{errors.New("unheard of"), 500},
	} {
		if status, detail := describe(c.err); status != c.status {
			t.Errorf("%v: %d %s, want %d", c.err, status, detail, c.status)
		}
	}
}

// Where a session could not be opened nothing was done, whatever the reason.
func TestNotOpened(t *testing.T) {
	s := &Service{log: slog.New(slog.DiscardHandler)}
	for _, c := range []struct {
		err    error
		status int
	}{
		{errors.New("read journal: no answer"), 503},
		{fmt.Errorf("claim: %w", durable.ErrDoubt), 503},
		{session.ErrNoSession, 404},
		{workcopy.ErrElsewhere, protocol.StatusMisdirected},
	} {
		if status, detail := describe(s.notOpened(protocol.SessionOp{}, c.err)); status != c.status {
			t.Errorf("%v: %d %s, want %d", c.err, status, detail, c.status)
		}
	}
	if err := s.notOpened(protocol.SessionOp{}, nil); err != nil {
		t.Error(err)
	}
}

// A worker that is going says that it does nothing any more, until everybody can
// know; asked what another life of it was asked, it says nothing.
func TestLeaving(t *testing.T) {
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
	s, err := Serve(nc, "w", "7", "test", nil, log)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(instance string, limit time.Duration) error {
		op := protocol.SessionOp{Session: "s", Epoch: 1, Instance: instance}
		_, err := nc.RequestMsg(&nats.Msg{Subject: protocol.SessionSubject("w", protocol.OpDelete), Header: nats.Header(op.Header())}, limit)
		return err
	}
	if err := ask("6", 50*time.Millisecond); !errors.Is(err, nats.ErrTimeout) {
		t.Errorf("asked as another instance: %v, want no answer", err)
	}
	if n := s.underway.Load(); n != 0 {
		t.Errorf("%d operations under way", n)
	}
	s.Stop()
	for _, instance := range []string{"", "7"} {
		if err := ask(instance, 10*time.Second); !errors.Is(err, nats.ErrNoResponders) {
			t.Errorf("asked while leaving: %v, want ErrNoResponders", err)
		}
	}
	s.Close()
	if err := ask("", 10*time.Second); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("asked when gone: %v, want ErrNoResponders", err)
	}
}

// Who asks to let go of a session gets the request back, also from a worker that is
// going, and by no operation is it held up.
func TestRelease(t *testing.T) {
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
	s, err := Serve(nc, "w", "7", "test", workcopy.New(workcopy.Config{Log: log}), log)
	if err != nil {
		t.Fatal(err)
	}
	defer s.svc.Stop()
	for range maxConcurrent {
		s.places <- struct{}{}
	}
	for _, stopped := range []bool{false, true} {
		if stopped {
			s.Stop()
		}
		for body, ok := range map[string]bool{
			`{"session":"s","epoch":2,"created":"2026-01-02T03:04:05Z"}`: true,
			`{"session":"../s","epoch":2}`:                               false,
			`{`:                                                          false,
		} {
			reply, err := nc.Request(protocol.ReleaseSubject("w"), []byte(body), 10*time.Second)
			if err != nil {
				t.Fatalf("%s: %v", body, err)
			}
			if string(reply.Data) == body != ok {
				t.Errorf("%s: answer %q, stopped %v", body, reply.Data, stopped)
			}
		}
	}
}
