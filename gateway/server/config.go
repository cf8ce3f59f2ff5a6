// Package server is the composition root of the gateway: its configuration,
// what it is made of, and the order in which that starts and stops. The gateway
// binary and the all-in-one command both go through it.
package server

import (
	"crypto/rand"
	"crypto/sha256"
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
	"github.com/gradefleet/gradefleet/shared/secret"
)

// Config of a gateway. The tags are the one definition of flags, environment
// variables, defaults and help. Everywhere, a zero means the default.
type Config struct {
	Listen []string `name:"listen" env:"LISTEN" default:"127.0.0.1:6000,127.0.0.1:8080" help:"Addresses (host:port) to serve the API on, comma separated; all serve the same. Browsers refuse port 6000."`
	ID     string   `name:"gateway-id" env:"GRADEFLEET_GATEWAY_ID" help:"Name of this gateway in the fleet, 1 to 64 of A-Z a-z 0-9 _ -; no other may have it. Empty: the host's name with a random end."`

	TrustedProxies []string `name:"trusted-proxies" env:"GRADEFLEET_TRUSTED_PROXIES" help:"Addresses or networks (10.0.0.0/8), comma separated, of proxies in front of the gateway: their X-Forwarded-For says who the caller is, for metrics and logs. Empty: the caller is who connects."`

	JobDeadline  time.Duration `name:"job-deadline" env:"GRADEFLEET_JOB_DEADLINE" default:"300s" help:"How long a caller waits for an evaluate or a run, time in the queue included; then it is cancelled and answered 504. At most 30m. 0: the default."`
	FileDeadline time.Duration `name:"file-deadline" env:"GRADEFLEET_FILE_DEADLINE" default:"30s" help:"How long a caller waits for a file operation or a fork; then it is answered 504. 0: the default."`
	QueueLimit   int64         `name:"queue-limit" env:"GRADEFLEET_QUEUE_LIMIT" default:"10000" help:"Jobs that one queue (the shared one, or one worker's own) holds, waiting and running, and asynchronous jobs of one caller that wait for their turns; more are answered 429. The gateway that started last sets it for all. 0: the default."`
	BacklogLimit int64         `name:"backlog-limit" env:"GRADEFLEET_BACKLOG_LIMIT" default:"0" help:"Asynchronous jobs of all callers that wait for their turns; more are answered 429. No less than queue-limit, which is that of one caller. The gateway that started last sets it for all. 0: ten times queue-limit."`
	BacklogBytes int64         `name:"backlog-bytes" env:"GRADEFLEET_BACKLOG_BYTES" default:"1073741824" help:"What these may take up in NATS, bytes; more are answered 429. One caller has the same part of it as of the jobs, a tenth by default. No less than one job may need. Less where NATS has less room. 0: the default."`
	MaxBody      int64         `name:"max-body" env:"GRADEFLEET_MAX_BODY" default:"8388608" help:"Largest request body, in bytes; larger ones are answered 413. A NATS server that carries less lowers it. 0: the default."`

	AsyncDeadline   time.Duration `name:"async-deadline" env:"GRADEFLEET_ASYNC_DEADLINE" default:"20m" help:"How long an asynchronous job may wait in the queue to be begun; then it is answered 504. At most 30m. 0: the default."`
	ResultRetention time.Duration `name:"result-retention" env:"GRADEFLEET_RESULT_RETENTION" default:"1h" help:"How long asynchronous jobs, answers under an idempotency key, and their results are kept after their last change. No less than async-deadline and job-deadline. The gateway that started last sets it for all. 0: the default."`
	ResultBytes     int64         `name:"result-bytes" env:"GRADEFLEET_RESULT_BYTES" default:"1073741824" help:"What all of these may take up in NATS, bytes; beyond it the oldest are forgotten. Less where NATS has less room. 0: the default."`

	APIKeys        []secret.String `name:"api-keys" env:"GRADEFLEET_API_KEYS" help:"Keys that callers must send one of (X-API-Key, or Authorization: Bearer), comma separated. Empty, and no api-keys-file: no key is needed; one that is sent tells callers apart."`
	APIKeysFile    string          `name:"api-keys-file" env:"GRADEFLEET_API_KEYS_FILE" type:"path" help:"File with such keys, one a line; lines that begin with # don't count. Read at start."`
	CallerInflight int             `name:"caller-inflight" env:"GRADEFLEET_CALLER_INFLIGHT" default:"2000" help:"Requests of one caller (API key or address) that may be under way in this gateway; more are answered 429. A batch is one. 0: the default; -1: no limit."`
	CallerRate     float64         `name:"caller-rate" env:"GRADEFLEET_CALLER_RATE" default:"0" help:"Requests a second, on average, of one caller in this gateway; more are answered 429. A batch counts by its lines, which wait instead. 0: no limit."`
	CallerBurst    int             `name:"caller-burst" env:"GRADEFLEET_CALLER_BURST" default:"0" help:"Requests that a caller may send at once after a pause, if caller-rate is set. 0: two seconds' worth."`
	WaitingLimit   int             `name:"waiting-limit" env:"GRADEFLEET_WAITING_LIMIT" default:"10000" help:"Jobs that may wait in this gateway for their caller's turn; more are answered 429. 0: the default."`
	BufferBytes    int64           `name:"buffer-bytes" env:"GRADEFLEET_BUFFER_BYTES" default:"1073741824" help:"What bodies of requests under way may take up in this gateway, bytes; more are answered 429. 0: the default."`
	BatchWindow    int             `name:"batch-window" env:"GRADEFLEET_BATCH_WINDOW" default:"256" help:"Lines of one batch that may be unanswered; no more are read until some are. 0: the default."`
	BatchBytes     int64           `name:"batch-bytes" env:"GRADEFLEET_BATCH_BYTES" default:"67108864" help:"What these and their answers may take up, bytes. 0: the default."`

	WebhookHosts   []string      `name:"webhook-hosts" env:"GRADEFLEET_WEBHOOK_HOSTS" help:"Hosts that webhooks may go to, comma separated: names, or *.example.org for all below. Empty: no webhooks."`
	WebhookSecret  secret.String `name:"webhook-secret" env:"GRADEFLEET_WEBHOOK_SECRET" help:"Secret that webhooks are signed with (HMAC-SHA256); needed with webhook-hosts."`
	WebhookPrivate bool          `name:"webhook-private" env:"GRADEFLEET_WEBHOOK_PRIVATE" help:"Permit webhooks to loopback, private and link-local addresses, and without TLS."`
	WebhookRetry   time.Duration `name:"webhook-retry" env:"GRADEFLEET_WEBHOOK_RETRY" default:"1h" help:"How long a webhook that isn't taken is sent again, with growing waits. At most 12h. 0: the default."`

	ReadHeaderTimeout time.Duration `name:"read-header-timeout" env:"GRADEFLEET_READ_HEADER_TIMEOUT" default:"10s" help:"How long a caller may take to send a request's headers. 0: the default."`
	ReadTimeout       time.Duration `name:"read-timeout" env:"GRADEFLEET_READ_TIMEOUT" default:"60s" help:"How long a caller may take to send a whole request; then it is answered 408. 0: the default."`
	WriteTimeout      time.Duration `name:"write-timeout" env:"GRADEFLEET_WRITE_TIMEOUT" default:"60s" help:"How long a caller may take to receive an answer. 0: the default."`
	IdleTimeout       time.Duration `name:"idle-timeout" env:"GRADEFLEET_IDLE_TIMEOUT" default:"120s" help:"How long a connection without a request is kept open. 0: the default."`
	DrainTimeout      time.Duration `name:"drain-timeout" env:"GRADEFLEET_DRAIN_TIMEOUT" default:"30s" help:"How long requests under way may go on after SIGTERM; then they are answered 503, commands 502. 0: the default."`
}

