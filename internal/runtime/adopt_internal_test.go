package runtime

import (
	"bytes"
	"io"
	"testing"
)

// TestSavedOutputThatDoesNotFit is an error, and no output that ends in the middle.
func TestSavedOutputThatDoesNotFit(t *testing.T) {
	for size, fits := range map[int64]bool{0: true, 5: true, pipeSize: true, pipeSize + 1: false} {
		saved := bytes.Repeat([]byte("x"), int(size))
		f, err := pipeOf(io.NewSectionReader(bytes.NewReader(saved), 0, size), "stdout")
		if (err == nil) != fits {
			t.Errorf("%d bytes: %v", size, err)
		}
		if err != nil {
			continue
		}
		if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, saved) {
			t.Errorf("%d bytes of %d: %v", len(got), size, err)
		}
		f.Close()
	}
}
