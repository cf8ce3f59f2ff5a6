package procs

import (
	"fmt"
	"net"
	"sync"
)

// Link is a TCP proxy from one process to one NATS server; between two servers
// there are two, since either may connect to the other.
type Link struct {
	listener net.Listener
	to       string

	mu      sync.Mutex
	changed *sync.Cond
	frozen  bool
	severed bool
	closed  bool
	conns   map[net.Conn]bool // both sides of each connection
	busy    sync.WaitGroup
}

// linkBuffer is how much of one direction of a connection is carried at once, bytes.
const linkBuffer = 64 << 10

func newLink(to string) (*Link, error) {
	l := &Link{to: to, conns: map[net.Conn]bool{}}
	l.changed = sync.NewCond(&l.mu)
	var err error
	if l.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("open link to %s: %w", to, err)
	}
	l.busy.Go(l.accept)
	return l, nil
}

func (l *Link) addr() string { return l.listener.Addr().String() }

func (l *Link) accept() {
	for {
		conn, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.busy.Go(func() { l.carry(conn) })
	}
}

// carry connects to the server and copies both ways until either side ends.
func (l *Link) carry(client net.Conn) {
	if !l.add(client) {
		return
	}
	defer l.drop(client)
	if !l.open() {
		return
	}
	server, err := net.Dial("tcp", l.to)
	if err != nil || !l.add(server) {
		return
	}
	defer l.drop(server)
	var back sync.WaitGroup
	back.Go(func() {
		l.copy(client, server)
		l.drop(client)
	})
	l.copy(server, client)
	l.drop(server)
	back.Wait()
}

// copy copies one direction; what was read waits while the link is frozen.
func (l *Link) copy(to, from net.Conn) {
	buf := make([]byte, linkBuffer)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if !l.open() {
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// open waits until the link lets something through; false if it never will.
func (l *Link) open() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.frozen && !l.severed && !l.closed {
		l.changed.Wait()
	}
	return !l.severed && !l.closed
}

func (l *Link) add(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.severed || l.closed {
		c.Close()
		return false
	}
	l.conns[c] = true
	return true
}

func (l *Link) drop(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	c.Close()
}

func (l *Link) freeze() {
	l.mu.Lock()
	l.frozen = true
	l.mu.Unlock()
}

func (l *Link) sever() {
	l.mu.Lock()
	l.severed = true
	l.cut()
	l.mu.Unlock()
}

func (l *Link) heal(lose bool) {
	l.mu.Lock()
	if lose {
		l.cut()
	}
	l.frozen, l.severed = false, false
	l.changed.Broadcast()
	l.mu.Unlock()
}

// cut ends all connections; it needs the lock.
func (l *Link) cut() {
	for c := range l.conns {
		c.Close()
		delete(l.conns, c)
	}
	l.changed.Broadcast()
}

func (l *Link) close() {
	l.listener.Close()
	l.mu.Lock()
	l.closed = true
	l.cut()
	l.mu.Unlock()
	l.busy.Wait()
}
