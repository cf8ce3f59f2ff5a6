package growth

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/worker/simulate"
)

// client sends requests as one caller of the gateway, from an address of its own.
type client struct {
	url  string
	http *http.Client
}

// requestTimeout is longer than the gateway's own deadline for a job.
const requestTimeout = 400 * time.Second

// The addresses that two callers connect from; all of 127/8 is the loopback.
const firstCaller, secondCaller = "127.0.0.1", "127.0.0.2"

func newClient(url string) *client { return newClientFrom(url, firstCaller) }

func newClientFrom(url, address string) *client {
	dialer := &net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	return &client{url: url, http: &http.Client{
		Timeout:   requestTimeout,
		Transport: &http.Transport{DialContext: dialer.DialContext, MaxIdleConns: 0, MaxIdleConnsPerHost: 20_000, IdleConnTimeout: time.Minute, DisableCompression: true},
	}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

func (c *client) do(ctx context.Context, method, path string, body []byte, answer any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %d: %.200s", path, resp.StatusCode, data)
	}
	return json.Unmarshal(data, answer)
}

// workers are those that the gateway sees.
func (c *client) workers(ctx context.Context) ([]protocol.Heartbeat, error) {
	var answer struct {
		Workers []protocol.Heartbeat `json:"workers"`
	}
	err := c.do(ctx, http.MethodGet, "/workers", nil, &answer)
	return answer.Workers, err
}

// write makes a session.
func (c *client) write(ctx context.Context, session string) error {
	return c.do(ctx, http.MethodPost, "/write_file", fmt.Appendf(nil, `{"id":%q,"rel_path":"a.txt","content":"x"}`, session), &struct{}{})
}

// padding makes a job's body as long as that of a real submission.
var padding = strings.Repeat("x", 1024)

// job runs a job that takes so long.
func (c *client) job(ctx context.Context, length time.Duration) (simulate.Answer, error) {
	var a simulate.Answer
	body := fmt.Appendf(nil, `{"id":%q,"code":"%v # %s","entry_point":"f","io_cases":[{"input":"x=1","output":"1"}]}`, protocol.NewUUID(), length, padding)
	err := c.do(ctx, http.MethodPost, "/evaluate_code", body, &a)
	return a, err
}
