package pyvalue

import "sync"

// scratch collects the members of containers that are being read, whose number
// isn't known beforehand: those of open containers, outermost first.
type scratch struct {
	values []Value
	used   int // how many values may be other than zero
}

// maxScratch is how many values a scratch may have room for and be used again.
const maxScratch = 1024

var scratches = sync.Pool{New: func() any { return &scratch{values: make([]Value, 0, 32)} }}

// builder makes containers out of members that come one by one.
type builder struct {
	scratch *scratch // nil before the first push
	// free is the rest of a chunk that members were cut from: many small
	// containers share an allocation.
	free []Value
}

// mark returns where the members of a container that begins now will start.
func (b *builder) mark() int {
	if b.scratch == nil {
		return 0
	}
	return len(b.scratch.values)
}

func (b *builder) push(v Value) {
	if b.scratch == nil {
		b.scratch = scratches.Get().(*scratch)
	}
	b.scratch.values = append(b.scratch.values, v)
}

// pop returns the members from mark on, as a slice of their own. more is as in
// take.
func (b *builder) pop(mark, more int) []Value {
	n := b.mark() - mark
	if n == 0 {
		return nil
	}
	s := b.scratch
	s.used = max(s.used, len(s.values))
	items := b.take(n, more)
	copy(items, s.values[mark:])
	s.values = s.values[:mark]
	return items
}

// take returns n values. more is about how many may still be asked for: it
// keeps a small value from paying for a large chunk.
func (b *builder) take(n, more int) []Value {
	const chunk = 256
	if n > len(b.free) {
		if n >= chunk {
			return make([]Value, n)
		}
		b.free = make([]Value, min(n+more, chunk))
	}
	items := b.free[:n:n]
	b.free = b.free[n:]
	return items
}

// release ends the use of b. It forgets the values, which would keep whole
// texts alive.
func (b *builder) release() {
	s := b.scratch
	if s == nil {
		return
	}
	b.scratch = nil
	if cap(s.values) > maxScratch {
		return
	}
	clear(s.values[:max(s.used, len(s.values))])
	s.values, s.used = s.values[:0], 0
	scratches.Put(s)
}
