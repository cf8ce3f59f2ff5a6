// Package load is the clients of a chaos run: they ask a fleet, through all its
// gateways, for everything it can do, one request after the other, and record in
// a history what they asked and were told.
package load

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gradefleet/gradefleet/cli/internal/chaos/history"
)

// Deadline is how long a client waits for one answer: longer than a gateway
// takes for its own deadlines and than one may be stopped.
const Deadline = 75 * time.Second

// answerLimit bounds what is read of an answer, bytes.
const answerLimit = 64 << 20

// answer is what came of sending one request.
type answer struct {
	status int
	header http.Header
	body   []byte
	// sent says that there was a connection to send it on: it may have arrived.
	sent bool
	err  error // nil if there is a status
}

// detail is the answer's or the error's text.
func (a *answer) detail() string {
	if a.err != nil {
		return a.err.Error()
	}
	var d struct{ Detail string }
	if a.status == http.StatusOK || json.Unmarshal(a.body, &d) != nil {
		return ""
	}
	return d.Detail
}

// Gateways is the HTTP side of a fleet's gateways. Its methods may be called
// from any goroutine.
type Gateways struct {
	urls []string
	http *http.Client
}

// NewGateways returns the gateways at these URLs.
func NewGateways(urls []string) *Gateways {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	return &Gateways{urls: urls, http: &http.Client{Transport: &http.Transport{
		DialContext: dialer.DialContext, MaxIdleConnsPerHost: 64, DisableCompression: true,
	}}}
}

// Close closes idle connections.
func (g *Gateways) Close() { g.http.CloseIdleConnections() }

// send sends one request to one gateway, once.
func (g *Gateways) send(ctx context.Context, gateway int, r request) (a answer) {
	ctx, cancel := context.WithTimeout(ctx, Deadline)
	defer cancel()
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		// The first byte of the head says that there is a connection; a server
		// that is gone may still get some of it.
		WroteHeaders: func() { sent.Store(true) },
	})
	defer func() { a.sent = sent.Load() }()
	method, body := http.MethodGet, []byte(nil)
	target := g.urls[gateway] + r.path
	if r.body != nil {
		method = http.MethodPost
		if body, a.err = json.Marshal(r.body); a.err != nil {
			return a
		}
	} else if r.query != nil {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return answer{err: err}
	}
	if method == http.MethodPost {
		// Without a way to get the body again, net/http doesn't send a request
		// twice on its own account.
		req.GetBody = nil
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	resp, err := g.http.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	a = answer{status: resp.StatusCode, header: resp.Header}
	if a.body, err = io.ReadAll(io.LimitReader(resp.Body, answerLimit)); err != nil {
		return answer{err: fmt.Errorf("read answer %d: %w", resp.StatusCode, err)}
	}
	return a
}

// request is one HTTP request.
type request struct {
	path   string
	body   map[string]any // nil: a GET
	query  url.Values
	header map[string]string
}

// givenUp begins the answer to a job that was tried as often as it may be.
const givenUp = "The job was given up: "

// outcome says what an answer means for the client: see docs/chaos.md, which has
// the same table.
func outcome(kind history.Kind, a *answer) history.Outcome {
	switch {
	case a.err != nil && !a.sent:
		return history.Refused
	case errors.Is(a.err, context.DeadlineExceeded):
		return history.Unanswered
	case a.err != nil:
		return history.Unknown
	}
	mayHave := strings.Contains(a.detail(), "may have")
	graded := kind == history.Evaluate || kind == history.Import || kind == history.Batch || kind == history.Async
	switch a.status {
	case http.StatusOK:
		return history.OK
	case http.StatusAccepted:
		if kind == history.Async {
			return history.OK
		}
	case http.StatusNotFound:
		if kind == history.Read || kind == history.Delete || kind == history.Rename || kind == history.Fork {
			return history.Missing
		}
	case http.StatusBadRequest:
		if kind == history.Run && a.detail() == "Session does not exist" {
			return history.Missing
		}
	case http.StatusTooManyRequests, http.StatusConflict:
		return history.Refused
	case http.StatusServiceUnavailable:
		if mayHave {
			return history.Unknown
		}
		return history.Refused
	case http.StatusBadGateway:
		if !graded {
			return history.Unknown
		}
	case http.StatusGatewayTimeout:
		if graded {
			return history.Unanswered
		}
		return history.Unknown
	case http.StatusInternalServerError:
		if graded && strings.HasPrefix(a.detail(), givenUp) {
			return history.GivenUp
		}
		if kind == history.Run && mayHave {
			return history.Unknown
		}
	}
	return history.Fault
}
