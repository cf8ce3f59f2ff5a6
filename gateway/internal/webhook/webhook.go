// Package webhook tells callers' servers that their jobs have ended. What is to
// be told waits in a stream, so that it outlives any gateway; whichever gateway
// is free takes the next.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gradefleet/gradefleet/shared/kept"
	"github.com/gradefleet/gradefleet/shared/protocol"
	"github.com/gradefleet/gradefleet/shared/secret"
)

const (
	// attemptTimeout bounds one delivery, from the look-up of the host's address
	// to the end of the answer's headers.
	attemptTimeout = 10 * time.Second
	// ackWait is after how long another gateway takes a webhook over.
	ackWait = 3 * attemptTimeout
	// concurrency is how many are delivered at a time.
	concurrency = 8
	// pullHeartbeat is how often the server says that it has no webhook. The client
	// forgets to ask again if a few come before it has noted that it asked, and so
	// it notices soon.
	pullHeartbeat = 2 * time.Second
	// firstWait and lastWait bound the wait before the next attempt; it doubles.
	firstWait = time.Second
	lastWait  = 5 * time.Minute
	// recordWait is when a job is looked at again that has not ended yet: its
	// webhook is queued just before its end.
	recordWait = time.Second
	// reopenWait is the pause before the stream is asked again after an error.
	reopenWait = time.Second
	// drainBytes is how much of an answer is read, so that its connection can be
	// used again, bytes.
	drainBytes = 4 << 10
)

// Headers of a webhook.
const (
	headerSignature = "X-Gradefleet-Signature"
	headerJob       = "X-Gradefleet-Job"
	headerAttempt   = "X-Gradefleet-Attempt"
)

// Config of webhooks.
type Config struct {
	JS      jetstream.JetStream
	Records interface {
		Get(ctx context.Context, job string) (kept.Record, error)
	}
	// Encode is the JSON of a job, the body of the webhook.
	Encode func(protocol.Kept) ([]byte, error)
	// Hosts are those that may be told: names, or *.example.org for all below.
	Hosts []string
	// Private permits addresses that are not public, and plain HTTP.
	Private bool
	Secret  secret.String
	// Retry is how long a webhook is sent again.
	Retry      time.Duration
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Sender delivers webhooks.
type Sender struct {
	cfg       Config
	http      *http.Client
	consumer  jetstream.Consumer
	sent      *prometheus.CounterVec
	now       func() time.Time
	firstWait time.Duration // tests shorten it
}

// How an attempt ended.
const (
	delivered = "delivered"
	failed    = "failed"   // and is tried again
	givenUp   = "given_up" // for good
)

// New returns a sender; Run delivers.
func New(ctx context.Context, cfg Config) (*Sender, error) {
	s := &Sender{cfg: cfg, now: time.Now, firstWait: firstWait, sent: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gradefleet_webhooks_total", Help: "Attempts of this gateway to deliver a webhook, by outcome.",
	}, []string{"outcome"})}
	for _, outcome := range []string{delivered, failed, givenUp} {
		s.sent.WithLabelValues(outcome) // shown as 0 from the start
	}
	if err := cfg.Registerer.Register(s.sent); err != nil {
		return nil, fmt.Errorf("register metrics of webhooks: %w", err)
	}
	s.http = &http.Client{
		Timeout:   attemptTimeout,
		Transport: transport(cfg.Private),
		// A redirect could lead anywhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	var err error
	s.consumer, err = cfg.JS.CreateOrUpdateConsumer(ctx, protocol.HooksStream, jetstream.ConsumerConfig{
		Durable: protocol.HooksConsumer, AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait, MaxDeliver: -1, MaxAckPending: -1,
	})
	if err != nil {
		return nil, fmt.Errorf("create consumer %s: %w", protocol.HooksConsumer, err)
	}
	return s, nil
}

// Run delivers webhooks until ctx is done; those under way are finished.
func (s *Sender) Run(ctx context.Context) {
	defer s.http.CloseIdleConnections()
	var under sync.WaitGroup
	defer under.Wait()
	free := make(chan struct{}, concurrency)
	for ctx.Err() == nil {
		if err := s.take(ctx, free, &under); err != nil && ctx.Err() == nil {
			s.cfg.Log.Warn("webhooks not taken; trying again", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(reopenWait):
			}
		}
	}
}

