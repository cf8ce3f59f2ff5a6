package ownership

import "sync"

// cache remembers owners in two generations: when the young one is full it
// becomes the old one, and the old one is forgotten. What is asked for moves to
// the young one, so what is in use stays. It holds at most twice max entries.
type cache struct {
	max int

	mu         sync.Mutex
	young, old map[string]Owner
}

func (c *cache) get(session string) (Owner, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o, ok := c.young[session]; ok {
		return o, true
	}
	o, ok := c.old[session]
	if ok {
		delete(c.old, session)
		c.add(session, o)
	}
	return o, ok
}

func (c *cache) put(session string, o Owner) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.old, session)
	c.add(session, o)
}

// add needs the lock.
func (c *cache) add(session string, o Owner) {
	if len(c.young) >= c.max {
		c.old, c.young = c.young, nil
	}
	if c.young == nil {
		c.young = make(map[string]Owner)
	}
	c.young[session] = o
}

func (c *cache) drop(session string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.young, session)
	delete(c.old, session)
}
