// Package sessionapi serves the file operations and forks of the sessions that
// this worker owns, as NATS request and reply. It turns what the session
// package says into the documented answers.
package sessionapi

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/internal/durable"
	"github.com/gradefleet/gradefleet/worker/internal/session"
	"github.com/gradefleet/gradefleet/worker/internal/verdict"
	"github.com/gradefleet/gradefleet/worker/internal/workcopy"
)

// Service answers session operations until it is stopped.
type Service struct {
	worker string
	// instance is this life of the worker, as gateways know it.
	instance string
	once     once
	nc       *nats.Conn
	copies   *workcopy.Manager
	log      *slog.Logger
	svc      micro.Service
	places   chan struct{}
	// underway counts the operations that have come in and aren't answered.
	underway atomic.Int64
	leaving  atomic.Bool
}

// maxConcurrent bounds the operations under way at once; more wait in NATS. Those
// that wait for their session to be restored count.
const maxConcurrent = 256

// opTimeout bounds one operation.
const opTimeout = time.Minute

const (
	// stopWait is how long Stop waits for operations under way.
	stopWait = 10 * time.Second
	// stopLook is how often Stop looks whether there are any.
	stopLook = 2 * time.Millisecond
	// closeWait is how long gateways may take to hear that a worker is going.
	closeWait = 300 * time.Millisecond
)

// Serve announces the service and begins to answer.
func Serve(nc *nats.Conn, worker, instance, build string, copies *workcopy.Manager, log *slog.Logger) (*Service, error) {
	s := &Service{worker: worker, instance: instance, nc: nc, copies: copies, log: log, places: make(chan struct{}, maxConcurrent)}
	svc, err := micro.AddService(nc, micro.Config{
		Name: "gradefleet-session", Version: "1.0.0",
		Description: "files of the sessions that worker " + worker + " owns",
		Metadata:    map[string]string{"worker": worker, "build": build},
	})
	if err != nil {
		return nil, fmt.Errorf("serve sessions: %w", err)
	}
	s.svc = svc
	group := svc.AddGroup(protocol.SessionPrefix(worker))
	for op, do := range map[string]operation{
		protocol.OpRead: s.read, protocol.OpWrite: s.write, protocol.OpDelete: s.delete,
		protocol.OpRename: s.rename, protocol.OpFork: s.fork,
	} {
		if err := group.AddEndpoint(op, s.handler(op, do)); err != nil {
			svc.Stop()
			return nil, fmt.Errorf("serve sessions: endpoint %s: %w", op, err)
		}
	}
	// Not one of the operations: it waits for none of them.
	if err := svc.AddEndpoint("release", micro.HandlerFunc(s.release), micro.WithEndpointSubject(protocol.ReleaseSubject(worker))); err != nil {
		svc.Stop()
		return nil, fmt.Errorf("serve sessions: endpoint release: %w", err)
	}
	return s, nil
}

// Stop answers the operations that have come in and refuses others, saying that
// nothing was done. Close is to follow when everybody has been told that the
// worker is going: a request to a subscription that is gone may be lost on its
// way through a cluster, and then nobody knows whether it was done.
func (s *Service) Stop() {
	s.leaving.Store(true)
	for deadline := time.Now().Add(stopWait); s.underway.Load() > 0 && time.Now().Before(deadline); {
		time.Sleep(stopLook)
	}
}

// Close ends the service, a little later: who was just told that the worker is
// going may have sent something before.
func (s *Service) Close() {
	time.Sleep(closeWait)
	s.svc.Stop()
	if err := s.nc.FlushTimeout(stopWait); err != nil {
		s.log.Warn("session operations may go unanswered", "error", err)
	}
}

// operation does one session operation and returns the body of its answer.
type operation func(ctx context.Context, op protocol.SessionOp, req fields) ([]byte, error)

