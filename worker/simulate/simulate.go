// Package simulate runs simulated workers, many in one process: they speak the
// fleet's protocol with the code that real ones do, each over a connection of its
// own, but carry nothing out. A job sleeps for as long as its code says, and
// files are only counted. It is for measuring what a fleet costs as it grows.
package simulate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/internal/intake"
)

// Config of simulated workers.
type Config struct {
	// Workers is how many there are, Slots how many jobs each runs at once.
	Workers, Slots int
	NATS           bus.Config
	// Joining is how many join at the same time.
	Joining int
	Log     *slog.Logger
}

// Answer is what a simulated worker answers to an evaluate request.
type Answer struct {
	Worker string `json:"worker"`
	// Wait is the time from the gateway's publication to the start of the job,
	// Length what the job slept for, in microseconds.
	Wait   int64 `json:"wait_us"`
	Length int64 `json:"length_us"`
}

// Run runs the workers until ctx is done. joined is called when all of them take
// jobs.
func Run(ctx context.Context, cfg Config, joined func()) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	registry := prometheus.NewRegistry()
	metrics := intake.NewMetrics(registry, cfg.Workers*cfg.Slots)
	var running, joining sync.WaitGroup
	places := make(chan struct{}, max(cfg.Joining, 1))
	for i := range cfg.Workers {
		joining.Add(1)
		running.Go(func() {
			var once sync.Once
			done := func() {
				once.Do(func() {
					<-places
					joining.Done()
				})
			}
			places <- struct{}{}
			defer done()
			w := &worker{id: fmt.Sprintf("sim-%04d", i), cfg: cfg, metrics: metrics, started: time.Now()}
			if err := w.run(ctx, done); err != nil {
				fail(fmt.Errorf("simulated worker %s: %w", w.id, err))
			}
		})
	}
	joining.Wait()
	if ctx.Err() == nil {
		joined()
	}
	running.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// worker is one of them.
type worker struct {
	id       string
	cfg      Config
	metrics  *intake.Metrics // of all
	started  time.Time
	bus      *bus.Bus
	intake   *intake.Intake
	sessions atomic.Int64
}

func (w *worker) run(ctx context.Context, joined func()) error {
	if ctx.Err() != nil {
		return nil
	}
	nc, err := bus.Connect(w.cfg.NATS, w.id, w.cfg.Log)
	if err != nil {
		return err
	}
	defer nc.Close()
	if w.bus, err = bus.Ensure(ctx, nc, bus.Settings{Replicas: w.cfg.NATS.Replicas}); err != nil {
		return err
	}
	w.intake, err = intake.New(ctx, w.bus, intake.Config{
		Worker: w.id, Slots: w.cfg.Slots, Handle: w.handle, Idle: func(int) {},
		Metrics: w.metrics, Log: w.cfg.Log,
	})
	if err != nil {
		return err
	}
	service, err := w.serve(nc)
	if err != nil {
		return err
	}
	defer service.Stop()
	var beating sync.WaitGroup
	defer beating.Wait()
	beating.Go(func() { w.heartbeats(ctx) })
	joined()
	return w.intake.Run(ctx, ctx)
}

// handle sleeps for as long as the request's code says, as time.Duration reads it.
func (w *worker) handle(ctx context.Context, _ int, job protocol.Job) (protocol.Result, error) {
	begun := time.Now()
	var request struct {
		Code string `json:"code"`
	}
	if err := json.Unmarshal(job.Body, &request); err != nil {
		return protocol.Result{}, err
	}
	says, _, _ := strings.Cut(request.Code, " ")
	length, err := time.ParseDuration(says)
	if err != nil {
		return protocol.Result{}, err
	}
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return protocol.Result{}, context.Cause(ctx)
	}
	return w.result(Answer{Worker: w.id, Wait: begun.Sub(job.Enqueued).Microseconds(), Length: time.Since(begun).Microseconds()})
}

func (w *worker) result(answer any) (protocol.Result, error) {
	body, err := json.Marshal(answer)
	return protocol.Result{Status: http.StatusOK, Body: body, Worker: w.id}, err
}

// serve answers operations on files as a worker with nothing but room would.
func (w *worker) serve(nc *nats.Conn) (micro.Service, error) {
	service, err := micro.AddService(nc, micro.Config{
		Name: "gradefleet-session", Version: "1.0.0", Metadata: map[string]string{"worker": w.id},
	})
	if err != nil {
		return nil, fmt.Errorf("serve sessions: %w", err)
	}
	group := service.AddGroup(protocol.SessionPrefix(w.id))
	for _, op := range []string{protocol.OpRead, protocol.OpWrite, protocol.OpDelete, protocol.OpRename, protocol.OpFork} {
		err := group.AddEndpoint(op, micro.HandlerFunc(func(r micro.Request) {
			if op == protocol.OpWrite {
				w.sessions.Add(1) // the measurement writes once to each session
			}
			result, err := w.result(map[string]bool{"success": true})
			if err != nil {
				return
			}
			if err := r.Respond(result.Body, micro.WithHeaders(micro.Headers(result.Header()))); err != nil {
				w.cfg.Log.Warn("answer session operation", "worker", w.id, "error", err)
			}
		}))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("serve sessions: %w", err), service.Stop())
		}
	}
	return service, nil
}

// isolation is as long as what a real worker reports, since all gateways read it
// with every heartbeat.
var isolation = "simulated: nothing is run" + strings.Repeat(".", 700)

func (w *worker) beat(ctx context.Context) error {
	body, err := json.Marshal(protocol.Heartbeat{
		Version: protocol.Version, Worker: w.id, Build: "simulated", Started: w.started,
		Slots: w.cfg.Slots, Busy: w.intake.Busy(), Sessions: int(w.sessions.Load()), FreeBytes: 100 << 30,
		Isolation: isolation, IsolationLevel: "basic", Python: "none",
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, protocol.HeartbeatInterval)
	defer cancel()
	_, err = w.bus.Workers.Put(ctx, w.id, body)
	return err
}

// heartbeats writes a heartbeat in time, and takes it away at the end.
func (w *worker) heartbeats(ctx context.Context) {
	tick := time.NewTicker(protocol.HeartbeatInterval)
	defer tick.Stop()
	for {
		if err := w.beat(ctx); err != nil && ctx.Err() == nil {
			w.cfg.Log.Warn("write heartbeat", "worker", w.id, "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.Background(), protocol.HeartbeatInterval)
			w.bus.Workers.Delete(last, w.id) // or it is forgotten in time
			cancel()
			return
		}
	}
}
