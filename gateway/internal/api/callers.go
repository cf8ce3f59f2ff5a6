package api

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// callersWindow is what the requests of callers are counted over.
	callersWindow = time.Minute
	// callersShown bounds the label: so many series there are at a time.
	callersShown = 10
	// callersTracked bounds the memory of a window, about 100 bytes a caller.
	callersTracked = 10_000
	// otherCallers stands for those that came when callersTracked were known.
	otherCallers = "other"
)

// callers counts requests by caller, so that a flood has a name. Its metric
// shows the busiest of the last full window only: a counter for each address
// would grow without bound.
type callers struct {
	now func() time.Time

	mu     sync.Mutex
	start  time.Time      // of the window that is counted
	counts map[string]int // of that window
	last   []callerCount  // of the full one before, the busiest first
}

type callerCount struct {
	caller   string
	requests int
}

func newCallers(now func() time.Time) *callers {
	return &callers{now: now, start: now(), counts: map[string]int{}}
}

// count adds a request of a caller, as callerName or keyName names it.
func (c *callers) count(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turn()
	if _, known := c.counts[name]; !known && len(c.counts) >= callersTracked {
		name = otherCallers
	}
	c.counts[name]++
}

// busiest returns the callers of the last full window with most requests.
func (c *callers) busiest() []callerCount {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.turn()
	return c.last
}

// turn begins a new window when the old one is over. Called with the lock held.
func (c *callers) turn() {
	now := c.now()
	windows := now.Sub(c.start) / callersWindow
	if windows < 1 {
		return
	}
	c.last = nil
	if windows == 1 { // else the last full one had no request at all
		for name, n := range c.counts {
			c.last = append(c.last, callerCount{name, n})
		}
		slices.SortFunc(c.last, func(a, b callerCount) int {
			return cmp.Or(cmp.Compare(b.requests, a.requests), cmp.Compare(a.caller, b.caller))
		})
		c.last = slices.Clip(c.last[:min(len(c.last), callersShown)])
	}
	c.start = c.start.Add(windows * callersWindow)
	clear(c.counts)
}

// callerName is who counts as one caller: an IPv4 address, or a network of 64
// bits in IPv6, of which one machine has as many addresses as it likes.
func callerName(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return "unknown"
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	network, err := ip.Prefix(64)
	if err != nil {
		return "unknown"
	}
	return network.String()
}

// keyName is who counts as one caller by a key: the start of its digest, which
// names it in logs and metrics and gives nothing away.
func keyName(digest [sha256.Size]byte) string { return "key:" + hex.EncodeToString(digest[:4]) }

var callerDesc = prometheus.NewDesc("gradefleet_http_caller_requests",
	"Requests in the last full minute of the 10 callers that sent most, by API key or address (IPv6: by /64).",
	[]string{"caller"}, nil)

// Describe implements prometheus.Collector.
func (*callers) Describe(ch chan<- *prometheus.Desc) { ch <- callerDesc }

// Collect implements prometheus.Collector.
func (c *callers) Collect(ch chan<- prometheus.Metric) {
	for _, b := range c.busiest() {
		ch <- prometheus.MustNewConstMetric(callerDesc, prometheus.GaugeValue, float64(b.requests), b.caller)
	}
}
