package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
)

// node is a place in the parsed description; its zero value is one that isn't
// there, of which everything asked is empty. Maps keep their order.
type node struct{ v any }

type entry struct {
	key   string
	value node
}

func (n node) entries() []entry {
	m, _ := n.v.(yaml.MapSlice)
	all := make([]entry, len(m))
	for i, item := range m {
		all[i] = entry{fmt.Sprint(item.Key), node{item.Value}}
	}
	return all
}

func (n node) at(key string) node {
	m, _ := n.v.(yaml.MapSlice)
	for _, item := range m {
		if item.Key == key {
			return node{item.Value}
		}
	}
	return node{}
}

func (n node) list() []node {
	l, _ := n.v.([]any)
	var all []node
	for _, v := range l {
		all = append(all, node{v})
	}
	return all
}

func (n node) text(key string) string {
	s, _ := n.at(key).v.(string)
	return s
}

// resolve follows a $ref from the root n.
func (n node) resolve(m node) node {
	ref := m.text("$ref")
	if ref == "" {
		return m
	}
	to := n
	for part := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
		to = to.at(part)
	}
	return to
}

// plain turns ordered maps into what encoding/json knows; order is kept.
func plain(v any) any {
	switch v := v.(type) {
	case yaml.MapSlice:
		return ordered(v)
	case []any:
		all := make([]any, len(v))
		for i := range v {
			all[i] = plain(v[i])
		}
		return all
	}
	return v
}

// ordered is a map that is encoded in its own order.
type ordered yaml.MapSlice

// MarshalJSON implements json.Marshaler.
func (o ordered) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, item := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := json.Marshal(fmt.Sprint(item.Key))
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(plain(item.Value))
		if err != nil {
			return nil, err
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// indent shows an example; "" if there is none.
func indent(example node) (string, error) {
	if example.v == nil {
		return "", nil
	}
	b, err := json.MarshalIndent(plain(example.v), "", "  ")
	if err != nil {
		return "", fmt.Errorf("show example: %w", err)
	}
	return string(b), nil
}
