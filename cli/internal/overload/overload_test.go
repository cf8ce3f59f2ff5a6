package overload

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A server that answers a few and refuses the rest, and one that does neither well.
func TestOutcomesAreTold(t *testing.T) {
	tests := []struct {
		name   string
		answer http.HandlerFunc
		want   string // in the error; "" for none
	}{
		{"holds", alternating(func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "2")
			w.WriteHeader(http.StatusTooManyRequests)
		}), ""},
		{"refuses nothing", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"passed":true}`) }, "no overload"},
		{"fails", alternating(func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) }), "status 500"},
		{"refuses without a time", alternating(func(w http.ResponseWriter) { w.WriteHeader(http.StatusTooManyRequests) }), "Retry-After 0"},
		{"answers wrong", alternating(func(w http.ResponseWriter) { io.WriteString(w, `{"passed":false}`) }), "right: false"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewServer(tt.answer)
			defer server.Close()
			c := newClient(server.URL)
			defer c.close()
			c.flood(t.Context(), 400, 200*time.Millisecond)
			err := report(io.Discard, Config{Waiting: 1000}, c, &memory{})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestLongWaitsAndGrowthAreTold(t *testing.T) {
	c := &client{sending: time.Second, refused: 1, took: []time.Duration{3 * time.Second, 3 * time.Second}}
	m := &memory{names: []string{"gateway"}, first: []int64{10 << 20}, last: []int64{90 << 20}, most: []int64{90 << 20}}
	err := report(io.Discard, Config{Waiting: 1}, c, m)
	if err == nil || !strings.Contains(err.Error(), "slowest hundredth took 3s") || !strings.Contains(err.Error(), "gateway grew from 10 to 90 MB") {
		t.Errorf("error %v", err)
	}
}

func alternating(other func(http.ResponseWriter)) http.HandlerFunc {
	var n atomic.Int64
	return func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1)%2 == 0 {
			io.WriteString(w, `{"passed":true}`)
			return
		}
		other(w)
	}
}
