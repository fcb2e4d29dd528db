package e2e

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestClientsPrepareLittle holds what packages allocate before main, which is the greater part of what a short command
// takes: one that compiles its regular expressions or schemas there is paid for by every command of every user.
func TestClientsPrepareLittle(t *testing.T) {
	t.Parallel()
	prepared := regexp.MustCompile(`(?m)^init \S+ @\S+ ms, \S+ ms clock, (\d+) bytes`)
	for program, most := range map[string]int{"cleat": 140_000, "cleat-compose": 400_000, "cleat-build": 900_000, "cleat-bake": 1_500_000} {
		cmd := exec.Command(harness.Binary(t, program), "version", "--help")
		cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", program, err, out)
		}
		total := 0
		for _, m := range prepared.FindAllSubmatch(out, -1) {
			n, err := strconv.Atoi(string(m[1]))
			if err != nil {
				t.Fatal(err)
			}
			total += n
		}
		t.Logf("%s: %d bytes", program, total)
		if total == 0 || total > most {
			t.Errorf("%s allocates %d bytes before it begins, of %d at most:\n%s", program, total, most, out)
		}
	}
}
