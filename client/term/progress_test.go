package term_test

import (
	"strings"
	"testing"

	"github.com/moby/moby/api/types/jsonstream"

	"github.com/cleatlabs/cleat/client/term"
)

// TestProgressBelowNothing: a count below nothing, which an engine may send, has no bar.
func TestProgressBelowNothing(t *testing.T) {
	out, text := screen(t, 24, 120)
	if err := term.NewProgress(out).Show(message("aa", "Downloading", &jsonstream.Progress{Current: -500, Total: 1000})); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(shown(text()), "\n"); got != "aa: Downloading\n" {
		t.Errorf("%q", got)
	}
}
