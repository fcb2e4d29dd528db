package term

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Confirm asks the user a question on out, and whether one of yes, in whatever case, is the first line that in has. When
// ctx ends first, which a signal does, its cause is the error.
func Confirm(ctx context.Context, in io.Reader, out io.Writer, question string, yes ...string) (bool, error) {
	_, _ = fmt.Fprint(out, question+" ")
	answer := make(chan bool, 1) // the reader may outlive the question
	go func() {
		s := bufio.NewScanner(in)
		answer <- s.Scan() && slices.ContainsFunc(yes, func(y string) bool { return strings.EqualFold(strings.TrimSpace(s.Text()), y) })
	}()
	select {
	case <-ctx.Done():
		_, _ = fmt.Fprintln(out)
		return false, context.Cause(ctx)
	case said := <-answer:
		return said, nil
	}
}
