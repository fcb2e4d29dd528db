package cli_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestHeadersLikeDocker: what DOCKER_CUSTOM_HEADERS or the configuration says is sent with every request, those that take
// the connection over included.
func TestHeadersLikeDocker(t *testing.T) {
	config := t.TempDir()
	if err := os.WriteFile(filepath.Join(config, "config.json"), []byte(`{"HttpHeaders":{"X-Seen":"configured","X-Other":"configured"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		env  string
		seen []string
	}{
		{"", []string{"configured/configured"}},
		{"DOCKER_CUSTOM_HEADERS=x-seen=one", []string{"one/"}},
		{`DOCKER_CUSTOM_HEADERS=" X-Seen =one, two",X-Other=x=y`, []string{"one, two/x=y"}},
		{"DOCKER_CUSTOM_HEADERS=X-Seen", nil},
		{"DOCKER_CUSTOM_HEADERS==one", nil},
		{`DOCKER_CUSTOM_HEADERS="X-Seen`, nil},
	} {
		for _, line := range []string{"ps", "exec web ls"} {
			run := func(bin string) (seen []string, said string, code int) {
				f := newFake(t)
				cmd := exec.Command(bin, strings.Fields(line)...)
				cmd.Env = []string{"PATH=/bin", "DOCKER_CONFIG=" + config, "DOCKER_HOST=" + f.host(), c.env}
				out, _ := cmd.CombinedOutput()
				f.mu.Lock()
				defer f.mu.Unlock()
				return slices.Compact(f.custom), string(out), cmd.ProcessState.ExitCode()
			}
			seen, said, code := run(asDocker)
			wantSeen, wantSaid, wantCode := run(docker(t))
			if !slices.Equal(seen, c.seen) || !slices.Equal(seen, wantSeen) || said != wantSaid || code != wantCode {
				t.Errorf("%s %s: exit code %d, sent %q, said %s\ndocker: exit code %d, sent %q, said %s", c.env, line, code, seen, said, wantCode, wantSeen, wantSaid)
			}
		}
	}
}
