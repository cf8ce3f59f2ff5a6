package bus

import "context"

// LastSure is LastConfirmed as if there were several servers.
func (b *Bus) LastSure(ctx context.Context, stream string, marker Marker, subject string, doubted func(Message) bool) (Message, error) {
	return b.lastConfirmed(ctx, stream, marker, subject, doubted)
}

// Confirms shares confirmations.
type Confirms = confirms

// Do is do.
func (c *confirms) Do(subject string, sequence uint64, ask func() (bool, error)) (bool, error) {
	return c.do(subject, sequence, ask)
}

// Turns is how many callers have come and answers were asked for.
func (c *confirms) Turns() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.turns
}
