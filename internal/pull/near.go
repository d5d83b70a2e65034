package pull

import (
	"slices"
	"strings"
)

// near lists the names that a person may have meant by name, nearest first, at
// most three.
func near(name string, names []string) []string {
	type scored struct {
		name string
		d    int
	}
	var list []scored
	name = strings.ToLower(name[:min(len(name), 64)])
	for _, n := range names {
		if n == "" {
			continue
		}
		d := distance(name, n)
		if len(name) >= 3 && (strings.Contains(n, name) || strings.Contains(name, n)) {
			d = min(d, 1)
		}
		if d <= max(2, len(n)/4) {
			list = append(list, scored{n, d})
		}
	}
	slices.SortFunc(list, func(a, b scored) int {
		if a.d != b.d {
			return a.d - b.d
		}
		return strings.Compare(a.name, b.name)
	})
	var out []string
	for _, s := range list {
		if len(out) < 3 && !slices.Contains(out, s.name) {
			out = append(out, s.name)
		}
	}
	return out
}

// distance is how many letters must be changed, added or removed.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		left, diagonal := i+1, row[0]
		row[0] = left
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			left = min(left+1, diagonal+1, cost)
			row[j+1] = left
		}
	}
	return row[len(b)]
}
