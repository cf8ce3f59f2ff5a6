package procs

import (
	"bufio"
	"bytes"
	"strconv"
	"strings"
	"sync"
)

// Totals sums counters over all processes and all their lives, as far as they
// were read before a life ended.
type Totals struct {
	fleet *Fleet
	names []string

	mu   sync.Mutex
	seen map[lifetime]map[string]float64
}

type lifetime struct {
	process string
	life    int
}

// NewTotals sums the counters of these names.
func NewTotals(f *Fleet, names ...string) *Totals {
	return &Totals{fleet: f, names: names, seen: map[lifetime]map[string]float64{}}
}

// Scrape reads the counters of every process that answers. Call it now and then.
func (t *Totals) Scrape() {
	for _, p := range t.fleet.All() {
		if p.Class == NATS {
			continue
		}
		at := lifetime{p.Name, p.Life()}
		body, err := t.fleet.get("http://" + p.Monitor + "/metrics")
		if err != nil || p.Life() != at.life {
			continue
		}
		sums := parse(body, t.names)
		t.mu.Lock()
		t.seen[at] = sums
		t.mu.Unlock()
	}
}

// Sum is the total of one counter.
func (t *Totals) Sum(name string) (sum float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.seen {
		sum += s[name]
	}
	return sum
}

// parse sums samples of the text format by name.
func parse(text []byte, names []string) map[string]float64 {
	sums := map[string]float64{}
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		line := s.Text()
		for _, name := range names {
			rest, ok := strings.CutPrefix(line, name)
			if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
				continue
			}
			if v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64); err == nil {
				sums[name] += v
			}
		}
	}
	return sums
}
