// Package server is the composition root of the gateway: its configuration,
// what it is made of, and the order in which that starts and stops. The gateway
// binary and the all-in-one command both go through it.
package server

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/gradefleet/gradefleet/shared/bus"
	"github.com/gradefleet/gradefleet/shared/protocol"
)

// Config of a gateway. The tags are the one definition of flags, environment
// variables, defaults and help. Everywhere, a zero means the default.
type Config struct {
	Listen []string `name:"listen" env:"LISTEN" default:"127.0.0.1:6000,127.0.0.1:8080" help:"Addresses (host:port) to serve the API on, comma separated; all serve the same. Browsers refuse port 6000."`
	ID     string   `name:"gateway-id" env:"GRADEFLEET_GATEWAY_ID" help:"Name of this gateway in the fleet, 1 to 64 of A-Z a-z 0-9 _ -; no other may have it. Empty: the host's name with a random end."`

	TrustedProxies []string `name:"trusted-proxies" env:"GRADEFLEET_TRUSTED_PROXIES" help:"Addresses or networks (10.0.0.0/8), comma separated, of proxies in front of the gateway: their X-Forwarded-For says who the caller is, for metrics and logs. Empty: the caller is who connects."`

	JobDeadline  time.Duration `name:"job-deadline" env:"GRADEFLEET_JOB_DEADLINE" default:"300s" help:"How long a caller waits for an evaluate or a run, time in the queue included; then it is cancelled and answered 504. At most 30m. 0: the default."`
	FileDeadline time.Duration `name:"file-deadline" env:"GRADEFLEET_FILE_DEADLINE" default:"30s" help:"How long a caller waits for a file operation or a fork; then it is answered 504. 0: the default."`
	QueueLimit   int64         `name:"queue-limit" env:"GRADEFLEET_QUEUE_LIMIT" default:"10000" help:"Jobs that one queue (the shared one, or one worker's own) holds, waiting and running; more are answered 429. The gateway that started last sets it for all. 0: the default."`
	MaxBody      int64         `name:"max-body" env:"GRADEFLEET_MAX_BODY" default:"8388608" help:"Largest request body, in bytes; larger ones are answered 413. A NATS server that carries less lowers it. 0: the default."`

	ReadHeaderTimeout time.Duration `name:"read-header-timeout" env:"GRADEFLEET_READ_HEADER_TIMEOUT" default:"10s" help:"How long a caller may take to send a request's headers. 0: the default."`
	ReadTimeout       time.Duration `name:"read-timeout" env:"GRADEFLEET_READ_TIMEOUT" default:"60s" help:"How long a caller may take to send a whole request; then it is answered 408. 0: the default."`
	WriteTimeout      time.Duration `name:"write-timeout" env:"GRADEFLEET_WRITE_TIMEOUT" default:"60s" help:"How long a caller may take to receive an answer. 0: the default."`
	IdleTimeout       time.Duration `name:"idle-timeout" env:"GRADEFLEET_IDLE_TIMEOUT" default:"120s" help:"How long a connection without a request is kept open. 0: the default."`
	DrainTimeout      time.Duration `name:"drain-timeout" env:"GRADEFLEET_DRAIN_TIMEOUT" default:"30s" help:"How long requests under way may go on after SIGTERM; then they are answered 503. 0: the default."`
}

// maxMaxBody is the largest MaxBody: what our own NATS servers carry.
const maxMaxBody = protocol.MaxMessageBytes - protocol.MessageOverheadBytes

// WithDefaults returns a copy with the defaults in place of zeros.
func (c Config) WithDefaults() Config {
	if len(c.Listen) == 0 {
		c.Listen = []string{"127.0.0.1:6000", "127.0.0.1:8080"}
	}
	if c.ID == "" {
		c.ID = randomID()
	}
	for _, d := range []struct {
		value *time.Duration
		usual time.Duration
	}{
		{&c.JobDeadline, 300 * time.Second},
		{&c.FileDeadline, 30 * time.Second},
		{&c.ReadHeaderTimeout, 10 * time.Second},
		{&c.ReadTimeout, time.Minute},
		{&c.WriteTimeout, time.Minute},
		{&c.IdleTimeout, 2 * time.Minute},
		{&c.DrainTimeout, 30 * time.Second},
	} {
		if *d.value == 0 {
			*d.value = d.usual
		}
	}
	if c.QueueLimit == 0 {
		c.QueueLimit = bus.DefaultQueueLimit
	}
	if c.MaxBody == 0 {
		c.MaxBody = protocol.MaxBodyBytes
	}
	return c
}

// randomID makes an id of the host's name, as far as one may have such
// characters, and a random end: two gateways on one host differ.
func randomID() string {
	host, err := os.Hostname()
	if err != nil {
		host = "gateway"
	}
	host = strings.Map(func(r rune) rune {
		if idByte(r) {
			return r
		}
		return '-'
	}, host)
	var end [4]byte
	rand.Read(end[:]) // never fails, see crypto/rand
	return host[:min(len(host), 48)] + "-" + hex.EncodeToString(end[:])
}

func idByte(r rune) bool {
	return r == '_' || r == '-' || '0' <= r && r <= '9' || 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z'
}

// Validate checks the settings, each and against each other, before anything
// is opened. Zeros are fine.
func (c Config) Validate() error {
	c = c.WithDefaults()
	var errs []error
	for _, addr := range c.Listen {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			errs = append(errs, fmt.Errorf("listen: %q is no host:port: %w", addr, err))
		}
	}
	for _, p := range c.TrustedProxies {
		if _, err := netip.ParseAddr(p); err == nil {
			continue
		}
		if _, err := netip.ParsePrefix(p); err != nil {
			errs = append(errs, fmt.Errorf("trusted-proxies: %q is no address and no network: %w", p, err))
		}
	}
	if len(c.ID) > 64 || strings.ContainsFunc(c.ID, func(r rune) bool { return !idByte(r) }) {
		errs = append(errs, fmt.Errorf("gateway-id is %q: use 1 to 64 of A-Z a-z 0-9 _ -", c.ID))
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"job-deadline", c.JobDeadline}, {"file-deadline", c.FileDeadline}, {"read-header-timeout", c.ReadHeaderTimeout},
		{"read-timeout", c.ReadTimeout}, {"write-timeout", c.WriteTimeout}, {"idle-timeout", c.IdleTimeout}, {"drain-timeout", c.DrainTimeout},
	} {
		if d.value < 0 {
			errs = append(errs, fmt.Errorf("%s is %v: use a time above 0, or 0 for the default", d.name, d.value))
		}
	}
	if c.JobDeadline > protocol.JobMaxAge {
		errs = append(errs, fmt.Errorf("job-deadline is %v: a queue keeps a job for %v at most, use less", c.JobDeadline, protocol.JobMaxAge))
	}
	if c.QueueLimit < 0 {
		errs = append(errs, fmt.Errorf("queue-limit is %d: use a number of jobs above 0, or 0 for the default", c.QueueLimit))
	}
	if c.MaxBody < 0 || c.MaxBody > maxMaxBody {
		errs = append(errs, fmt.Errorf("max-body is %d: use 1 to %d bytes, or 0 for the default", c.MaxBody, maxMaxBody))
	}
	return errors.Join(errs...)
}
