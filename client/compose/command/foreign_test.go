package command

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/test/expect"
)

// A foreign engine that lists containers may say anything else of them, or nothing: what is wrong is told, and the command
// ends.
func TestForeignEngines(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "compose.yaml")
	if err := os.WriteFile(file, []byte("name: p\nservices:\n  web: {image: x, networks: [n]}\n  on: {image: x, depends_on: {web: {condition: service_healthy}}}\nnetworks: {n: {}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_CONFIG", dir)
	const listed = `[{"Id":"c1","Image":"x","ImageID":"i","Names":["/p-web-1"],"State":"exited","NetworkSettings":{"Networks":{"p_n":null,"x":null}},"Labels":` +
		`{"com.docker.compose.project":"p","com.docker.compose.service":"web","com.docker.compose.container-number":"1","com.docker.compose.oneoff":"False"}}]`
	for name, answer := range map[string]string{"nothing": "", "an object": "{}", "null": "null", "a list": "[]", "a list of null": "[null]", "cut off": `{"Id":"4`, "a text": `"x"`} {
		engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch path := r.URL.Path; {
			case strings.HasSuffix(path, "/_ping"):
				w.Header().Set("Api-Version", "1.50")
			case strings.HasSuffix(path, "/containers/json"):
				_, _ = w.Write([]byte(listed))
			default:
				_, _ = w.Write([]byte(answer))
			}
		}))
		t.Setenv("DOCKER_HOST", "tcp://"+engine.Listener.Addr().String())
		for _, line := range []string{
			"ps", "ps -a", "ps -a --format json", "ls -a", "images", "images --format json", "volumes", "top", "port web 80", "logs", "logs -f", "events --until 1", "pull", "push",
			"create", "up -d", "up -d --wait", "up", "up --force-recreate -d", "start", "stop", "restart", "kill", "pause", "unpause", "wait web", "rm -fs", "down web", "down web --rmi all -v", "down on --remove-orphans", "down", "down --rmi all -v", "version",
		} {
			out := new(strings.Builder)
			ended := make(chan int, 1)
			go func() {
				ended <- Run(Process{Args: append([]string{"cleat-compose", "-f", file}, strings.Fields(line)...), Version: "1", In: strings.NewReader(""), Out: out, Err: out})
			}()
			select {
			case <-ended:
			case <-time.After(expect.Patience):
				t.Fatalf("compose %s does not end where the engine answers %s", line, name)
			}
		}
		engine.Close()
	}
}
