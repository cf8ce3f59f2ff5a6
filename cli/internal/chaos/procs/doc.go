// Package procs is a fleet of real processes on this machine that can be killed,
// stopped, cut off and restarted: a NATS cluster of three, gateways, workers.
// Each gateway and worker reaches each NATS server through a proxy of its own,
// in this process. It knows nothing of what the fleet is asked.
package procs
