// Package pymarshal writes the few types of Python's marshal format that the
// worker's own messages to a submission's process are made of. Values of
// submissions are pyvalue's business.
//
// Format: CPython, Python/marshal.c; the codes used here are the same in
// versions 2 to 5 of the format.
package pymarshal

import (
	"encoding/binary"
	"math"
)

// AppendNone appends None.
func AppendNone(b []byte) []byte { return append(b, 'N') }

// AppendBool appends True or False.
func AppendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 'T')
	}
	return append(b, 'F')
}

// AppendInt appends an int.
func AppendInt(b []byte, v int64) []byte {
	if math.MinInt32 <= v && v <= math.MaxInt32 {
		return binary.LittleEndian.AppendUint32(append(b, 'i'), uint32(int32(v)))
	}
	// A long: a signed count of 15-bit digits, least significant first.
	u, sign := uint64(v), int32(1)
	if v < 0 {
		u, sign = -u, -1
	}
	b = append(b, 'l')
	at := len(b)
	b = append(b, 0, 0, 0, 0)
	n := int32(0)
	for ; u != 0; u >>= 15 {
		b = binary.LittleEndian.AppendUint16(b, uint16(u&0x7fff))
		n++
	}
	binary.LittleEndian.PutUint32(b[at:], uint32(sign*n))
	return b
}

// AppendString appends a str; s is UTF-8 and may hold lone surrogates in the
// same manner of encoding (WTF-8).
func AppendString(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint32(append(b, 'u'), uint32(len(s))), s...)
}

// AppendTuple begins a tuple of n items, which the caller appends next.
func AppendTuple(b []byte, n int) []byte {
	return binary.LittleEndian.AppendUint32(append(b, '('), uint32(n))
}

// AppendDict appends a dict of strings from pairs of key and value.
func AppendDict(b []byte, pairs [][2]string) []byte {
	b = append(b, '{')
	for _, kv := range pairs {
		b = AppendString(AppendString(b, kv[0]), kv[1])
	}
	return append(b, '0')
}

// AppendList begins a list of n items, which the caller appends next.
func AppendList(b []byte, n int) []byte {
	return binary.LittleEndian.AppendUint32(append(b, '['), uint32(n))
}

// BeginDict begins a dict: keys and values follow, then EndDict.
func BeginDict(b []byte) []byte { return append(b, '{') }

// EndDict ends a dict.
func EndDict(b []byte) []byte { return append(b, '0') }
