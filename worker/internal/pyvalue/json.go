package pyvalue

import (
	"bytes"
	"unicode/utf8"
)

// AppendJSON appends a readable projection of v to JSON, as compact as FastAPI
// writes answers:
//
//   - list, tuple, set and frozenset are arrays, the latter two sorted: numbers
//     by value, then strings, then the rest in an order of its own;
//   - dict is an object. Keys that are int, float, bool or None are spelled as
//     in JSON, other keys but strings as their repr; of keys with one spelling
//     the last counts;
//   - bytes are a string if they are UTF-8, else the string of their repr;
//   - nan, inf, complex and Ellipsis are strings of their repr, ints past 4,300
//     digits strings of digits (see AppendRepr), since readers refuse them.
//
// Lone surrogates are escaped, other characters outside of ASCII are not.
//
// If all that is longer than max bytes, it appends instead a JSON string of
// about the first max bytes of v's repr and "… (truncated)", and truncated is
// true. It never builds much more than max bytes. 0 means no bound.
func AppendJSON(dst []byte, v Value, max int) (out []byte, truncated bool) {
	w := newWriter(dst, max)
	if w.json(v, false); !w.over() {
		return w.dst, false
	}
	text, _ := AppendRepr(nil, v, max)
	text = append(text, "… (truncated)"...)
	w = newWriter(w.dst[:w.start], 0)
	w.jsonStr(string(text))
	return w.dst, true
}

var minus = []byte("-")

// json appends v. sorted says that v is part of what sortMembers returned.
func (w *writer) json(v Value, sorted bool) {
	if w.over() {
		return
	}
	switch v.kind {
	case KindNone:
		w.str("null")
	case KindBool:
		if v.n == 0 {
			w.str("false")
		} else {
			w.str("true")
		}
	case KindInt:
		at := len(w.dst)
		w.int(v)
		if digits := w.dst[at:]; len(bytes.TrimPrefix(digits, minus)) > maxDecimal {
			text := string(digits)
			w.dst = w.dst[:at]
			w.jsonStr(text)
		}
	case KindFloat:
		if f := v.float(); f-f != 0 { // nan or infinite
			w.jsonRepr(v)
		} else {
			w.float(f)
		}
	case KindStr:
		w.jsonStr(v.text())
	case KindBytes:
		if s := v.text(); utf8.ValidString(s) {
			w.jsonStr(s)
		} else {
			w.jsonRepr(v)
		}
	case KindList, KindTuple:
		w.jsonArray(v.items(), sorted)
	case KindSet, KindFrozenSet:
		items := v.table().items
		if !sorted {
			if leastJSON(v, w.room()) < 0 {
				w.overflow()
				return
			}
			items = sortMembers(items)
		}
		w.jsonArray(items, true)
	case KindDict:
		w.jsonObject(v.table().items)
	default: // KindEllipsis, KindComplex
		w.jsonRepr(v)
	}
}

// overflow makes w be over, whatever it holds.
func (w *writer) overflow() { w.max = -1 }

// leastJSON returns what is left of room bytes after v at the very least, less
// than 0 if v doesn't fit: so that what will be cut isn't sorted first.
func leastJSON(v Value, room int) int {
	if v.kind.scalar() {
		return room - 1 - v.Len()
	}
	room -= 1 + max(1, v.Len()) // brackets and commas
	for _, x := range v.Items() {
		if room < 0 {
			return room
		}
		room = leastJSON(x, room)
	}
	return room
}

func (w *writer) jsonArray(items []Value, sorted bool) {
	w.str("[")
	for i, x := range items {
		if i > 0 {
			w.str(",")
		}
		if w.json(x, sorted); w.over() {
			return
		}
	}
	w.str("]")
}

func (w *writer) jsonObject(items []Value) {
	var last map[string]Value
	if mixedKeys(items) {
		if last = w.lastByKey(items); last == nil {
			return
		}
	}
	w.str("{")
	first := true
	for i := 0; i < len(items) && !w.over(); i += 2 {
		key, x := w.keyText(items[i]), items[i+1]
		if last != nil {
			var ok bool
			if x, ok = last[key]; !ok {
				continue // written already
			}
			delete(last, key)
		}
		if !first {
			w.str(",")
		}
		first = false
		w.jsonStr(key)
		w.str(":")
		w.json(x, false)
	}
	w.str("}")
}

// mixedKeys reports whether two keys might be spelled the same: not if all are
// str, or all are int.
func mixedKeys(items []Value) bool {
	for i := 0; i < len(items); i += 2 {
		if k := items[i].kind; k != items[0].kind || k != KindStr && k != KindInt {
			return true
		}
	}
	return false
}

// lastByKey returns the values by spelling of their keys, nil if the keys
// alone are too long.
func (w *writer) lastByKey(items []Value) map[string]Value {
	last := make(map[string]Value)
	size := len(w.dst) - w.start
	for i := 0; i < len(items); i += 2 {
		key := w.keyText(items[i])
		if _, ok := last[key]; !ok {
			size += len(key) + len(`"":0,`)
		}
		if size > w.max+1 { // no comma after the last
			w.overflow()
		}
		if w.over() {
			return nil
		}
		last[key] = items[i+1]
	}
	return last
}

// keyText returns how a key of a dict is spelled in JSON, without quotes. If
// that is too long, w is over.
func (w *writer) keyText(k Value) string {
	switch k.kind {
	case KindStr:
		return k.text()
	case KindNone:
		return "null"
	case KindBool:
		if k.n == 0 {
			return "false"
		}
		return "true"
	}
	text, cut := AppendRepr(nil, k, w.max)
	if cut {
		w.overflow()
	}
	return string(text)
}

// jsonRepr appends the string of v's repr.
func (w *writer) jsonRepr(v Value) {
	text, cut := AppendRepr(nil, v, w.max)
	if cut {
		w.overflow()
		return
	}
	w.jsonStr(string(text))
}

func (w *writer) jsonStr(s string) {
	w.str(`"`)
	plain := 0 // what is before it in s is written
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c < 0x80 && c != '"' && c != '\\' {
			i++
			continue
		}
		r, n := rune(c), 1
		if c >= 0x80 {
			if r, n = decodeCodePoint(s[i:]); r < surrogateMin || r > surrogateMax {
				i += n
				continue
			}
		}
		if w.str(s[plain:i]); w.over() {
			return
		}
		switch r {
		case '"', '\\':
			w.dst = append(w.dst, '\\', c)
		case '\n':
			w.str(`\n`)
		case '\r':
			w.str(`\r`)
		case '\t':
			w.str(`\t`)
		case '\b':
			w.str(`\b`)
		case '\f':
			w.str(`\f`)
		default:
			w.str(`\u`)
			w.hex(r, 4)
		}
		i += n
		plain = i
	}
	w.str(s[plain:])
	w.str(`"`)
}
