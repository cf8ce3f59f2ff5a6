package webhook

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestCheck(t *testing.T) {
	s := &Sender{cfg: Config{Hosts: []string{"hooks.example.org", "*.grader.example", "10.0.0.5"}}}
	open := &Sender{cfg: Config{Hosts: []string{"localhost"}, Private: true}}
	for _, c := range []struct {
		s    *Sender
		url  string
		want string // "" for fine
	}{
		{s, "https://hooks.example.org/x?y=1", ""},
		{s, "https://HOOKS.example.org.:8443/", ""},
		{s, "https://a.b.grader.example/", ""},
		{s, "https://10.0.0.5/", ""}, // named by the operator; not connected to unless permitted
		{s, "https://grader.example/", "is not one"},
		{s, "https://evilgrader.example/", "is not one"},
		{s, "https://hooks.example.org.evil.example/", "is not one"},
		{s, "https://hooks.example.org@evil.example/", "user name"},
		{s, "http://hooks.example.org/", "https"},
		{s, "file:///etc/passwd", "https"},
		{s, "https://", "a host"},
		{s, "https://%zz/", "want a URL"},
		{s, "https://169.254.169.254/latest", "is not one"},
		{open, "http://localhost:8000/", ""},
		{open, "ftp://localhost/", "https"},
	} {
		err := c.s.Check(c.url)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.url, err, c.want)
		}
	}
}

func TestPublic(t *testing.T) {
	for _, a := range []string{
		"127.0.0.1", "::1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "fe80::1", "fd00::1", "0.0.0.0", "::",
		"100.64.0.1", "224.0.0.1", "255.255.255.255", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "198.18.0.1",
	} {
		if public(netip.MustParseAddr(a)) {
			t.Errorf("%s counts as public", a)
		}
	}
	for _, a := range []string{"1.1.1.1", "2606:4700::1111", "93.184.216.34"} {
		if !public(netip.MustParseAddr(a)) {
			t.Errorf("%s counts as not public", a)
		}
	}
}

// What a name resolves to is checked when it is connected to.
func TestLoopbackIsNotConnectedTo(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was asked") }))
	defer server.Close()
	client := &http.Client{Transport: transport(false)}
	url := strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
	if resp, err := client.Get(url); err == nil || !strings.Contains(err.Error(), "no public address") {
		if err == nil {
			resp.Body.Close()
		}
		t.Errorf("connected to loopback: %v", err)
	}
}

func TestSign(t *testing.T) {
	// By OpenSSL: printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac key
	want := "t=1700000000,v1=a438e398bfafc57e4396bb7fc2304422f0f768e965d073ca313cb52e22e6ad03"
	if got := Sign("key", time.Unix(1700000000, 0), []byte(`{"a":1}`)); got != want {
		t.Errorf("signature %s, want %s", got, want)
	}
}

func TestWaitsGrow(t *testing.T) {
	s := &Sender{firstWait: firstWait}
	for attempts, most := range map[uint64]time.Duration{1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 12: lastWait, 1000: lastWait} {
		for range 20 {
			if w := s.wait(attempts); w < most/2 || w > most {
				t.Errorf("after %d attempts: %v, want %v to %v", attempts, w, most/2, most)
			}
		}
	}
}