// maxMaxBody is the largest MaxBody: what our own NATS servers carry.
const maxMaxBody = protocol.MaxMessageBytes - protocol.MessageOverheadBytes

// maxWebhookRetry is the longest WebhookRetry: NATS keeps webhooks for a day.
const maxWebhookRetry = 12 * time.Hour

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
		{&c.AsyncDeadline, 20 * time.Minute},
		{&c.ResultRetention, bus.DefaultRetention},
		{&c.WebhookRetry, time.Hour},
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
	for _, n := range []struct {
		value *int64
		usual int64
	}{{&c.BacklogBytes, bus.DefaultBacklogBytes}, {&c.ResultBytes, bus.DefaultKeptBytes}, {&c.BufferBytes, 1 << 30}, {&c.BatchBytes, 64 << 20}} {
		if *n.value == 0 {
			*n.value = n.usual
		}
	}
	for _, n := range []struct {
		value *int
		usual int
	}{{&c.CallerInflight, 2000}, {&c.WaitingLimit, 10_000}, {&c.BatchWindow, 256}} {
		if *n.value == 0 {
			*n.value = n.usual
		}
	}
	return c
}

// backlogLimit is BacklogLimit, or what stands for its zero.
func (c Config) backlogLimit() int64 {
	if c.BacklogLimit != 0 {
		return c.BacklogLimit
	}
	return bus.BacklogShares * c.QueueLimit
}

// burst is CallerBurst, or what stands for its zero.
func (c Config) burst() int {
	if c.CallerBurst > 0 {
		return c.CallerBurst
	}
	return max(int(2*c.CallerRate), 1)
}

// BusSettings are what the stream and the buckets are made with.
func (c Config) BusSettings(replicas int) bus.Settings {
	c = c.WithDefaults()
	return bus.Settings{
		QueueLimit: c.QueueLimit, BacklogLimit: c.backlogLimit(), BacklogBytes: c.BacklogBytes,
		Retention: c.ResultRetention, KeptBytes: c.ResultBytes, Replicas: replicas,
	}
}

