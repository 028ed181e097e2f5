package state

import "fmt"

// Code is the kind of a business failure.
type Code string

// The kinds of failure that applying a command can give.
const (
	// Invalid: a value is not allowed.
	Invalid Code = "invalid"
	// NotFound: what the command names does not exist.
	NotFound Code = "not_found"
	// Exists: what the command would make exists already.
	Exists Code = "exists"
	// Conflict: the facts are not as the command requires.
	Conflict Code = "conflict"
	// Stale: the command was conditional on an index that is no longer current.
	Stale Code = "stale"
)

// Error is why a command changed nothing. It is part of the machine's result and
// the same on every node.
type Error struct {
	Code Code `json:"code"`
	// Field is the JSON name of the value that is at fault.
	Field   string `json:"field,omitempty"`
	Message string `json:"message"`
}

// Error implements error.
func (e *Error) Error() string {
	if e.Field != "" && e.Code == Invalid {
		return e.Field + ": " + e.Message
	}
	return e.Message
}

func invalid(field, format string, args ...any) *Error {
	return &Error{Code: Invalid, Field: field, Message: fmt.Sprintf(format, args...)}
}

func notFound(kind, name string) *Error {
	return &Error{Code: NotFound, Field: kind, Message: fmt.Sprintf("there is no %s %q", kind, name)}
}

func exists(field, kind, name string) *Error {
	return &Error{Code: Exists, Field: field, Message: fmt.Sprintf("there is already a %s %q", kind, name)}
}
