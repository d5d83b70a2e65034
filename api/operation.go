package api

import (
	"encoding/json"
	"time"
)

// OperationStatus is how far an operation is.
type OperationStatus string

// The statuses of an operation.
const (
	OperationRunning     OperationStatus = "running"
	OperationSucceeded   OperationStatus = "succeeded"
	OperationFailed      OperationStatus = "failed"
	OperationCancelled   OperationStatus = "cancelled"
	OperationInterrupted OperationStatus = "interrupted"
)

// Operation is one piece of work that can outlive the request that began it.
type Operation struct {
	ID         string          `json:"id"`
	Kind       string          `json:"kind"` // e.g. vm.create
	Target     string          `json:"target"`
	Status     OperationStatus `json:"status"`
	Stage      string          `json:"stage"` // what it does now, for people
	Progress   Progress        `json:"progress"`
	Steps      []OperationStep `json:"steps"`
	CreatedAt  time.Time       `json:"created_at"`
	FinishedAt *time.Time      `json:"finished_at"`
	Error      *Error          `json:"error"`
	// Result is what the operation made (a VM, an image), once it succeeded.
	Result json.RawMessage `json:"result,omitempty"`
}

// Progress counts within a stage. Total is 0 when it is not known.
type Progress struct {
	Done  int64  `json:"done"`
	Total int64  `json:"total"`
	Unit  string `json:"unit"` // bytes, items, or empty
}

// OperationStep is one step of the journal.
type OperationStep struct {
	Name       string     `json:"name"`
	Status     string     `json:"status"` // pending, running, done, failed, undone, undo-failed
	StartedAt  *time.Time `json:"started_at"`
	FinishedAt *time.Time `json:"finished_at"`
}

// Event is one thing that happened.
type Event struct {
	ID     int64             `json:"id"`
	Time   time.Time         `json:"time"`
	Kind   string            `json:"kind"`   // e.g. vm.started, operation.progress
	Target string            `json:"target"` // id of the VM, image, operation
	Data   map[string]string `json:"data"`
}
