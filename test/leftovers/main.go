// Command leftovers holds the gate to its word: what the tests of all packages started, mounted and made on this machine
// is gone when they have ended.
//
//	leftovers note FILE     writes down what the machine holds
//	leftovers check FILE    fails and names what it holds now and did not then
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/cleatlabs/cleat/test/harness"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "leftovers:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "note":
		return note(args[1])
	case len(args) == 2 && args[0] == "check":
		return check(args[1])
	}
	return fmt.Errorf("usage: leftovers note|check FILE")
}

func note(file string) error {
	now, err := harness.Take()
	if err != nil {
		return err
	}
	b, err := json.Marshal(now)
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o600)
}

func check(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var before harness.Snapshot
	if err := json.Unmarshal(b, &before); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if left := before.Leftovers(); len(left) > 0 {
		return fmt.Errorf("the tests left behind:\n  %s", strings.Join(left, "\n  "))
	}
	return nil
}
