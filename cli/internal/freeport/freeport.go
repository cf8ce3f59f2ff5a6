// Package freeport finds ports for processes that must be told theirs, such as a
// NATS server that others are to find.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are taken from below those that the kernel gives to connections and to who
// asks for any: else another process could have one before it is used, or while its
// owner is down for some seconds.
const first, last = 20000, 30000

// Find returns n ports of the loopback that nobody has now.
func Find(n int) ([]int, error) {
	var ports []int
	for _, at := range rand.Perm(last - first) {
		if len(ports) == n {
			return ports, nil
		}
		l, err := net.Listen("tcp", Address(first+at))
		if err != nil {
			continue
		}
		defer l.Close()
		ports = append(ports, first+at)
	}
	return nil, fmt.Errorf("no %d free ports from %d to %d", n, first, last)
}

// Address is the loopback's with a port.
func Address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
