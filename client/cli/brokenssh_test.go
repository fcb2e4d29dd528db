package cli_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Where a connection over ssh ends in the middle, what ssh has said is told, and not what it was run with.
func TestConnectionOverSSHThatBreaks(t *testing.T) {
	dir := t.TempDir()
	ssh := "#!/bin/sh\n" + program + " -H unix://" + breaksOff(t) + " system dial-stdio 2>/dev/null\necho Connection to there closed by remote host. >&2\nexit 255\n"
	if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte(ssh), 0o755); err != nil {
		t.Fatal(err)
	}
	for line, code := range map[string]int{"ps": 1, "logs -f a": 1, "wait a": 1, "events": 1, "volume create v": 1, "exec a b": 1, "run x": 125} {
		cmd := exec.Command(program, strings.Fields(line)...)
		cmd.Env = []string{"HOME=/nonexistent", "PATH=" + dir + ":/bin:/usr/bin", "DOCKER_HOST=ssh://there"}
		out, _ := cmd.CombinedOutput()
		const want = "the connection to the engine at ssh://there has broken"
		if said := string(out); cmd.ProcessState.ExitCode() != code || !strings.Contains(said, want) || strings.Count(said, "closed by remote host") != 1 || strings.Contains(said, "dial-stdio") {
			t.Errorf("%s: exit code %d: %s", line, cmd.ProcessState.ExitCode(), said)
		}
	}
}