// keys returns the digests of the API keys.
func (c Config) keys() (map[[sha256.Size]byte]struct{}, error) {
	keys := map[[sha256.Size]byte]struct{}{}
	for _, key := range c.APIKeys {
		keys[sha256.Sum256([]byte(key.Reveal()))] = struct{}{}
	}
	if c.APIKeysFile == "" {
		return keys, nil
	}
	text, err := os.ReadFile(c.APIKeysFile)
	if err != nil {
		return nil, fmt.Errorf("read api-keys-file: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			keys[sha256.Sum256([]byte(line))] = struct{}{}
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("api-keys-file: %s has no key: nobody could be let in", c.APIKeysFile)
	}
	return keys, nil
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
	for i, key := range c.APIKeys {
		if strings.TrimSpace(key.Reveal()) == "" {
			errs = append(errs, fmt.Errorf("api-keys: key %d of %d is empty; leave out the comma, or the setting", i+1, len(c.APIKeys)))
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
		{"job-deadline", c.JobDeadline}, {"file-deadline", c.FileDeadline}, {"async-deadline", c.AsyncDeadline},
		{"result-retention", c.ResultRetention}, {"webhook-retry", c.WebhookRetry}, {"read-header-timeout", c.ReadHeaderTimeout},
		{"read-timeout", c.ReadTimeout}, {"write-timeout", c.WriteTimeout}, {"idle-timeout", c.IdleTimeout}, {"drain-timeout", c.DrainTimeout},
	} {
		if d.value < 0 {
			errs = append(errs, fmt.Errorf("%s is %v: use a time above 0, or 0 for the default", d.name, d.value))
		}
	}
	if c.JobDeadline > protocol.JobMaxAge {
		errs = append(errs, fmt.Errorf("job-deadline is %v: a queue keeps a job for %v at most, use less", c.JobDeadline, protocol.JobMaxAge))
	}
	if c.AsyncDeadline > protocol.JobMaxAge {
		errs = append(errs, fmt.Errorf("async-deadline is %v: a queue keeps a job for %v at most, use less", c.AsyncDeadline, protocol.JobMaxAge))
	}
	if c.ResultRetention < max(c.AsyncDeadline, c.JobDeadline) && c.ResultRetention > 0 {
		errs = append(errs, fmt.Errorf("result-retention is %v: jobs may wait for longer (async-deadline %v, job-deadline %v), use more", c.ResultRetention, c.AsyncDeadline, c.JobDeadline))
	}
	if c.WebhookRetry > maxWebhookRetry {
		errs = append(errs, fmt.Errorf("webhook-retry is %v: use %v at most", c.WebhookRetry, maxWebhookRetry))
	}
	if len(c.WebhookHosts) > 0 && c.WebhookSecret == "" {
		errs = append(errs, errors.New("webhook-hosts needs webhook-secret: receivers must be able to tell that a webhook is ours"))
	}
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"backlog-bytes", c.BacklogBytes}, {"result-bytes", c.ResultBytes}, {"buffer-bytes", c.BufferBytes}, {"batch-bytes", c.BatchBytes}, {"waiting-limit", int64(c.WaitingLimit)},
		{"batch-window", int64(c.BatchWindow)}, {"caller-burst", int64(c.CallerBurst)}, {"caller-inflight", int64(c.CallerInflight) + 1},
	} {
		if n.value < 0 {
			errs = append(errs, fmt.Errorf("%s is %d: use a number above 0, or 0 for the default", n.name, n.value))
		}
	}
	if c.CallerRate < 0 {
		errs = append(errs, fmt.Errorf("caller-rate is %g: use a number of requests a second, or 0 for no limit", c.CallerRate))
	}
	if c.QueueLimit < 0 {
		errs = append(errs, fmt.Errorf("queue-limit is %d: use a number of jobs above 0, or 0 for the default", c.QueueLimit))
	}
	if c.backlogLimit() < c.QueueLimit {
		errs = append(errs, fmt.Errorf("backlog-limit is %d: one caller may have %d (queue-limit), use no less, or 0 for ten times that", c.BacklogLimit, c.QueueLimit))
	}
	if least := c.MaxBody + protocol.MessageOverheadBytes; c.BacklogBytes >= 0 && c.BacklogBytes < least {
		errs = append(errs, fmt.Errorf("backlog-bytes is %d: one job may need %d (max-body %d and headers), use no less", c.BacklogBytes, least, c.MaxBody))
	}
	if c.MaxBody < 0 || c.MaxBody > maxMaxBody {
		errs = append(errs, fmt.Errorf("max-body is %d: use 1 to %d bytes, or 0 for the default", c.MaxBody, maxMaxBody))
	}
	return errors.Join(errs...)
}
