package vm

import (
	"strings"

	"github.com/bangervm/banger/api"
)

// filter keeps some VMs. All of its conditions must hold.
type filter struct {
	labels   []string // K or K=V
	statuses []string
	names    []string
}

// parseFilters reads label=K, label=K=V, status=S and name=N.
func parseFilters(in []string) (filter, error) {
	var f filter
	for _, s := range in {
		key, value, ok := strings.Cut(s, "=")
		if !ok || value == "" {
			return f, api.Errorf(api.KindInvalid, "cannot filter by %q: want status=STATUS, label=KEY, label=KEY=VALUE or name=NAME", s).WithHint("banger vm list --help")
		}
		switch key {
		case "label":
			f.labels = append(f.labels, value)
		case "status":
			if !knownStatus(api.Status(value)) {
				return f, api.Errorf(api.KindInvalid, "cannot filter by status %q: want one of %s", value, strings.Join(statusNames(), ", ")).
					WithHint("banger vm list --help")
			}
			f.statuses = append(f.statuses, value)
		case "name":
			f.names = append(f.names, value)
		default:
			return f, api.Errorf(api.KindInvalid, "cannot filter by %q: want status, label or name", key).WithHint("banger vm list --help")
		}
	}
	return f, nil
}

var allStatuses = [...]api.Status{
	api.StatusCreating, api.StatusStarting, api.StatusRunning, api.StatusPaused,
	api.StatusStopping, api.StatusStopped, api.StatusDeleting, api.StatusBroken,
}

func knownStatus(s api.Status) bool {
	for _, k := range allStatuses {
		if s == k {
			return true
		}
	}
	return false
}

func statusNames() []string {
	var out []string
	for _, s := range allStatuses {
		out = append(out, string(s))
	}
	return out
}

// match says whether the VM passes: each kind of condition must hold; of
// several statuses or names one suffices, of labels all are needed.
func (f filter) match(v api.VM) bool {
	for _, l := range f.labels {
		key, want, exact := strings.Cut(l, "=")
		got, ok := v.Labels[key]
		if !ok || exact && got != want {
			return false
		}
	}
	return oneOf(f.statuses, string(v.Status)) && oneOf(f.names, v.Name)
}

func oneOf(set []string, s string) bool {
	if len(set) == 0 {
		return true
	}
	for _, x := range set {
		if x == s {
			return true
		}
	}
	return false
}
