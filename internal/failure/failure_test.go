package failure_test

import (
	"errors"
	"io"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/failure"
)

func TestTextIsTheMessageAndClassMatches(t *testing.T) {
	cases := []struct {
		name  string
		err   error
		class error
	}{
		{"not found", failure.NotFound("thing %q", "a"), errdefs.ErrNotFound},
		{"invalid", failure.Invalid("thing %q", "a"), errdefs.ErrInvalidArgument},
		{"conflict", failure.Conflict("thing %q", "a"), errdefs.ErrConflict},
		{"forbidden", failure.Forbidden("thing %q", "a"), errdefs.ErrPermissionDenied},
		{"unavailable", failure.Unavailable("thing %q", "a"), errdefs.ErrUnavailable},
		{"not implemented", failure.NotImplemented("thing %q", "a"), errdefs.ErrNotImplemented},
		{"not modified", failure.NotModified("thing %q", "a"), failure.ErrNotModified},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := c.err.Error(); got != `thing "a"` {
				t.Errorf("text %q holds more than the message", got)
			}
			if !errors.Is(c.err, c.class) {
				t.Errorf("%v does not match its class", c.err)
			}
			if failure.Class(c.err) != c.class {
				t.Errorf("Class = %v", failure.Class(c.err))
			}
			for _, o := range cases {
				if o.class != c.class && errors.Is(c.err, o.class) {
					t.Errorf("matches the foreign class %v", o.class)
				}
			}
		})
	}
}

func TestWrapKeepsCauseAndOuterClassWins(t *testing.T) {
	inner := failure.NotFound("reading: %w", io.EOF)
	outer := failure.Wrap(errdefs.ErrInvalidArgument, inner)
	if !errors.Is(outer, io.EOF) {
		t.Error("the cause is lost")
	}
	if failure.Class(outer) != errdefs.ErrInvalidArgument {
		t.Errorf("Class = %v, want the outer one", failure.Class(outer))
	}
	if outer.Error() != "reading: EOF" {
		t.Errorf("text changed: %q", outer)
	}
	if failure.Wrap(errdefs.ErrNotFound, nil) != nil {
		t.Error("nil became an error")
	}
	if failure.Class(io.EOF) != nil {
		t.Error("a plain error has a class")
	}
}
