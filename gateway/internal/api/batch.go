package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/gradefleet/gradefleet/gateway/internal/batch"
)

// evaluateBatch is POST /evaluate_batch: it reads and writes at the same time,
// for as long as lines come and go.
func (a *api) evaluateBatch(c *gin.Context) {
	if err := a.authorize(c); err != nil {
		a.failUnread(c, err)
		return
	}
	visit, err := a.Gate.Arrive(caller(c))
	if err != nil {
		a.failUnread(c, err)
		return
	}
	defer visit.Leave()
	w := &duplex{api: a, c: c, control: http.NewResponseController(c.Writer)}
	_ = w.control.EnableFullDuplex() // a test's recorder can't, and needs it not
	a.awaitNoBody(c)                 // a batch may take hours; what bounds it is below
	if c.GetHeader("Expect") == "" {
		w.begin()
	}
	finished := make(chan struct{})
	defer close(finished)
	go func() {
		select {
		case <-a.Stopping:
			w.interrupt()
		case <-finished:
		}
	}()
	idle := time.AfterFunc(time.Hour, func() {
		w.idle.Store(true)
		w.interrupt()
	})
	rest := func() {
		if a.IdleTimeout > 0 {
			idle.Reset(a.IdleTimeout)
		}
	}
	rest()
	defer idle.Stop()
	// net/http ends the request's context when a read fails, also one that was
	// interrupted here; that is no hang-up.
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.Request.Context()))
	defer cancel()
	defer context.AfterFunc(c.Request.Context(), func() {
		if !w.interrupted.Load() {
			cancel()
		}
	})()
	err = batch.Serve(ctx, a.Batch, batch.Request{
		ID: requestID(c), Caller: caller(c), In: w, Write: w.write, Stop: a.Stopping,
		Idle: rest, Busy: func() { idle.Stop() },
	})
	if err != nil {
		a.Log.Info("batch cut short", "request_id", requestID(c), "caller", caller(c), "error", err)
		return
	}
	if w.interrupted.Load() && w.control.SetReadDeadline(time.Now().Add(lingerTime)) == nil {
		// As for a refused body: who sends before it reads must get to read.
		io.CopyN(io.Discard, c.Request.Body, lingerBytes)
	}
}

// duplex is a request's body and its answer, used at the same time.
type duplex struct {
	api               *api
	c                 *gin.Context
	control           *http.ResponseController
	begun             bool
	idle, interrupted atomic.Bool
}

// begin sends the answer's headers.
func (d *duplex) begin() {
	if d.begun {
		return
	}
	d.begun = true
	h := d.c.Writer.Header()
	h.Set("Content-Type", "application/x-ndjson")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Accel-Buffering", "no") // nginx would hold answers back
	d.c.Status(http.StatusOK)
	d.c.Writer.WriteHeaderNow()
	_ = d.control.Flush()
}

// interrupt ends reading, now and from now on.
func (d *duplex) interrupt() {
	d.interrupted.Store(true)
	_ = d.control.SetReadDeadline(time.Now())
}

// Read implements io.Reader.
func (d *duplex) Read(p []byte) (int, error) {
	n, err := d.c.Request.Body.Read(p)
	if err != nil && errors.Is(err, os.ErrDeadlineExceeded) && d.idle.Load() {
		err = batch.ErrIdle
	}
	return n, err
}

// write writes lines, within the time that a caller may take to receive them.
func (d *duplex) write(lines []byte) error {
	if d.api.WriteTimeout > 0 {
		_ = d.control.SetWriteDeadline(time.Now().Add(d.api.WriteTimeout))
	}
	d.begin()
	if _, err := d.c.Writer.Write(lines); err != nil {
		return err
	}
	return d.control.Flush()
}
