package protocol

import (
	"strconv"
	"time"
)

// Heartbeat is what a worker says of itself, in the WORKERS bucket under its
// id, every HeartbeatInterval. A worker that drains says so; one that stopped
// cleanly deletes its key.
type Heartbeat struct {
	Version int       `json:"version"`
	Worker  string    `json:"worker"`
	Build   string    `json:"build"`
	Started time.Time `json:"started"`
	// Slots is how many jobs the worker runs at once, Busy how many it runs now.
	Slots int `json:"slots"`
	Busy  int `json:"busy"`
	// Sessions and SessionBytes count what the worker owns; FreeBytes is the
	// room left on its disk.
	Sessions     int   `json:"sessions"`
	SessionBytes int64 `json:"session_bytes"`
	FreeBytes    int64 `json:"free_bytes"`
	// Isolation is the policy in force, in one line; IsolationLevel its level.
	Isolation      string `json:"isolation"`
	IsolationLevel string `json:"isolation_level"`
	// Python names the interpreter that runs submissions.
	Python   string `json:"python"`
	Draining bool   `json:"draining"`
	// Durable says that the worker stores what is written to its sessions.
	Durable bool `json:"durable,omitempty"`
}

// Instance tells the lives of a worker apart.
func (h *Heartbeat) Instance() string { return strconv.FormatInt(h.Started.UnixMicro(), 10) }
