package session

import (
	"fmt"
	"sync"
)

// uidPool hands out user ids, each to one session at a time. The id that was
// freed last is reused last: what may still refer to it (a file somewhere, a
// log line) has the most time to go. All methods may be called at any time.
type uidPool struct {
	base, count int
	mu          sync.Mutex
	free        []int          // a queue
	taken       map[int]string // by whom
}

// newUIDPool makes a pool of count ids from base on, but for the taken ones.
// With a count of 0 there are no users: every id is -1.
func newUIDPool(base, count int, taken map[int]string) *uidPool {
	p := &uidPool{base: base, count: count, taken: taken, free: make([]int, 0, count)}
	for uid := base; uid < base+count; uid++ {
		if taken[uid] == "" {
			p.free = append(p.free, uid)
		}
	}
	return p
}

func (p *uidPool) take(who string) (int, error) {
	if p.count == 0 {
		return -1, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.free) == 0 {
		return 0, fail(ErrNoUsers, "No user id left for another session: all %d (%d to %d) are in use; remove sessions or give the worker a larger range", p.count, p.base, p.base+p.count-1)
	}
	uid := p.free[0]
	p.free = p.free[1:]
	p.taken[uid] = who
	return uid, nil
}

// put gives an id back. Nothing may be left on the disk that belongs to it.
func (p *uidPool) put(uid int) {
	if p.count == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken[uid] == "" {
		panic(fmt.Sprintf("user id %d given back twice", uid)) // two sessions would share it
	}
	delete(p.taken, uid)
	p.free = append(p.free, uid)
}
