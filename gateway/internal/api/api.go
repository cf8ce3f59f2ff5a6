// Package api is the HTTP face: the documented routes, their checks, and one
// adapter that turns what handlers return into answers. It is the only importer
// of gin. Whatever happens to a request after its shape was checked is behind
// the interface Fleet.
package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

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

// Config of the API.
type Config struct {
	Fleet Fleet
	// Workers returns the latest heartbeat of each live worker.
	Workers func() []protocol.Heartbeat
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
	e.POST("/evaluate_code", a.post(shape.Evaluate, cfg.Fleet.Evaluate))
	e.POST("/run", a.post(shape.Run, cfg.Fleet.Run))
	e.GET("/read_file", a.handle(a.readFile))
	e.POST("/write_file", a.post(shape.WriteFile, cfg.Fleet.Write))
	e.POST("/delete_file", a.post(shape.DeleteFile, cfg.Fleet.Delete))
	e.POST("/rename_file", a.post(shape.RenameFile, cfg.Fleet.Rename))
	e.POST("/fork_session", a.post(shape.ForkSession, cfg.Fleet.Fork))
	e.GET("/workers", a.handle(a.workers))
	e.GET("/openapi.yaml", a.openAPI)
	e.GET("/docs", a.docsPage)
	return e, nil
}

// handler answers a request; see handle.
type handler func(*gin.Context) (protocol.Result, error)
