package term_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/docker/cli/cli/command/formatter/tabwriter"

	"github.com/cleatlabs/cleat/client/term"
)

// TestTableOfWideText: cells are as wide as Docker's tables take them for, whatever a label or a description holds.
func TestTableOfWideText(t *testing.T) {
	for _, cell := range []string{
		"abc", "日本語", "🚀🚀", "e\u0301te\u0301", "👩‍👩‍👧", "👍🏽", "⚠️", "🇩🇪🇫🇷", "\x1b[31mred", "zero\u200bwidth", "กำลัง", "हिन्दी", "שָׁלוֹם", "bad\xc3\x80\xc3", "한글", "\u0085x",
	} {
		text := "NAME\tWHAT\tID\n" + cell + "\t" + cell + cell + "\tx\nother\tthing\ty\n"
		var got, want bytes.Buffer
		ours, theirs := term.NewTable(&got, 10, 3), tabwriter.NewWriter(&want, 10, 1, 3, ' ', 0)
		for _, w := range []io.Writer{ours, theirs} {
			if _, err := io.WriteString(w, text); err != nil {
				t.Fatal(err)
			}
		}
		if err := ours.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := theirs.Flush(); err != nil {
			t.Fatal(err)
		}
		if got.String() != want.String() {
			t.Errorf("%q:\nours    %q\nDocker's %q", cell, got.String(), want.String())
		}
	}
}
