package fleetclient

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
)

// ErrRemote is in the chain of the error for a server that isn't on this
// machine, where that wasn't allowed. Nothing was sent.
var ErrRemote = errors.New("load goes to loopback only")

// parseBase checks a server's URL and returns it without a trailing slash.
func parseBase(raw string, allowRemote bool) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", fmt.Errorf("parse server URL: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return "", fmt.Errorf("server URL %q: want http://host:port or https://host:port", raw)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("server URL %q: it can't carry a user, a query or a fragment", u.Redacted())
	}
	if !allowRemote && !isLoopbackName(u.Hostname()) {
		return "", fmt.Errorf("server URL %q: %w; use 127.0.0.1, [::1] or localhost, or pass --allow-remote", raw, ErrRemote)
	}
	return strings.TrimRight(u.String(), "/"), nil
}

// isLoopbackName takes no name but localhost: any other would have to be
// looked up, which already leaves the machine.
func isLoopbackName(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// onlyLoopback refuses a connection to an address elsewhere, whatever name it
// came from: a hosts file can point localhost anywhere.
func onlyLoopback(_ context.Context, _, address string, _ syscall.RawConn) error {
	addr, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("parse address %q: %w", address, err)
	}
	if !addr.Addr().Unmap().IsLoopback() {
		return fmt.Errorf("connect to %s: %w", address, ErrRemote)
	}
	return nil
}
