package node

import (
	"context"
	"encoding/json"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gradefleet/gradefleet/shared/protocol"
)

// heartbeats writes the worker's heartbeat until ctx is done, and then takes
// its key away. The worker is ready once the first is written.
func (n *Node) heartbeats(ctx context.Context) {
	tick := time.NewTicker(protocol.HeartbeatInterval)
	defer tick.Stop()
	for {
		if err := n.heartbeat(ctx); err != nil && ctx.Err() == nil {
			n.log.Warn("write heartbeat", "error", err)
		} else if err == nil {
			n.mu.Lock()
			n.ready = true
			n.mu.Unlock()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			n.leave()
			return
		}
	}
}

func (n *Node) heartbeat(ctx context.Context) error {
	n.mu.Lock()
	draining := n.drain
	n.mu.Unlock()
	sessions, bytes := n.store.Stats()
	body, err := json.Marshal(protocol.Heartbeat{
		Version: protocol.Version, Worker: n.id, Build: n.deps.Build, Started: n.started,
		Slots: n.cfg.Slots, Busy: n.intake.Busy(),
		Sessions: sessions, SessionBytes: bytes, FreeBytes: freeBytes(n.cfg.Data),
		Isolation: n.policy.Report(), IsolationLevel: string(n.policy.Level()),
		Python: n.python.String(), Draining: draining, Durable: n.cfg.durable(),
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, protocol.HeartbeatInterval)
	defer cancel()
	return n.copies.Heartbeat(ctx, body)
}

// leave tells the fleet at once that this worker is gone.
func (n *Node) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), protocol.HeartbeatInterval)
	defer cancel()
	if err := n.copies.Leave(ctx); err != nil {
		n.log.Warn("delete heartbeat", "error", err)
	}
}

// freeBytes is the room left on the disk of a directory, 0 if unknown.
func freeBytes(dir string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return 0
	}
	return int64(st.Bavail) * st.Bsize
}

// sizeBytes is the size of the disk of a directory, 0 if unknown.
func sizeBytes(dir string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return 0
	}
	return int64(st.Blocks) * st.Bsize
}
