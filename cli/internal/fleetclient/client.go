// Package fleetclient is a client of the documented HTTP API, as the load and
// grading commands use it: keep-alive connections, bodies encoded beforehand,
// answers decoded only as far as verdicts go, errors that say how a request
// failed. It works with any server of the API, and contacts only this machine
// unless it is told otherwise.
//
// It doesn't retry and doesn't judge: see the packages grade and bench.
package fleetclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// MaxAnswerBytes is the largest answer body read, in bytes; a longer one is an
// [AnswerError].
const MaxAnswerBytes = 64 << 20

// keepAlive finds out within a minute that the machine at the other end is gone,
// while an answer is awaited that may rightly take longer.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 3}

// Config of a Client.
type Config struct {
	// URL of the server, http or https, with or without a path prefix.
	URL string
	// AllowRemote permits hosts other than this machine.
	AllowRemote bool
	// Connections is how many idle connections are kept: the number of requests
	// at a time. 0 means 1.
	Connections int
	// Key is the API key to send; "" for none.
	Key string
	// Timeout of one request, from its start to the end of its answer. 0: none.
	Timeout time.Duration
}

// Client talks to one server. It is safe for concurrent use.
type Client struct {
	base    string
	key     string
	timeout time.Duration
	http    *http.Client
	buffers sync.Pool // of *bytes.Buffer, for answers
}

// New returns a client, without contacting the server. It fails on a URL that
// can't be used and, with [ErrRemote], on one of another machine.
func New(cfg Config) (*Client, error) {
	base, err := parseBase(cfg.URL, cfg.AllowRemote)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAliveConfig: keepAlive}
	transport := &http.Transport{
		MaxIdleConnsPerHost: max(cfg.Connections, 1),
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true, // unpacking would be measured as the server's time
		ReadBufferSize:      32 << 10,
		WriteBufferSize:     32 << 10,
	}
	if cfg.AllowRemote {
		transport.Proxy = http.ProxyFromEnvironment
	} else {
		dialer.ControlContext = onlyLoopback
	}
	transport.DialContext = dialer.DialContext
	return &Client{
		base:    base,
		key:     cfg.Key,
		timeout: cfg.Timeout,
		http: &http.Client{
			Transport: transport,
			// The API has no redirects; following one could leave this machine.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		buffers: sync.Pool{New: func() any { return new(bytes.Buffer) }},
	}, nil
}

// URL is the server's, without a trailing slash.
func (c *Client) URL() string { return c.base }

// Close closes the idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Ping asks whether a server answers at all. Any HTTP answer will do.
func (c *Client) Ping(ctx context.Context) error {
	err := c.do(ctx, "ping", http.MethodGet, "/", nil, nil)
	if _, ok := errors.AsType[*StatusError](err); ok {
		return nil
	}
	return err
}

// Evaluate posts an evaluate_code request. The body is the whole request's.
func (c *Client) Evaluate(ctx context.Context, body []byte) (Evaluation, error) {
	var e Evaluation
	err := c.do(ctx, "evaluate", http.MethodPost, "/evaluate_code", body, &e)
	return e, err
}

// Run runs a command in a session that has been written to.
func (c *Client) Run(ctx context.Context, session, command string) (RunResult, error) {
	var r RunResult
	body, err := RunBody(session, command)
	if err != nil {
		return r, err
	}
	err = c.do(ctx, "run", http.MethodPost, "/run", body, &r)
	return r, err
}

// RunBody is the body of a run request.
func RunBody(session, command string) ([]byte, error) {
	body, err := json.Marshal(runRequest{session, command})
	if err != nil {
		return nil, fmt.Errorf("encode run request: %w", err)
	}
	return body, nil
}

// WriteFile writes a file of a session, and makes the session if there is none.
func (c *Client) WriteFile(ctx context.Context, session, path, content string) error {
	body, err := json.Marshal(writeRequest{session, path, content})
	if err != nil {
		return fmt.Errorf("encode write_file request: %w", err)
	}
	var w struct {
		Success bool `json:"success"`
	}
	if err := c.do(ctx, "write_file", http.MethodPost, "/write_file", body, &w); err != nil {
		return err
	}
	if !w.Success {
		return &AnswerError{Op: "write_file", Err: errors.New("no success in the answer")}
	}
	return nil
}

// ReadFile reads a file of a session.
func (c *Client) ReadFile(ctx context.Context, session, path string) (string, error) {
	query := url.Values{"id": {session}, "rel_path": {path}}
	var r struct {
		Content *string `json:"content"`
	}
	if err := c.do(ctx, "read_file", http.MethodGet, "/read_file?"+query.Encode(), nil, &r); err != nil {
		return "", err
	}
	if r.Content == nil {
		return "", &AnswerError{Op: "read_file", Err: errors.New("no content in the answer")}
	}
	return *r.Content, nil
}

// Get asks for what is at a path and decodes it into answer.
func (c *Client) Get(ctx context.Context, op, path string, answer any) error {
	return c.do(ctx, op, http.MethodGet, path, nil, answer)
}

// Delete deletes what is at a path and decodes the answer into answer.
func (c *Client) Delete(ctx context.Context, op, path string, answer any) error {
	return c.do(ctx, op, http.MethodDelete, path, nil, answer)
}

// decodeAnswer is lenient where the verdict doesn't depend on it: what a
// submission returned is echoed in answers, in whatever state it was.
var decodeAnswer = json.JoinOptions(jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true))

// do sends a request and decodes a 200's body into answer, unless that is nil.
func (c *Client) do(ctx context.Context, op, method, path string, body []byte, answer any) error {
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, c.timeout, fmt.Errorf("no answer in %v: %w", c.timeout, context.DeadlineExceeded))
		defer cancel()
	}
	var reader io.Reader
	if body != nil {
		reader = bytes.NewReader(body)
	}
	req, err := c.request(ctx, op, method, path, "application/json", reader)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("%s at %s: %w", op, c.base, bare(err))
	}
	defer resp.Body.Close()
	buffer := c.buffers.Get().(*bytes.Buffer)
	defer c.buffers.Put(buffer)
	buffer.Reset()
	if _, err := buffer.ReadFrom(io.LimitReader(resp.Body, MaxAnswerBytes+1)); err != nil {
		return fmt.Errorf("read %s answer of %s: %w", op, c.base, err)
	}
	if resp.StatusCode != http.StatusOK {
		return newStatusError(op, resp, buffer.Bytes())
	}
	if buffer.Len() > MaxAnswerBytes {
		return &AnswerError{Op: op, Err: fmt.Errorf("it is longer than %d bytes", MaxAnswerBytes)}
	}
	if answer == nil {
		return nil
	}
	return Decode(op, buffer.Bytes(), answer)
}

// request makes a request; a nil body is none, and has no type.
func (c *Client) request(ctx context.Context, op, method, path, contentType string, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("make %s request: %w", op, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", contentType)
	}
	if c.key != "" {
		req.Header.Set("X-API-Key", c.key)
	}
	return req, nil
}

// bare takes off the url.Error, which would repeat the method and the URL.
func bare(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// Decode decodes the body of an answer of status 200 to an operation.
func Decode(op string, body []byte, answer any) error {
	if err := json.Unmarshal(body, answer, decodeAnswer); err != nil {
		return &AnswerError{Op: op, Err: err}
	}
	return nil
}
