package engine

import (
	"strconv"
	"syscall"

	"github.com/moby/sys/signal"

	"github.com/cleatlabs/cleat/internal/failure"
)

// parseSignal reads a signal's name, with or without SIG, or its number.
func parseSignal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 1 || n > 64 {
			return 0, failure.Invalid("invalid signal: %s", s)
		}
		return syscall.Signal(n), nil
	}
	sig, err := signal.ParseSignal(s)
	if err != nil {
		return 0, failure.Invalid("invalid signal: %s", s)
	}
	return sig, nil
}
