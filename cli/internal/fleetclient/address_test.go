package fleetclient

import (
	"errors"
	"net/http"
	"testing"
	"time"
)

func TestOnlyLoopback(t *testing.T) {
	for name, test := range map[string]struct {
		address string
		ok      bool
	}{
		"loopback":              {"127.0.0.1:80", true},
		"version 6":             {"[::1]:80", true},
		"mapped into version 6": {"[::ffff:127.0.0.1]:80", true},
		"another machine":       {"192.0.2.1:80", false},
		"another, version 6":    {"[2001:db8::1]:80", false},
		"a zone":                {"[fe80::1%eth0]:80", false},
	} {
		t.Run(name, func(t *testing.T) {
			err := onlyLoopback(t.Context(), "tcp", test.address, nil)
			if (err == nil) != test.ok || err != nil && !errors.Is(err, ErrRemote) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// The check is made when connecting, whatever name the address came from.
func TestDialChecks(t *testing.T) {
	c, err := New(Config{URL: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	conn, err := c.http.Transport.(*http.Transport).DialContext(t.Context(), "tcp", "192.0.2.1:80")
	if err == nil {
		conn.Close()
	}
	if !errors.Is(err, ErrRemote) || Transient(err) || Reason(err) != "remote" {
		t.Errorf("got %v", err)
	}
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, test := range map[string]struct {
		value string
		want  time.Duration
	}{
		"none":        {"", 0},
		"seconds":     {"7", 7 * time.Second},
		"no time":     {"0", 0},
		"negative":    {"-5", 0},
		"too long":    {"86400", maxRetryAfter},
		"a date":      {now.Add(9 * time.Second).Format(http.TimeFormat), 9 * time.Second},
		"a past date": {now.Add(-time.Hour).Format(http.TimeFormat), 0},
		"a far date":  {now.Add(time.Hour).Format(http.TimeFormat), maxRetryAfter},
		"nonsense":    {"soon", 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := parseRetryAfter(test.value, now); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}
