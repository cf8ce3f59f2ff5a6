package pyvalue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unsafe"
)

// Limits bound what DecodeMarshal makes of data that may be hostile. What the
// data itself holds (text, digits) is never copied to more than its size; nodes
// are what can be spelled in fewer bytes than they take.
type Limits struct {
	// Nodes is how many values one decoded value may consist of, containers
	// and members alike; each takes 24 bytes in a list or tuple, and at most
	// about 100 bytes in sets and dicts while they are read. 0 means
	// DefaultNodes.
	Nodes int
	// Depth is how deep containers may nest. 0 means DefaultDepth.
	Depth int
}

const (
	// DefaultNodes is the number of nodes that is allowed unless said otherwise.
	DefaultNodes = 2 << 20
	// DefaultDepth is the depth past which CPython's own marshal gives up.
	DefaultDepth = 2000
)

// Errors of DecodeMarshal, wrapped with what was found where.
var (
	// ErrMarshal says that the data is not marshal data of a literal value.
	ErrMarshal = errors.New("malformed marshal data")
	// ErrLimit says that the value is past a limit.
	ErrLimit = errors.New("value past a limit")
)

// DecodeMarshal reads one value that marshal.dumps(value, 2) wrote, and returns
// what follows it in data. It keeps no reference to data. Of equal keys or
// members, which only forged data has, it keeps what Python would. Errors are
// ErrMarshal and ErrLimit.
func DecodeMarshal(data []byte, lim Limits) (v Value, rest []byte, err error) {
	if lim.Nodes <= 0 {
		lim.Nodes = DefaultNodes
	}
	if lim.Depth <= 0 {
		lim.Depth = DefaultDepth
	}
	d := decoder{data: data, nodes: lim.Nodes, depth: lim.Depth}
	defer d.release()
	if !d.claim(1) {
		return Value{}, data, d.error(lim)
	}
	v, ok := d.value()
	if !ok {
		return Value{}, data, d.error(lim)
	}
	return v, data[d.pos:], nil
}

// decoder reads one value. Its methods return ok=false after setting problem.
type decoder struct {
	data  []byte
	pos   int
	nodes int // how many more may be claimed
	depth int // how many more containers may be opened
	owed  int // values that open containers still have to come: a byte each at least
	builder
	texts []byte // a chunk that decoded text is cut from

	problem string
	kind    error
}

func (d *decoder) fail(kind error, problem string) bool {
	if d.kind == nil {
		d.kind, d.problem = kind, problem
	}
	return false
}

func (d *decoder) error(lim Limits) error {
	if d.kind == ErrLimit {
		return fmt.Errorf("decode marshal: %w: %s at byte %d of %d; the limits are %d nodes, nested %d deep",
			d.kind, d.problem, d.pos, len(d.data), lim.Nodes, lim.Depth)
	}
	return fmt.Errorf("decode marshal: %w: %s at byte %d of %d", d.kind, d.problem, d.pos, len(d.data))
}

// claim announces n values, before anything is allocated for them.
func (d *decoder) claim(n int) bool {
	if n > len(d.data)-d.pos-d.owed {
		return d.fail(ErrMarshal, "more members announced than bytes left")
	}
	if n > d.nodes {
		return d.fail(ErrLimit, "too many nodes")
	}
	d.owed += n
	d.nodes -= n
	return true
}

// bytes returns the next n bytes.
func (d *decoder) bytes(n int) (b []byte, ok bool) {
	if n > len(d.data)-d.pos {
		return nil, d.fail(ErrMarshal, "the data ends too early")
	}
	b = d.data[d.pos : d.pos+n]
	d.pos += n
	return b, true
}

// size reads a length, which is never negative.
func (d *decoder) size() (n int, ok bool) {
	b, ok := d.bytes(4)
	if !ok {
		return 0, false
	}
	u := binary.LittleEndian.Uint32(b)
	if u > math.MaxInt32 {
		return 0, d.fail(ErrMarshal, "a negative length")
	}
	return int(u), true
}

