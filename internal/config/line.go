package config

import (
	"strings"

	"github.com/BurntSushi/toml"
)

// lineOf finds the line where a key of a valid file begins, from 1. The decoder
// does not tell, so it is asked about longer and longer beginnings of the file
// until one has the key.
func lineOf(data string, key toml.Key) int {
	lines := strings.SplitAfter(data, "\n")
	begin := 1 // of the statement that the line belongs to
	var head strings.Builder
	for i, line := range lines {
		head.WriteString(line)
		var tree map[string]any
		meta, err := toml.Decode(head.String(), &tree)
		if err != nil {
			continue // within a value of several lines
		}
		if meta.IsDefined(key...) {
			return begin
		}
		begin = i + 2
	}
	return len(lines)
}
