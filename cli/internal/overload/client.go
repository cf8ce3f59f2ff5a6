package overload

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// body is a submission of ten cases that cost next to nothing to run.
var body = func() []byte {
	b := []byte(`{"id":"overload","code":"def add(a, b):\n    return a + b","entry_point":"add","io_cases":[`)
	for i := range 10 {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `{"input":"a=%d, b=%d","output":"%d"}`, i, i, 2*i)
	}
	return append(b, "]}"...)
}()

var right = []byte(`{"passed":true`)

// answerTimeout is longer than the gateway's own deadline for a job.
const answerTimeout = 400 * time.Second

// client counts what became of its requests.
type client struct {
	url  string
	http *http.Client

	skipped int
	sending time.Duration

	mu                 sync.Mutex
	took               []time.Duration // of right answers
	refused            int
	retryMin, retryMax int
	errors             []string
}

func newClient(url string) *client {
	return &client{url: url + "/evaluate_code", http: &http.Client{
		Timeout:   answerTimeout,
		Transport: &http.Transport{MaxIdleConnsPerHost: maxOutstanding, IdleConnTimeout: time.Minute, DisableCompression: true},
	}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// request sends one and notes its outcome.
func (c *client) request(ctx context.Context) {
	begun := time.Now()
	status, retry, ok, err := c.post(ctx)
	took := time.Since(begun)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil:
		c.errors = append(c.errors, err.Error())
	case status == http.StatusOK && ok:
		c.took = append(c.took, took)
	case status == http.StatusTooManyRequests && retry > 0:
		if c.refused == 0 || retry < c.retryMin {
			c.retryMin = retry
		}
		c.refused, c.retryMax = c.refused+1, max(c.retryMax, retry)
	default:
		c.errors = append(c.errors, fmt.Sprintf("status %d, Retry-After %d, right: %v", status, retry, ok))
	}
}

func (c *client) post(ctx context.Context) (status, retry int, ok bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return 0, 0, false, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, 0, false, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, 0, false, err
	}
	retry, _ = strconv.Atoi(resp.Header.Get("Retry-After")) // 0 shows as an error
	return resp.StatusCode, retry, bytes.HasPrefix(data, right), nil
}

// capacity is how many right answers a second a few clients get.
func (c *client) capacity(ctx context.Context) (float64, error) {
	var clients sync.WaitGroup
	var answers atomic.Int64
	var failure atomic.Pointer[string]
	begun := time.Now()
	for range capacityClients {
		clients.Go(func() {
			for time.Since(begun) < capacityTime {
				status, _, ok, err := c.post(ctx)
				if err != nil || status != http.StatusOK || !ok {
					text := fmt.Sprintf("status %d, right: %v, error: %v", status, ok, err)
					failure.Store(&text)
					return
				}
				answers.Add(1)
			}
		})
	}
	clients.Wait()
	if text := failure.Load(); text != nil {
		return 0, fmt.Errorf("measure the fleet's speed: %s", *text)
	}
	return float64(answers.Load()) / time.Since(begun).Seconds(), nil
}
