package e2e

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestClientsPrepareLittle holds what our packages allocate before main: one that compiles its regular expressions there
// is paid for by every command of every user.
func TestClientsPrepareLittle(t *testing.T) {
	t.Parallel()
	prepared := regexp.MustCompile(`(?m)^init (\S+) @\S+ ms, \S+ ms clock, (\d+) bytes`)
	ours := regexp.MustCompile(`^github\.com/cleatlabs/`)
	for program, most := range map[string]int{"cleat": 20_000, "cleat-compose": 20_000, "cleat-build": 60_000, "cleat-bake": 60_000} {
		cmd := exec.Command(harness.Binary(t, program), "version", "--help")
		cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", program, err, out)
		}
		total, seen := 0, false
		for _, m := range prepared.FindAllSubmatch(out, -1) {
			if !ours.Match(m[1]) {
				continue
			}
			n, err := strconv.Atoi(string(m[2]))
			if err != nil {
				t.Fatal(err)
			}
			total, seen = total+n, true
		}
		if !seen || total > most {
			t.Errorf("%s allocates %d bytes before it begins, of %d at most:\n%s", program, total, most, out)
		}
	}
}
