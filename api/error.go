package api

import (
	"errors"
	"fmt"
)

// Kind says what went wrong, for machines. The list is closed within version 1.
type Kind string

// The kinds of error.
const (
	KindInvalid     Kind = "invalid"
	KindNotFound    Kind = "not-found"
	KindExists      Kind = "exists"
	KindBusy        Kind = "busy"
	KindBadState    Kind = "bad-state"
	KindDenied      Kind = "denied"
	KindUnavailable Kind = "unavailable"
	KindUnsupported Kind = "unsupported"
	KindNoSpace     Kind = "no-space"
	KindGuest       Kind = "guest"
	KindTimeout     Kind = "timeout"
	KindCancelled   Kind = "cancelled"
	KindInternal    Kind = "internal"
)

// httpStatus and exitCode are the two tables that turn a kind into what the
// outside world sees. An unknown kind is internal. The numbers are net/http's,
// which this package does without: the guest would pay for it at every boot.
var httpStatus = map[Kind]int{
	KindInvalid:     400,
	KindNotFound:    404,
	KindExists:      409,
	KindBusy:        429,
	KindBadState:    409,
	KindDenied:      403,
	KindUnavailable: 503,
	KindUnsupported: 501,
	KindNoSpace:     507,
	KindGuest:       502,
	KindTimeout:     504,
	KindCancelled:   499,
	KindInternal:    500,
}

var exitCode = map[Kind]int{
	KindInternal:    1,
	KindGuest:       1,
	KindInvalid:     2,
	KindNotFound:    3,
	KindExists:      4,
	KindBadState:    5,
	KindDenied:      6,
	KindUnavailable: 7,
	KindUnsupported: 8,
	KindNoSpace:     9,
	KindBusy:        10,
	KindTimeout:     124,
	KindCancelled:   130,
}

// HTTPStatus is the status the API answers with for an error of this kind.
func (k Kind) HTTPStatus() int {
	if s, ok := httpStatus[k]; ok {
		return s
	}
	return 500
}

// ExitCode is the code the CLI exits with for an error of this kind.
func (k Kind) ExitCode() int {
	if c, ok := exitCode[k]; ok {
		return c
	}
	return 1
}

// Error is every error that reaches a user: a kind for machines, a message for
// people, and one next command where the fix is known.
type Error struct {
	Kind        Kind     `json:"kind"`
	Message     string   `json:"message"`
	Hint        string   `json:"hint"`
	Retryable   bool     `json:"retryable"`
	Candidates  []string `json:"candidates,omitempty"`
	OperationID string   `json:"operation_id,omitempty"`

	cause error
}

func (e *Error) Error() string { return e.Message }

// Unwrap gives the error that Errorf was handed with %w, if any.
func (e *Error) Unwrap() error { return e.cause }

// WithHint returns a copy of e whose hint is one next command to type.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// Errorf makes an error of the kind. The message follows
// "cannot <do> <object>: <cause>", lower case, no period. %w works as in fmt.
func Errorf(kind Kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Message: err.Error(), cause: errors.Unwrap(err)}
}

// AsError gives err as an *Error, keeping the message of the whole chain and
// the kind, hint and candidates of the innermost *Error in it; what has no kind
// is internal. A nil err gives nil.
func AsError(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := err.(*Error); ok {
		return e
	}
	var e *Error
	if errors.As(err, &e) {
		c := *e
		c.Message, c.cause = err.Error(), err
		return &c
	}
	return &Error{Kind: KindInternal, Message: err.Error(), cause: err}
}

// KindOf is the kind of err: internal when it has none, empty when err is nil.
func KindOf(err error) Kind {
	if err == nil {
		return ""
	}
	return AsError(err).Kind
}

// ErrorReply is the body of every reply that is not a success.
type ErrorReply struct {
	Error *Error `json:"error"`
}
