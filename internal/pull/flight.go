package pull

import (
	"sync"

	"github.com/bangervm/banger/internal/operation"
)

// flights are the makings under way, by the key of their plan: of those that
// would make the same, one makes it.
type flights struct {
	mu  sync.Mutex
	all map[string]*flight
}

// flight is one making, from its beginning to the end of its operation.
type flight struct {
	op *operation.Op

	mu sync.Mutex
	id string // of what was published
}

// claim gives the flight of a key to op, or the flight that has it.
func (f *flights) claim(key string, op *operation.Op) (fl *flight, ours bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for k, fl := range f.all {
		select {
		case <-fl.op.Done():
			delete(f.all, k)
		default:
		}
	}
	if fl := f.all[key]; fl != nil && fl.op != op {
		return fl, false
	}
	if f.all == nil {
		f.all = map[string]*flight{}
	}
	fl = &flight{op: op}
	f.all[key] = fl
	return fl, true
}

// landed notes what was published; empty until then.
func (f *flight) landed(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.id = id
}

func (f *flight) published() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.id
}
