package build_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bkclient "github.com/moby/buildkit/client"
	"github.com/tonistiigi/fsutil"

	"github.com/cleatlabs/cleat/internal/build"
)

// The engine builds for clients that do not speak BuildKit's protocol.
func TestSolveWithoutAClient(t *testing.T) {
	b := bareBench(t)
	dir := t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY a /a\n"), 0o644), os.WriteFile(filepath.Join(dir, "a"), []byte("text"), 0o644)); err != nil {
		t.Fatal(err)
	}
	files, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	var steps []string
	status := make(chan *bkclient.SolveStatus)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for s := range status {
			for _, v := range s.Vertexes {
				steps = append(steps, v.Name)
			}
		}
	}()
	response, err := b.builder.Solve(t.Context(), nil, bkclient.SolveOpt{
		Frontend: "dockerfile.v0", LocalMounts: map[string]fsutil.FS{"context": files, "dockerfile": files},
		Exports: []bkclient.ExportEntry{{Type: build.ExporterMoby, Attrs: map[string]string{"name": "own"}}},
	}, status)
	<-read
	if err != nil {
		t.Fatal(err)
	}
	if response.ExporterResponse["containerimage.digest"] == "" || !strings.Contains(strings.Join(steps, "\n"), "COPY a /a") {
		t.Errorf("%v, %q", response.ExporterResponse, steps)
	}
}