// take takes webhooks for as long as that goes well.
func (s *Sender) take(ctx context.Context, free chan struct{}, under *sync.WaitGroup) error {
	messages, err := s.consumer.Messages(jetstream.PullMaxMessages(concurrency), jetstream.PullHeartbeat(pullHeartbeat))
	if err != nil {
		return fmt.Errorf("pull webhooks: %w", err)
	}
	defer messages.Stop()
	defer context.AfterFunc(ctx, messages.Stop)()
	for {
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		msg, err := messages.Next()
		if err != nil {
			<-free
			return fmt.Errorf("pull webhooks: %w", err)
		}
		under.Go(func() {
			defer func() { <-free }()
			// One that has begun is finished while the gateway stops.
			s.handle(context.WithoutCancel(ctx), msg)
		})
	}
}

// handle makes one attempt.
func (s *Sender) handle(ctx context.Context, msg jetstream.Msg) {
	job := protocol.LastToken(msg.Subject())
	meta, err := msg.Metadata()
	if err != nil {
		s.cfg.Log.Error("webhook can't be read", "job", job, "error", err)
		_ = msg.Term()
		return
	}
	log := s.cfg.Log.With("job", job, "attempt", meta.NumDelivered)
	r, err := s.cfg.Records.Get(ctx, job)
	late := s.now().Sub(meta.Timestamp) > s.cfg.Retry
	switch {
	case errors.Is(err, kept.ErrNone), err == nil && r.Webhook == "":
		_ = msg.Term() // forgotten, with all that could be told
		return
	case err != nil || !r.State.Final():
		if late {
			_ = msg.Term()
			return
		}
		_ = msg.NakWithDelay(recordWait)
		return
	}
	err = s.send(ctx, r.Kept, meta.NumDelivered)
	switch {
	case err == nil:
		s.sent.WithLabelValues(delivered).Inc()
		log.Debug("webhook delivered")
		_ = msg.Ack()
	case errors.Is(err, errFinal) || late:
		s.sent.WithLabelValues(givenUp).Inc()
		log.Warn("webhook given up", "error", err)
		_ = msg.Term()
	default:
		s.sent.WithLabelValues(failed).Inc()
		wait := s.wait(meta.NumDelivered)
		log.Info("webhook not delivered", "error", err, "again_in", wait)
		_ = msg.NakWithDelay(wait)
	}
}

// wait is how long to wait after so many attempts: twice as long each time, and
// not all at the same time.
func (s *Sender) wait(attempts uint64) time.Duration {
	wait := lastWait
	if attempts < 16 {
		wait = min(s.firstWait<<(attempts-1), lastWait)
	}
	return wait/2 + rand.N(wait/2+1)
}

// errFinal is in the chain of the error of a webhook that is never going to be taken.
var errFinal = errors.New("not to be sent again")

// send posts a job to its webhook.
func (s *Sender) send(ctx context.Context, k protocol.Kept, attempt uint64) error {
	if err := s.Check(k.Webhook); err != nil { // the settings may have changed
		return fmt.Errorf("%w: %w", err, errFinal)
	}
	body, err := s.cfg.Encode(k)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errFinal)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, k.Webhook, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make webhook: %w: %w", err, errFinal)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "gradefleet-webhook/1")
	r.Header.Set(headerJob, k.Job)
	r.Header.Set(headerAttempt, strconv.FormatUint(attempt, 10))
	r.Header.Set(headerSignature, Sign(s.cfg.Secret.Reveal(), s.now(), body))
	resp, err := s.http.Do(r)
	if err != nil {
		return fmt.Errorf("post webhook: %w", err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, drainBytes)
	switch {
	case resp.StatusCode >= 200 && resp.StatusCode < 300:
		return nil
	case resp.StatusCode == http.StatusGone:
		return fmt.Errorf("the receiver answered %d: %w", resp.StatusCode, errFinal)
	}
	return fmt.Errorf("the receiver answered %d", resp.StatusCode)
}

// Sign returns the signature of a body sent at a time: "t=" and the time in Unix
// seconds, ",v1=" and the HMAC-SHA256, in hexadecimal, of that number, a dot and
// the body.
func Sign(key string, at time.Time, body []byte) string {
	t := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(t + "."))
	mac.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}
