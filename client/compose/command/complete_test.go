package command

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The tab key offers services, and not the directory's files.
func TestCompletion(t *testing.T) {
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/containers/json") {
			_, _ = w.Write([]byte(`[{"Labels":{"com.docker.compose.project":"shop"}},{"Labels":{"com.docker.compose.project":"shop"}},{"Labels":{"com.docker.compose.project":"blog"}}]`))
		}
	}))
	defer engine.Close()
	t.Setenv("DOCKER_HOST", "tcp://"+engine.Listener.Addr().String())
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile(filepath.Join(dir, "compose.yaml"), []byte("services:\n  web: {image: x}\n  worker: {image: x}\n  tests: {image: x, profiles: [dev]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "other.yaml"), []byte("services: {db: {image: x}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const none, noSpace, noFile = ":0", ":2", ":4"
	for line, want := range map[string]string{
		"compose logs |": "tests web worker " + noFile, "compose up w|": "web worker " + noFile, "compose up web w|": "worker " + noFile, "compose -f other.yaml stop |": "db " + noFile,
		"compose exec |": "tests web worker " + noFile, "compose exec web |": none, "compose run --rm |": "tests web worker " + noFile, "compose scale w|": "web= worker= " + noSpace,
		"compose wait |": "tests web worker " + noFile, "compose down |": "tests web worker " + noFile, "compose ls |": noFile, "compose cp |": none, "compose -f missing.yaml ps |": noFile,
		"compose --profile |": "dev " + noFile, "compose -p |": "blog shop " + noFile, "compose --ansi |": "always auto never " + noFile,
	} {
		words := strings.Split(strings.TrimSuffix(line, "|"), " ")
		var out, errs bytes.Buffer
		t.Setenv("DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND", "cleat")
		if code := Run(Process{Args: append([]string{"cleat-compose", "__completeNoDesc"}, words...), In: strings.NewReader(""), Out: &out, Err: &errs}); code != 0 {
			t.Errorf("%s: exit code %d: %s", line, code, errs.String())
		}
		if got := strings.Join(strings.Fields(out.String()), " "); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}