// handler answers requests of one kind, each in a goroutine of its own: a large
// file or a fork must not hold up the others.
func (s *Service) handler(name string, do operation) micro.Handler {
	return micro.HandlerFunc(func(r micro.Request) {
		s.underway.Add(1)
		if s.leaving.Load() {
			defer s.underway.Add(-1)
			// As the server says that nobody listens: nothing was done.
			if err := r.Respond(nil, micro.WithHeaders(micro.Headers{"Status": {"503"}})); err != nil {
				s.log.Warn("refuse session operation", "operation", name, "error", err)
			}
			return
		}
		if i := r.Headers().Get(protocol.HeaderInstance); i != "" && i != s.instance {
			s.underway.Add(-1)
			return // what it was asked before it started anew, it doesn't know
		}
		s.places <- struct{}{}
		go func() {
			defer s.underway.Add(-1)
			defer func() { <-s.places }()
			result := s.once.do(r.Headers().Get(protocol.HeaderJob), time.Now(), func() protocol.Result { return s.answer(name, do, r) })
			result.Worker = s.worker
			if most := int(s.nc.MaxPayload()) - protocol.MessageOverheadBytes; len(result.Body) > most {
				result.Status, result.Body = 413, protocol.ErrorBody(fmt.Sprintf(
					"the answer is %d bytes long, the limit is %d; read the file in parts with /run, or with encoding=base64 if it isn't plain text", len(result.Body), most))
			}
			if err := r.Respond(result.Body, micro.WithHeaders(micro.Headers(result.Header()))); err != nil {
				s.log.Warn("answer session operation", "operation", name, "error", err)
			}
		}()
	})
}

func (s *Service) answer(name string, do operation, r micro.Request) (result protocol.Result) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic in session operation", "operation", name, "panic", p)
			result = protocol.Result{Status: 500, Body: protocol.ErrorBody("internal error; the worker's log has the details")}
		}
	}()
	op, err := protocol.ParseSessionOp(r.Headers(), r.Data())
	if err != nil {
		return protocol.Result{Status: 400, Body: protocol.ErrorBody(err.Error())}
	}
	req, err := parseFields(op.Body)
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), opTimeout)
		defer cancel()
		var body []byte
		if body, err = do(ctx, op, req); err == nil {
			return protocol.Result{Status: 200, Body: body}
		}
	}
	_, anew := errors.AsType[*workcopy.Anew](err)
	status, detail := describe(err)
	if status >= 500 && !errors.Is(err, session.ErrNoSpace) {
		s.log.Error("session operation failed", "operation", name, "session", op.Session, "request", op.RequestID, "error", err)
	}
	return protocol.Result{Status: status, Anew: anew, Body: protocol.ErrorBody(detail)}
}

// refusal is an error with its status and text for the caller.
type refusal struct {
	status int
	detail string
}

func (r *refusal) Error() string { return r.detail }

// describe gives an error its HTTP status and the text that the caller sees.
func describe(err error) (status int, detail string) {
	var r *refusal
	switch {
	case errors.As(err, &r):
		return r.status, r.detail
	case errors.Is(err, session.ErrStaleEpoch), errors.Is(err, workcopy.ErrElsewhere):
		return protocol.StatusMisdirected, err.Error()
	case errors.Is(err, workcopy.ErrOvertaken):
		return protocol.StatusOvertaken, err.Error()
	case errors.Is(err, workcopy.ErrForgotten):
		return 502, "The operation may have been done when it was first asked for; " + err.Error()
	case errors.Is(err, durable.ErrFull):
		return 507, "No room left to store the change; delete files, or sessions that nobody needs"
	case errors.Is(err, durable.ErrDoubt):
		return 504, "NATS did not answer in time; the change may have been stored or not"
	case errors.Is(err, workcopy.ErrNotStored):
		return 503, "The change could not be stored; ask again"
	case errors.Is(err, workcopy.ErrBusy):
		return 503, "The session is going back to what is stored of it; ask again"
	case errors.Is(err, workcopy.ErrHeld):
		return 503, "A worker that owned the session before has not let go of it yet; ask again"
	case errors.Is(err, session.ErrInvalidPath), errors.Is(err, session.ErrRefused):
		return 400, err.Error()
	case errors.Is(err, session.ErrNotExist), errors.Is(err, session.ErrNoSession):
		return 404, err.Error()
	case errors.Is(err, session.ErrConflict), errors.Is(err, session.ErrBusy):
		return 409, err.Error()
	case errors.Is(err, session.ErrTooLarge):
		return 413, err.Error()
	case errors.Is(err, session.ErrNoSpace):
		return 507, err.Error()
	case errors.Is(err, session.ErrNoUsers):
		return 503, err.Error()
	}
	return 500, "internal error; the worker's log has the details"
}

