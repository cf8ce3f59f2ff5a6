// Package bus connects to NATS and makes sure that the stream, the consumers
// and the buckets of the fleet exist. It knows their settings and nothing of
// what travels on them.
package bus

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/gradefleet/gradefleet/shared/secret"
)

// Config says how to reach an external NATS. The tags are the one definition
// of flags and environment variables; see docs/configuration.md.
type Config struct {
	URL       string        `name:"nats-url" env:"NATS_URL" placeholder:"URL" help:"NATS servers, comma separated (nats://host:4222, tls://…, ws://…). Empty: 'up' embeds one, the separate binaries refuse."`
	User      string        `name:"nats-user" env:"NATS_USER" help:"NATS user name."`
	Password  secret.String `name:"nats-password" env:"NATS_PASSWORD" help:"NATS password."`
	Token     secret.String `name:"nats-token" env:"NATS_TOKEN" help:"NATS token."`
	CredsFile string        `name:"nats-creds" env:"NATS_CREDS" type:"path" help:"NATS credentials file (JWT and seed)."`
	CAFile    string        `name:"nats-ca" env:"NATS_CA" type:"path" help:"PEM file of the authorities that sign the NATS servers' certificates."`
	CertFile  string        `name:"nats-cert" env:"NATS_CERT" type:"path" help:"PEM client certificate for NATS."`
	KeyFile   string        `name:"nats-key" env:"NATS_KEY" type:"path" help:"PEM key of the client certificate."`
	Replicas  int           `name:"nats-replicas" env:"NATS_REPLICAS" default:"1" help:"Copies that JetStream keeps of jobs and sessions: 1, 3 or 5."`
	Store     int64         `name:"nats-store-bytes" env:"NATS_STORE_BYTES" default:"0" help:"What contents of sessions' files may take up in NATS, bytes; then writes are answered 507. Less than the server's file store, so that jobs find room. 0: as it is set, or no limit of its own."`
	Wait      time.Duration `name:"nats-wait" env:"NATS_WAIT" default:"30s" help:"How long to wait at start for NATS to be reachable."`
}

// Validate checks the settings against each other.
func (c Config) Validate() error {
	var errs []error
	if (c.CertFile == "") != (c.KeyFile == "") {
		errs = append(errs, errors.New("nats-cert and nats-key go together: give both or neither"))
	}
	if c.Password != "" && c.User == "" {
		errs = append(errs, errors.New("nats-password needs nats-user"))
	}
	ways := 0
	for _, set := range []bool{c.User != "", c.Token != "", c.CredsFile != ""} {
		if set {
			ways++
		}
	}
	if ways > 1 {
		errs = append(errs, errors.New("give one of nats-user, nats-token and nats-creds"))
	}
	if r := c.Replicas; r != 0 && r != 1 && r != 3 && r != 5 {
		errs = append(errs, fmt.Errorf("nats-replicas is %d: use 1, 3 or 5", r))
	}
	if c.Store < 0 {
		errs = append(errs, fmt.Errorf("nats-store-bytes is %d: use a number of bytes, or 0 for no limit", c.Store))
	}
	return errors.Join(errs...)
}

// Connect connects to the NATS that c names and keeps reconnecting for as long
// as the connection is open. name shows in NATS' own monitoring. It waits up to
// c.Wait for the first connection.
func Connect(c Config, name string, log *slog.Logger, extra ...nats.Option) (*nats.Conn, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	opts := []nats.Option{
		nats.Name(name),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, 250*time.Millisecond),
		nats.PingInterval(5 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.ReconnectBufSize(-1), // a publish while cut off is an error, not a surprise later
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("nats disconnected", "error", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) { log.Info("nats reconnected", "server", nc.ConnectedUrlRedacted()) }),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			log.Warn("nats error", "error", err, "subject", subject)
		}),
	}
	if c.User != "" {
		opts = append(opts, nats.UserInfo(c.User, c.Password.Reveal()))
	}
	if c.Token != "" {
		opts = append(opts, nats.Token(c.Token.Reveal()))
	}
	if c.CredsFile != "" {
		opts = append(opts, nats.UserCredentials(c.CredsFile))
	}
	if c.CAFile != "" || c.CertFile != "" {
		// First, since it replaces the TLS settings of the options before it.
		opts = append(opts, nats.Secure(&tls.Config{MinVersion: tls.VersionTLS12}))
	}
	if c.CAFile != "" {
		opts = append(opts, nats.RootCAs(c.CAFile))
	}
	if c.CertFile != "" {
		opts = append(opts, nats.ClientCert(c.CertFile, c.KeyFile))
	}
	opts = append(opts, extra...)
	return dial(c, log, opts)
}

// dial tries until the server answers or c.Wait is over: in a cluster that
// starts all at once, NATS may be the last to come up. A refused login is final.
func dial(c Config, log *slog.Logger, opts []nats.Option) (*nats.Conn, error) {
	deadline := time.Now().Add(c.Wait)
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		nc, err := nats.Connect(c.URL, opts...)
		if err == nil {
			return nc, nil
		}
		if errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) || time.Now().Add(wait).After(deadline) {
			return nil, fmt.Errorf("connect to NATS: %w", err)
		}
		log.Info("waiting for NATS", "error", err, "retry_in", wait)
		time.Sleep(wait)
	}
}
