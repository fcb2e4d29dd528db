package term_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/client/term"
)

func TestConfirm(t *testing.T) {
	for answer, want := range map[string]bool{"y\n": true, " Y \n": true, "yes": true, "n\n": false, "": false, "yesterday\n": false, "no\ny\n": false} {
		var out bytes.Buffer
		got, err := term.Confirm(t.Context(), strings.NewReader(answer), &out, "Sure? [y/N]", "y", "yes")
		if err != nil || got != want || out.String() != "Sure? [y/N] " {
			t.Errorf("%q: %v, %v, %q", answer, got, err, out.String())
		}
	}
	// Nobody answers, and somebody interrupts.
	in, w := io.Pipe()
	defer w.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted")
	cancel(interrupted)
	if got, err := term.Confirm(ctx, in, io.Discard, "Sure?", "y"); got || !errors.Is(err, interrupted) {
		t.Errorf("%v, %v", got, err)
	}
}
