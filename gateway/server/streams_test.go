package server_test

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// A gateway that lost its connection knows at once who is live, whatever is the
// matter with other streams; and they are made again when that is possible.
func TestWorkersAreSeenWithoutOtherStreams(t *testing.T) {
	c := newCluster(t, 1, nil)
	g := c.gateways[0]
	if err := c.bus.JS.DeleteStream(t.Context(), protocol.BacklogStream); err != nil {
		t.Fatal(err)
	}
	// With this there, the stream can't be made.
	if _, err := c.bus.JS.CreateStream(t.Context(), jetstream.StreamConfig{Name: "OTHER", Subjects: []string{protocol.BacklogSubjects}}); err != nil {
		t.Fatal(err)
	}
	if err := g.nc.ForceReconnect(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a new connection", func() bool { return g.Ready() == nil })
	c.worker("w1", nil)
	g.post("/evaluate_code", evaluate("s")).want(t, 200, "passed")
	if err := c.bus.JS.DeleteStream(t.Context(), "OTHER"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the stream is back", func() bool {
		_, err := c.bus.JS.Stream(t.Context(), protocol.BacklogStream)
		return err == nil
	})
}