// find returns the session of an operation; missing is what to say if there is none.
func (s *Service) find(ctx context.Context, op protocol.SessionOp, missing string) (*workcopy.Hold, error) {
	h, err := s.copies.Acquire(ctx, op.Session, op.Epoch, false)
	if errors.Is(err, session.ErrNoSession) {
		return nil, &refusal{404, missing}
	}
	return h, s.notOpened(op, err)
}

// notOpened is why a session can't be used, where nothing was done yet: whatever
// it is, it may be another time, or on another worker, when it is asked again.
func (s *Service) notOpened(op protocol.SessionOp, err error) error {
	if err == nil {
		return nil
	}
	if status, _ := describe(err); status != 500 && status != 504 {
		return err
	}
	s.log.Error("session can't be opened", "session", op.Session, "request", op.RequestID, "error", err)
	return &refusal{503, "The session can't be opened now; ask again"}
}

func (s *Service) read(ctx context.Context, op protocol.SessionOp, req fields) ([]byte, error) {
	h, err := s.find(ctx, op, "File does not exist")
	if err != nil {
		return nil, err
	}
	defer h.Release()
	path, err := session.CleanPath(req.relPath)
	if err != nil {
		return nil, err
	}
	data, err := h.ReadFile(req.relPath)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, len(data)*5/4+256)
	b = append(b, `{"content":`...)
	if req.encoding == "base64" {
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, data)
		b = append(b, `","encoding":"base64"`...)
	} else {
		if !utf8.Valid(data) {
			return nil, &refusal{415, fmt.Sprintf("%s is not UTF-8 text; read it with encoding=base64", path)}
		}
		b = verdict.AppendText(b, string(data))
	}
	b = verdict.AppendText(append(b, `,"id":`...), op.Session)
	b = verdict.AppendText(append(b, `,"rel_path":`...), path)
	return append(b, '}'), nil
}

func (s *Service) write(ctx context.Context, op protocol.SessionOp, req fields) ([]byte, error) {
	data, err := req.data()
	if err != nil {
		return nil, err
	}
	// A path that can't be makes no session.
	if _, err := session.CleanPath(req.relPath); err != nil {
		return nil, err
	}
	// If there is none, the gateway has just made this worker its owner.
	h, err := s.copies.Acquire(ctx, op.Session, op.Epoch, true)
	if err != nil {
		return nil, s.notOpened(op, err)
	}
	defer h.Release()
	h.Sent, h.First, h.Operation = op.Sent, op.First, op.ID
	if err := h.WriteFile(ctx, req.relPath, data); err != nil {
		return nil, err
	}
	return done(op.Session, "rel_path", req.relPath), nil
}

func (s *Service) delete(ctx context.Context, op protocol.SessionOp, req fields) ([]byte, error) {
	h, err := s.find(ctx, op, "File does not exist")
	if err != nil {
		return nil, err
	}
	defer h.Release()
	h.Sent, h.First, h.Operation = op.Sent, op.First, op.ID
	if err := h.DeleteFile(ctx, req.relPath); err != nil {
		return nil, err
	}
	return done(op.Session, "rel_path", req.relPath), nil
}

func (s *Service) rename(ctx context.Context, op protocol.SessionOp, req fields) ([]byte, error) {
	h, err := s.find(ctx, op, "Old file does not exist")
	if err != nil {
		return nil, err
	}
	defer h.Release()
	h.Sent, h.First, h.Operation = op.Sent, op.First, op.ID
	if err := h.RenameFile(ctx, req.oldPath, req.newPath); err != nil {
		return nil, err
	}
	return done(op.Session, "old_path", req.oldPath, "new_path", req.newPath), nil
}

func (s *Service) fork(ctx context.Context, op protocol.SessionOp, _ fields) ([]byte, error) {
	h, err := s.find(ctx, op, "Session to fork not found")
	if err != nil {
		return nil, err
	}
	defer h.Release()
	if err := h.Fork(ctx, op.NewID, op.NewEpoch); err != nil {
		return nil, err
	}
	return append(verdict.AppendText([]byte(`{"new_id":`), op.NewID), '}'), nil
}

// done writes {"success":true,"id":…} with more keys and values.
func done(id string, pairs ...string) []byte {
	b := append([]byte(`{"success":`), strconv.FormatBool(true)...)
	b = verdict.AppendText(append(b, `,"id":`...), id)
	for i := 0; i < len(pairs); i += 2 {
		b = append(verdict.AppendText(append(b, ','), pairs[i]), ':')
		b = verdict.AppendText(b, pairs[i+1])
	}
	return append(b, '}')
}
