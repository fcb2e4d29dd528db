// Package expect is what tests hold the things they see against: conditions that come true, texts that a running
// program says, golden files. It promises that no verdict depends on how fast anything is: what is waited for may take
// as long as a machine under load needs.
package expect

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Patience is how long what a test waits for may take before the test gives up on it. It bounds a hang.
const Patience = 60 * time.Second

// pause is between two looks at a condition.
const pause = 2 * time.Millisecond

// update has golden files written anew: go test ./the/package -update.
var update = flag.Bool("update", false, "write the golden files anew")

// Eventually waits until ok, which others bring about. what says in the failure's message what did not come.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !ok(); time.Sleep(pause) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v in vain: %s", Patience, what)
		}
	}
}

// Golden holds got against a golden file, whose path is relative to the test's package.
func Golden(t testing.TB, path, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got == string(want) {
		return
	}
	line, has, should := difference(got, string(want))
	t.Errorf("%s: line %d is %q, not %q (go test -update writes the file anew); all of it:\n%s", path, line, has, should, got)
}

// difference is the first line that two texts do not share, counted from 1.
func difference(got, want string) (line int, has, should string) {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for line < len(g) && line < len(w) && g[line] == w[line] {
		line++
	}
	if line < len(g) {
		has = g[line]
	}
	if line < len(w) {
		should = w[line]
	}
	return line + 1, has, should
}

// Output collects what a program says, and can be read while it does. The zero value is empty.
type Output struct {
	Ended <-chan struct{} // closed when no more is said; nil if nobody tells

	mu   sync.Mutex
	text bytes.Buffer
	seen int // what Shows has waited for
}

// Write adds to it.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

// Close does nothing, for those who end what they write to.
func (o *Output) Close() error { return nil }

// String is all that has been said.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Shows waits until want is said, after what the call before has waited for.
func (o *Output) Shows(t testing.TB, want string) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !o.pass(want); time.Sleep(pause) {
		select {
		case <-o.Ended:
			if !o.pass(want) {
				t.Fatalf("it has ended without %q in:\n%s", want, o)
			}
			return
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %v in vain for %q in:\n%s", Patience, want, o)
		}
	}
}

func (o *Output) pass(want string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	at := bytes.Index(o.text.Bytes()[o.seen:], []byte(want))
	if at < 0 {
		return false
	}
	o.seen += at + len(want)
	return true
}
