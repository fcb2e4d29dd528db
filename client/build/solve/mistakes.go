package solve

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ContextError says that a context is not what it could be.
type ContextError struct{ Path string }

func (e *ContextError) Error() string {
	st, err := os.Stat(e.Path)
	if err == nil && !st.IsDir() {
		return fmt.Sprintf("unable to prepare context: %s is a file, and the context is a directory: to build with this Dockerfile, write '-f %s %s'",
			e.Path, e.Path, filepath.Dir(e.Path))
	}
	return fmt.Sprintf("unable to prepare context: path %q not found", e.Path)
}

// DockerfileError says that there is no Dockerfile of a name, and which there are.
type DockerfileError struct{ Dir, Name string }

func (e *DockerfileError) Error() string {
	msg := fmt.Sprintf("failed to read dockerfile: open %s: no such file or directory", filepath.Join(e.Dir, e.Name))
	entries, err := os.ReadDir(e.Dir)
	if err != nil {
		return msg + fmt.Sprintf(" (there is no directory %s either)", e.Dir)
	}
	var like []string
	for _, d := range entries {
		if n := strings.ToLower(d.Name()); !d.IsDir() && (strings.Contains(n, "dockerfile") || strings.Contains(n, "containerfile")) && !strings.HasSuffix(n, ".dockerignore") {
			like = append(like, filepath.Join(e.Dir, d.Name()))
		}
	}
	slices.Sort(like)
	const most = 5
	switch {
	case len(like) == 0:
		return msg + ": give the Dockerfile's path by -f, or the directory that it is in as the context"
	case len(like) > most:
		return msg + fmt.Sprintf(": there are %s and %d more, choose one by -f", strings.Join(like[:most], ", "), len(like)-most)
	case len(like) == 1:
		return msg + fmt.Sprintf(": there is %s, write '-f %s'", like[0], like[0])
	}
	return msg + fmt.Sprintf(": there are %s, choose one by -f", strings.Join(like, ", "))
}
