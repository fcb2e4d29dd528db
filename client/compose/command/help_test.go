package command

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/expect"
)

// TestHelp: the pages are laid out as those of the client's other commands.
func TestHelp(t *testing.T) {
	for name, args := range map[string][]string{"compose": {"compose", "--help"}, "exec": {"compose", "exec", "--help"}} {
		var out, errs bytes.Buffer
		if code := Run(Process{Args: append([]string{"cleat-compose"}, args...), Out: &out, Err: &errs}); code != 0 {
			t.Errorf("%s: exit code %d: %s", name, code, errs.String())
		}
		expect.Golden(t, filepath.Join("testdata", "golden", "help", name+".txt"), out.String())
	}
}

// A command that there is none of is told by the exit code that docker compose has for it.
func TestUnknownCommand(t *testing.T) {
	var out, errs bytes.Buffer
	if code := Run(Process{Args: []string{"cleat-compose", "compose", "kil"}, Out: &out, Err: &errs}); code != 1 || !strings.Contains(errs.String(), `unknown cleat command: "compose kil"`) {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
}
