package classic

import (
	"bytes"
	"errors"
	"io/fs"
	"path"

	"github.com/moby/buildkit/util/staticfs"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	"github.com/tonistiigi/fsutil/types"

	"github.com/cleatlabs/cleat/internal/failure"
)

const ignoreFile = ".dockerignore"

// dropIgnored takes the Dockerfile and the .dockerignore out of the context if that excludes them. A client leaves out what
// else it excludes, or means it to be there: to a classic build it says nothing about the other files of an archive.
func (s *sources) dropIgnored(dockerfile string) error {
	text, err := s.read(ignoreFile, maxDockerfile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	patterns, err := ignorefile.ReadAll(bytes.NewReader(text))
	if err != nil {
		return failure.Invalid("the build context's %s cannot be read: %w", ignoreFile, err)
	}
	for _, name := range []string{ignoreFile, dockerfile} {
		// Docker passes over patterns that are none.
		if ignored, err := patternmatcher.MatchesOrParentMatches(name, patterns); ignored && err == nil {
			s.drop(name)
		}
	}
	return nil
}

// definition is the Dockerfile as the frontend looks for it. A file of patterns of its own, which exclude nothing, keeps the
// frontend from excluding by what the context has of them.
func definition(name string, text []byte) *staticfs.FS {
	only := staticfs.NewFS()
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		only.Add(dir, &types.Stat{Mode: uint32(fs.ModeDir | 0o755)}, nil)
	}
	only.Add(name, &types.Stat{}, text)
	only.Add(name+ignoreFile, &types.Stat{}, []byte("# what is here is not excluded\n"))
	return only
}
