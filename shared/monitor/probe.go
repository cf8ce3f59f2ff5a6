package monitor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	// probeTimeout leaves checkTimeout to the process that is asked.
	probeTimeout = checkTimeout + time.Second
	// probeBytes is how much of an answer is read; a report is far shorter.
	probeBytes = 64 << 10
)

// Probe asks the process whose monitor listens on addr whether it is ready, and
// returns nil or an error that says what is missing. It is for the health check
// of a container, in which there is no other program to ask with.
func Probe(ctx context.Context, addr string) error {
	if addr == "" {
		return errors.New("ask for readiness: there is no monitor to ask; set MONITOR to its address")
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("ask for readiness: monitor %q is no host:port: %w", addr, err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost" // it listens everywhere
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return fmt.Errorf("ask for readiness: %w", err)
	}
	// No proxy of the environment, no connection kept.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask for readiness: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, probeBytes))
	if err != nil {
		return fmt.Errorf("ask for readiness: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s: %s", resp.Status, strings.Join(strings.Fields(string(body)), " "))
	}
	return nil
}
