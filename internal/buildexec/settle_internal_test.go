package buildexec

import (
	"errors"
	"log/slog"
	"syscall"
	"testing"

	"github.com/cleatlabs/cleat/internal/record"
)

// TestSettlingThatFailed is not tried again and believed.
func TestSettlingThatFailed(t *testing.T) {
	var answers []error
	s := settling{log: slog.New(slog.DiscardHandler), sync: func(*written) error {
		err := answers[0]
		answers = answers[1:]
		return err
	}}
	settle := func(answer error) error {
		answers = append(answers, answer)
		if err := s.wrote(t.TempDir()); err != nil {
			t.Fatal(err)
		}
		return s.settle()
	}
	if err := settle(nil); err != nil {
		t.Error(err)
	}
	for _, answer := range []error{syscall.EIO, nil} {
		if err := settle(answer); !errors.Is(err, syscall.EIO) || !errors.Is(err, record.ErrUnwritten) {
			t.Errorf("%v: %v", answer, err)
		}
	}
	if err := s.close(); !errors.Is(err, record.ErrUnwritten) {
		t.Errorf("closed: %v", err)
	}
	if len(answers) > 0 {
		t.Errorf("not synced: %v", answers)
	}
}
