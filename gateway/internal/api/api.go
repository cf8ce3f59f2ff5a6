// Package api is the HTTP face: the documented routes, their checks, and one
// adapter that turns what handlers return into answers. It is the only importer
// of gin. Whatever happens to a request after its shape was checked is behind
// the interface Fleet.
package api

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gradefleet/gradefleet/gateway/internal/admit"
	"github.com/gradefleet/gradefleet/gateway/internal/batch"
	"github.com/gradefleet/gradefleet/gateway/internal/jobs"
	"github.com/gradefleet/gradefleet/gateway/internal/routing"
	"github.com/gradefleet/gradefleet/gateway/internal/shape"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Fleet does what is asked for. Errors that a caller may be told about are of
// package fault.
type Fleet interface {
	Evaluate(context.Context, routing.Request) (protocol.Result, error)
	Run(context.Context, routing.Request) (protocol.Result, error)
	Read(context.Context, routing.Request) (protocol.Result, error)
	Write(context.Context, routing.Request) (protocol.Result, error)
	Delete(context.Context, routing.Request) (protocol.Result, error)
	Rename(context.Context, routing.Request) (protocol.Result, error)
	Fork(context.Context, routing.Request) (protocol.Result, error)
}

// Jobs are asynchronous jobs and requests with an idempotency key; see package jobs.
type Jobs interface {
	Submit(ctx context.Context, req jobs.Request) (protocol.Kept, error)
	Do(ctx context.Context, req jobs.Request) (result protocol.Result, joined bool, err error)
	Get(ctx context.Context, job, caller string, wait time.Duration) (protocol.Kept, error)
	Cancel(ctx context.Context, job, caller string) (protocol.Kept, error)
	List(ctx context.Context, caller string, limit int) ([]protocol.Kept, error)
}

// Queue says how long a queue is.
type Queue struct {
	// Queue is "evaluate" (shared, somebody waits for each job), "bulk" (shared),
	// "backlog" (what waits to come to that), or a worker's own, "worker:" and its id.
	Queue string `json:"queue"`
	// Waiting jobs are with no worker yet, Running ones are.
	Waiting int `json:"waiting"`
	Running int `json:"running"`
	// OldestSeconds is the age of the oldest job; 0 if there is none.
	OldestSeconds float64 `json:"oldest_s"`
}

// Config of the API.
type Config struct {
	Fleet Fleet
	Jobs  Jobs
	// Workers returns the latest heartbeat of each live worker, Queues the queues.
	Workers func() []protocol.Heartbeat
	Queues  func(context.Context) []Queue
	// Gate limits what callers may send.
	Gate *admit.Gate
	// Batch says how batches are graded.
	Batch batch.Config
	// Keys are the digests (SHA-256) of the API keys that are taken; if there are
	// none, callers need no key.
	Keys map[[sha256.Size]byte]struct{}
	// CheckWebhook returns what is wrong with the URL of a webhook; nil if there
	// are no webhooks here.
	CheckWebhook func(url string) error
	// Stopping is closed when the gateway stops: batches end then.
	Stopping <-chan struct{}
	// IdleTimeout is how long a batch may stay open without a line; 0 for no limit.
	IdleTimeout time.Duration
	// MaxBody returns the largest body taken, in bytes; it may change with the
	// NATS server that is connected.
	MaxBody func() int64
	// WriteTimeout is how long a caller may take to receive an answer; 0 for
	// no limit.
	WriteTimeout time.Duration
	// TrustedProxies are addresses or networks whose X-Forwarded-For is believed.
	TrustedProxies []string
	Log            *slog.Logger
	Registerer     prometheus.Registerer
}

type api struct {
	Config
	metrics *metrics
	docs    []byte
}

// New returns the routes.
func New(cfg Config) (http.Handler, error) {
	a := &api{Config: cfg}
	var err error
	if a.metrics, err = register(cfg.Registerer); err != nil {
		return nil, err
	}
	if a.docs, err = renderDocs(Spec); err != nil {
		return nil, fmt.Errorf("render documentation: %w", err)
	}
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	e.HandleMethodNotAllowed = true
	e.RedirectTrailingSlash = false // a redirect would be an answer without a detail
	if err := e.SetTrustedProxies(cfg.TrustedProxies); err != nil {
		return nil, fmt.Errorf("trust proxies: %w", err)
	}
	e.Use(a.observe, a.recover)
	e.NoRoute(a.handle(func(*gin.Context) (protocol.Result, error) { return protocol.Result{}, errNotFound }))
	e.NoMethod(a.handle(func(*gin.Context) (protocol.Result, error) { return protocol.Result{}, errMethod }))

	e.GET("/", a.ping)
	e.POST("/evaluate_code", a.job(protocol.Evaluate, shape.Evaluate, cfg.Fleet.Evaluate))
	e.POST("/evaluate_batch", a.evaluateBatch)
	e.POST("/run", a.job(protocol.Run, shape.Run, cfg.Fleet.Run))
	e.GET("/jobs", a.known(a.listJobs))
	e.GET("/jobs/:id", a.known(a.getJob))
	e.DELETE("/jobs/:id", a.known(a.cancelJob))
	e.GET("/read_file", a.limited(a.readFile))
	e.POST("/write_file", a.post(shape.WriteFile, cfg.Fleet.Write))
	e.POST("/delete_file", a.post(shape.DeleteFile, cfg.Fleet.Delete))
	e.POST("/rename_file", a.post(shape.RenameFile, cfg.Fleet.Rename))
	e.POST("/fork_session", a.post(shape.ForkSession, cfg.Fleet.Fork))
	e.GET("/workers", a.known(a.workers))
	e.GET("/openapi.yaml", a.openAPI)
	e.GET("/docs", a.docsPage)
	return e, nil
}

// handler answers a request; see handle.
type handler func(*gin.Context) (protocol.Result, error)
