package command_test

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/client/compose/command"
)

// TestErrorsOfFilesDoNotWaitForTheEngine: what is wrong with the files is told also while an engine is reached that
// does not answer.
func TestErrorsOfFilesDoNotWaitForTheEngine(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "compose.yaml")
	if err := os.WriteFile(file, []byte("services: {web: {imagee: x}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_HOST", "tcp://"+ln.Addr().String())
	t.Setenv("DOCKER_CONFIG", dir)
	var out, complaints bytes.Buffer
	code := make(chan int, 1)
	go func() {
		code <- command.Run(command.Process{Args: []string{"cleat-compose", "-f", file, "up", "-d"}, Version: "test", In: strings.NewReader(""), Out: &out, Err: &complaints})
	}()
	select {
	case c := <-code:
		if c != 1 || !strings.Contains(complaints.String(), "imagee") {
			t.Errorf("%d: %s", c, complaints.String())
		}
	case <-time.After(time.Minute):
		t.Fatal("the engine is waited for")
	}
}
