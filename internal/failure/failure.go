// Package failure makes errors whose text is exactly what the user reads and
// whose class is what the API turns into an HTTP status.
//
// The classes are those of github.com/containerd/errdefs (and ErrNotModified,
// which errdefs does not have). Wrapping a class with fmt.Errorf would put the
// class's own words into the message ("…: not found"); the errors of this
// package match their class with errors.Is and keep it out of the text.
package failure

import (
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
)

// ErrNotModified says that the object already is in the state asked for. It is
// an answer (304), not a fault.
var ErrNotModified = errors.New("not modified")

type classed struct {
	class error
	err   error
}

func (e *classed) Error() string { return e.err.Error() }

// Unwrap lists the class first so that errors.Is finds the outermost class
// before any class that the wrapped error brings along.
func (e *classed) Unwrap() []error { return []error{e.class, e.err} }

// New returns an error with the formatted text that matches class. Errors
// given for %w verbs stay reachable by errors.Is and errors.As.
func New(class error, format string, args ...any) error {
	return &classed{class: class, err: fmt.Errorf(format, args...)}
}

// Wrap gives err a class and keeps its text. A nil err stays nil.
func Wrap(class, err error) error {
	if err == nil {
		return nil
	}
	return &classed{class: class, err: err}
}

// Class returns the outermost class that this package gave to err, or nil. An
// error that was classed twice answers with the later, outer decision.
func Class(err error) error {
	var c *classed
	if errors.As(err, &c) {
		return c.class
	}
	return nil
}

// NotFound is for objects that do not exist (404).
func NotFound(format string, args ...any) error {
	return New(errdefs.ErrNotFound, format, args...)
}

// Invalid is for requests that can never succeed as written (400).
func Invalid(format string, args ...any) error {
	return New(errdefs.ErrInvalidArgument, format, args...)
}

// Conflict is for requests that clash with the state of an object (409).
func Conflict(format string, args ...any) error {
	return New(errdefs.ErrConflict, format, args...)
}

// Forbidden is for requests that are never allowed on this object (403).
func Forbidden(format string, args ...any) error {
	return New(errdefs.ErrPermissionDenied, format, args...)
}

// Unavailable is for services that cannot answer at present (503).
func Unavailable(format string, args ...any) error {
	return New(errdefs.ErrUnavailable, format, args...)
}

// NotImplemented is for options and calls that the engine refuses by name (501).
func NotImplemented(format string, args ...any) error {
	return New(errdefs.ErrNotImplemented, format, args...)
}

// NotModified is for requests whose aim is already reached (304).
func NotModified(format string, args ...any) error {
	return New(ErrNotModified, format, args...)
}
