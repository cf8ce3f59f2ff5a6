package webhook

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// Check returns what is wrong with the URL of a webhook, for the caller to read.
func (s *Sender) Check(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return fmt.Errorf("want a URL, got %.100q", text)
	case u.Scheme != "https" && !(u.Scheme == "http" && s.cfg.Private):
		return fmt.Errorf("want an https URL, got %.100q", text)
	case u.User != nil:
		return fmt.Errorf("a URL with a user name or a password is not taken")
	case u.Hostname() == "":
		return fmt.Errorf("want a URL with a host, got %.100q", text)
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	for _, pattern := range s.cfg.Hosts {
		pattern = strings.ToLower(strings.TrimSpace(pattern))
		if below, ok := strings.CutPrefix(pattern, "*."); ok && strings.HasSuffix(host, "."+below) || host == pattern {
			return nil
		}
	}
	return fmt.Errorf("the host %.100q is not one that this server may tell", host)
}

// transport connects to public addresses only, unless private ones are permitted.
// The address is checked that is connected to, after the name was looked up: a
// name may resolve to anything, and to something else the next time.
func transport(private bool) *http.Transport {
	dialer := &net.Dialer{Timeout: attemptTimeout}
	if !private {
		dialer.Control = func(_, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil {
				return fmt.Errorf("connect to %s: %w", address, err)
			}
			if !public(ap.Addr()) {
				return fmt.Errorf("connect to %s: it is no public address", ap.Addr())
			}
			return nil
		}
	}
	return &http.Transport{
		DialContext:         dialer.DialContext, // no proxy: it would connect for us, unchecked
		TLSHandshakeTimeout: attemptTimeout, ResponseHeaderTimeout: attemptTimeout,
		MaxIdleConnsPerHost: 1, IdleConnTimeout: 30 * time.Second, MaxResponseHeaderBytes: 64 << 10,
		DisableCompression: true,
	}
}

// special are networks that are no one's public address, beside those that
// netip knows. Source: IANA's special-purpose address registries.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.88.99.0/24"), netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001::/23"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"),
	netip.MustParsePrefix("fec0::/10"),
}

// public reports whether an address is somebody's on the Internet.
func public(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if !a.IsGlobalUnicast() || a.IsPrivate() {
		return false
	}
	for _, p := range special {
		if p.Contains(a) {
			return false
		}
	}
	return true
}