// value reads a value that was claimed.
func (d *decoder) value() (v Value, ok bool) {
	b, ok := d.bytes(1)
	if !ok {
		return v, false
	}
	d.owed--
	switch b[0] {
	case 'N':
		return None(), true
	case 'T':
		return Bool(true), true
	case 'F':
		return Bool(false), true
	case '.':
		return Ellipsis(), true
	case 'i':
		if b, ok = d.bytes(4); !ok {
			return v, false
		}
		return Int(int64(int32(binary.LittleEndian.Uint32(b)))), true
	case 'l':
		return d.long()
	case 'g':
		if b, ok = d.bytes(8); !ok {
			return v, false
		}
		return Value{kind: KindFloat, n: binary.LittleEndian.Uint64(b)}, true
	case 'y':
		if b, ok = d.bytes(16); !ok {
			return v, false
		}
		return Complex(complex(math.Float64frombits(binary.LittleEndian.Uint64(b)),
			math.Float64frombits(binary.LittleEndian.Uint64(b[8:])))), true
	case 'u', 't', 's':
		return d.text(b[0])
	case '[', '(', '<', '>', '{':
		if d.depth == 0 {
			return v, d.fail(ErrLimit, "containers nested too deeply")
		}
		d.depth--
		if b[0] == '{' {
			v, ok = d.dict()
		} else {
			v, ok = d.members(b[0])
		}
		d.depth++
		return v, ok
	}
	return v, d.fail(ErrMarshal, fmt.Sprintf("type code %q", b[0]))
}

func (d *decoder) long() (v Value, ok bool) {
	b, ok := d.bytes(4)
	if !ok {
		return v, false
	}
	n := int(int32(binary.LittleEndian.Uint32(b)))
	neg := n < 0
	if neg {
		n = -n
	}
	if n > math.MaxInt32/2 {
		return v, d.fail(ErrMarshal, "an int of too many digits")
	}
	if b, ok = d.bytes(2 * n); !ok {
		return v, false
	}
	for i := 1; i < len(b); i += 2 {
		if b[i] > longMask>>8 {
			return v, d.fail(ErrMarshal, "a digit of an int out of range")
		}
	}
	if n > 0 && b[2*n-1]|b[2*n-2] == 0 {
		return v, d.fail(ErrMarshal, "an int with a leading zero")
	}
	return longValue(b, n, neg), true
}

func (d *decoder) text(code byte) (v Value, ok bool) {
	n, ok := d.size()
	if !ok {
		return v, false
	}
	b, ok := d.bytes(n)
	if !ok {
		return v, false
	}
	s := d.keep(b)
	if code == 's' {
		return Bytes(s), true
	}
	if !validText(s) {
		return v, d.fail(ErrMarshal, "a str that is not UTF-8")
	}
	return Str(s), true
}

// keep copies b. Short texts share an allocation: what is handed out is never
// written again.
func (d *decoder) keep(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if len(b) > cap(d.texts)-len(d.texts) {
		const chunk = 4096
		if len(b) >= chunk {
			return string(b)
		}
		d.texts = make([]byte, 0, min(len(b)+len(d.data)-d.pos, chunk))
	}
	at := len(d.texts)
	d.texts = append(d.texts, b...)
	return unsafe.String(&d.texts[at], len(b))
}

// members reads a list, a tuple, a set or a frozenset.
func (d *decoder) members(code byte) (v Value, ok bool) {
	n, ok := d.size()
	if !ok || !d.claim(n) {
		return v, false
	}
	items := d.take(n, max(0, d.more()-n))
	for i := range items {
		if items[i], ok = d.value(); !ok {
			return v, false
		}
	}
	switch code {
	case '[':
		return sequence(KindList, items), true
	case '(':
		return sequence(KindTuple, items), true
	case '<':
		return d.collection(KindSet, items)
	default:
		return d.collection(KindFrozenSet, items)
	}
}

// more returns how many values may be to come: about one for 8 bytes.
func (d *decoder) more() int { return (len(d.data) - d.pos) / 8 }

// dict reads keys and values up to the code that ends them.
func (d *decoder) dict() (v Value, ok bool) {
	mark := d.mark()
	for d.pos < len(d.data) && d.data[d.pos] != '0' {
		for range 2 {
			if !d.claim(1) {
				return v, false
			}
			x, ok := d.value()
			if !ok {
				return v, false
			}
			d.push(x)
		}
	}
	if _, ok = d.bytes(1); !ok {
		return v, false
	}
	return d.collection(KindDict, d.pop(mark, d.more()))
}

func (d *decoder) collection(k Kind, items []Value) (v Value, ok bool) {
	v, err := collection(k, items)
	if err != nil {
		return v, d.fail(ErrMarshal, "unhashable member or key")
	}
	return v, true
}
