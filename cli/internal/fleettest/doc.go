// Package fleettest tests whole fleets: one NATS server, gateways and workers
// in one process, through the documented API. It has only tests.
package fleettest
