package vm

import (
	"github.com/bangervm/banger/api"
)

// verb is something one does to a machine.
type verb string

const (
	verbStart       verb = "start"
	verbStop        verb = "stop"
	verbRestart     verb = "restart"
	verbKill        verb = "kill"
	verbDelete      verb = "delete"
	verbForceDelete verb = "force-delete"
	verbRename      verb = "rename"
	verbSet         verb = "set"
	verbExec        verb = "exec in"
)

// verdict is what the gate says to a verb.
type verdict int

const (
	refuse  verdict = iota // bad-state, with a hint
	allow                  // do it
	nothing                // the machine is already there: success, nothing changed
	join                   // the same is under way: wait for that
	preempt                // end what is under way first, then do it
)

// gates is the whole matrix; what is missing is refused. matrix_test.go walks
// every cell of it.
var gates = map[verb]map[api.Status]verdict{
	verbStart: {
		api.StatusStarting: join, api.StatusRunning: nothing, api.StatusStopped: allow,
	},
	verbStop: {
		api.StatusRunning: allow, api.StatusPaused: allow, api.StatusStopping: join, api.StatusStopped: nothing,
	},
	verbRestart: {
		api.StatusRunning: allow, api.StatusStopped: allow,
	},
	verbKill: {
		api.StatusStarting: preempt, api.StatusRunning: allow, api.StatusPaused: allow, api.StatusStopping: preempt,
		api.StatusStopped: nothing, api.StatusBroken: allow,
	},
	verbDelete: {
		api.StatusStopped: allow, api.StatusBroken: allow, api.StatusDeleting: join,
	},
	verbForceDelete: {
		api.StatusCreating: preempt, api.StatusStarting: preempt, api.StatusRunning: allow, api.StatusPaused: allow,
		api.StatusStopping: preempt, api.StatusStopped: allow, api.StatusDeleting: join, api.StatusBroken: allow,
	},
	verbRename: {
		api.StatusStarting: allow, api.StatusRunning: allow, api.StatusPaused: allow, api.StatusStopping: allow,
		api.StatusStopped: allow, api.StatusBroken: allow,
	},
	verbSet: {
		api.StatusRunning: allow, api.StatusStopped: allow,
	},
	verbExec: {
		api.StatusRunning: allow,
	},
}

// gate says what the verb may do to a machine in the status.
func gate(v verb, name string, s api.Status) (verdict, error) {
	if d := gates[v][s]; d != refuse {
		return d, nil
	}
	do := string(v)
	if v == verbForceDelete {
		do = string(verbDelete)
	}
	e := api.Errorf(api.KindBadState, "cannot %s vm %q while it is %s", do, name, s)
	switch s {
	case api.StatusCreating, api.StatusStarting:
		e.Retryable = true
		return refuse, e.WithHint("banger vm wait %s --for running", name)
	case api.StatusStopping:
		e.Retryable = true
		return refuse, e.WithHint("banger vm wait %s --for stopped", name)
	case api.StatusRunning, api.StatusPaused:
		return refuse, e.WithHint("banger vm stop %s", name)
	case api.StatusStopped:
		return refuse, e.WithHint("banger vm start %s", name)
	case api.StatusDeleting:
		return refuse, e.WithHint("banger vm list")
	}
	return refuse, e.WithHint("banger vm logs %s", name)
}
