package kernel

import (
	"encoding/binary"
	"slices"
)

// trie is an index as modprobe reads it (libkmod-index.h of kmod, version 2.1):
// keys share prefixes, and each key has values with priorities.
type trie struct {
	prefix   string
	children map[byte]*trie
	values   []trieValue
}

type trieValue struct {
	text     string
	priority uint32
}

// The file's constants.
const (
	trieMagic   = 0xb007f457
	trieVersion = 0x00020001
	triePrefix  = 0x80000000
	trieValues  = 0x40000000
	trieChilds  = 0x20000000
)

// insert adds a value; keys are 7-bit text, others are left out, as depmod does.
func (t *trie) insert(key, value string, priority int) {
	for i := range len(key) {
		if key[i] == 0 || key[i] >= 128 {
			return
		}
	}
	v := trieValue{value, uint32(priority)}
	if t.empty() {
		t.prefix, t.values = key, []trieValue{v}
		return
	}
	n := t
	for {
		common := 0
		for common < len(n.prefix) && common < len(key) && n.prefix[common] == key[common] {
			common++
		}
		if common < len(n.prefix) { // the node splits
			rest := *n
			c := rest.prefix[common]
			rest.prefix = rest.prefix[common+1:]
			*n = trie{prefix: n.prefix[:common], children: map[byte]*trie{c: &rest}}
		}
		key = key[common:]
		if key == "" {
			n.values = append(n.values, v)
			return
		}
		next := n.children[key[0]]
		if next == nil {
			if n.children == nil {
				n.children = map[byte]*trie{}
			}
			n.children[key[0]] = &trie{prefix: key[1:], values: []trieValue{v}}
			return
		}
		n, key = next, key[1:]
	}
}

func (t *trie) empty() bool { return t.prefix == "" && t.children == nil && t.values == nil }

// bytes is the index as a file.
func (t *trie) bytes() []byte {
	b := make([]byte, 12)
	binary.BigEndian.PutUint32(b, trieMagic)
	binary.BigEndian.PutUint32(b[4:], trieVersion)
	b, root := t.append(b)
	binary.BigEndian.PutUint32(b[8:], root)
	return b
}

// append writes the children, then the node, and returns the node's place with
// flags that say what it has.
func (t *trie) append(b []byte) ([]byte, uint32) {
	var first, last byte
	var places []uint32
	if len(t.children) > 0 {
		first = 127
		for c := range t.children {
			first, last = min(first, c), max(last, c)
		}
		for c := int(first); c <= int(last); c++ {
			var place uint32
			if child := t.children[byte(c)]; child != nil {
				b, place = child.append(b)
			}
			places = append(places, place)
		}
	}
	at := uint32(len(b))
	if t.prefix != "" {
		at |= triePrefix
		b = append(append(b, t.prefix...), 0)
	}
	if len(places) > 0 {
		at |= trieChilds
		b = append(b, first, last)
		for _, p := range places {
			b = binary.BigEndian.AppendUint32(b, p)
		}
	}
	if len(t.values) > 0 {
		at |= trieValues
		slices.SortStableFunc(t.values, func(x, y trieValue) int { return int(x.priority) - int(y.priority) })
		b = binary.BigEndian.AppendUint32(b, uint32(len(t.values)))
		for _, v := range t.values {
			b = binary.BigEndian.AppendUint32(b, v.priority)
			b = append(append(b, v.text...), 0)
		}
	}
	return b, at
}
