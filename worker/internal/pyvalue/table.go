package pyvalue

// smallTable is how many members are looked up by comparing with each.
const smallTable = 8

// table is the body of a set, a frozenset or a dict: in order of insertion,
// without equal members or keys.
type table struct {
	// items are the members, or keys and values in turn.
	items []Value
	// hashes are those of the members or keys. A small table of scalars has
	// none: comparing is cheaper.
	hashes []uint64
	// index finds members by hash, with open addressing: a slot holds the
	// number of the member plus 1. A small table has none.
	index []uint32
}

// emptyTable is the body of every empty set and dict.
var emptyTable table

// newTable makes a table of items, members if stride is 1, keys and values in
// turn if it is 2. It keeps items and moves them so that of equal ones the
// first member or key and the last value stay. ok is false if one is unhashable.
func newTable(items []Value, stride int) (t *table, ok bool) {
	n := len(items) / stride
	if n == 0 {
		return &emptyTable, true
	}
	t = &table{}
	hashing := n > smallTable
	for i := 0; i < len(items) && !hashing; i += stride {
		hashing = !items[i].kind.scalar()
	}
	if hashing {
		t.hashes = make([]uint64, 0, n)
	}
	if n > smallTable {
		size := 2 * smallTable
		for size < 2*n {
			size *= 2
		}
		t.index = make([]uint32, size)
	}
	for i := 0; i < len(items); i += stride {
		k := items[i]
		var h uint64
		if hashing {
			if h, ok = hash(k); !ok {
				return nil, false
			}
		}
		if at := t.find(k, h, stride); at >= 0 {
			if stride == 2 {
				t.items[at+1] = items[i+1]
			}
			continue
		}
		if t.index != nil {
			mask := uint64(len(t.index) - 1)
			slot := h & mask
			for t.index[slot] != 0 {
				slot = (slot + 1) & mask
			}
			t.index[slot] = uint32(len(t.hashes)) + 1
		}
		if hashing {
			t.hashes = append(t.hashes, h)
		}
		at := len(t.items)
		t.items = items[:at+stride]
		copy(t.items[at:], items[i:i+stride])
	}
	return t, true
}

// find returns where in items the member or key is that equals k, -1 if none
// is. h is the hash of k; a table without hashes doesn't look at it.
func (t *table) find(k Value, h uint64, stride int) int {
	if t.index != nil {
		mask := uint64(len(t.index) - 1)
		for slot := h & mask; t.index[slot] != 0; slot = (slot + 1) & mask {
			i := int(t.index[slot] - 1)
			if t.hashes[i] == h && Equal(t.items[i*stride], k) {
				return i * stride
			}
		}
		return -1
	}
	for i := 0; i < len(t.items); i += stride {
		if (t.hashes == nil || t.hashes[i/stride] == h) && Equal(t.items[i], k) {
			return i
		}
	}
	return -1
}

// covers reports whether every member of t is in u, with an equal value if
// they are dicts. For tables of the same size that is equality.
func (t *table) covers(u *table, stride int) bool {
	for i := 0; i < len(t.items); i += stride {
		k := t.items[i]
		var h uint64
		switch {
		case u.hashes == nil:
		case t.hashes != nil:
			h = t.hashes[i/stride]
		default:
			h, _ = hash(k) // a scalar, since t has no hashes
		}
		at := u.find(k, h, stride)
		if at < 0 || stride == 2 && !Equal(t.items[i+1], u.items[at+1]) {
			return false
		}
	}
	return true
}
