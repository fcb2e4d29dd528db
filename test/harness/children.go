package harness

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Children are the processes that this one has started and that have these arguments, the program's name first. A
// process that has ended has none.
func Children(t testing.TB, args ...string) (pids []int) {
	t.Helper()
	lists, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		b, _ := os.ReadFile(list) // of a thread that has just ended
		for _, f := range strings.Fields(string(b)) {
			line, err := os.ReadFile("/proc/" + f + "/cmdline")
			if err != nil || !strings.HasPrefix(string(line), strings.Join(args, "\x00")+"\x00") {
				continue
			}
			pid, err := strconv.Atoi(f)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}
