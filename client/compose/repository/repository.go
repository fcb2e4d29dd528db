// Package repository reads Compose projects that lie in git repositories, named as builds name their contexts:
// `https://host/path.git#REF:DIRECTORY`, `git@host:path.git`, `ssh://…`, `git://…` or `github.com/owner/name`.
//
// It promises:
//   - The user's own git fetches, with the user's credentials; it asks for none on the terminal.
//   - A commit is fetched once and kept whole, or not at all, in the user's cache.
//   - A directory of the repository never leads out of it, by links neither. Submodules are not fetched, and nothing of a
//     repository is run.
package repository

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"github.com/compose-spec/compose-go/v2/cli"
)

// Loader is compose-go's loader of projects in repositories. It is used by one goroutine.
type Loader struct {
	known map[string]string // where what was asked for lies
}

// Accept says whether a path names a repository.
func (l *Loader) Accept(path string) bool {
	_, ok := parse(path)
	return ok
}

// Dir is the directory of the repository that was loaded.
func (l *Loader) Dir(path string) string { return l.known[path] }

// Load gives the path of a project's file in a local copy of the repository, which is fetched once.
func (l *Loader) Load(ctx context.Context, path string) (string, error) {
	from, ok := parse(path)
	if !ok {
		return "", fmt.Errorf("%s is no git repository", path)
	}
	dir, known := l.known[path]
	if !known {
		var err error
		if dir, err = from.fetched(ctx); err != nil {
			return "", err
		}
		if l.known == nil {
			l.known = map[string]string{}
		}
		l.known[path] = dir
	}
	return from.file(dir)
}

// source is a repository, and what of it is meant.
type source struct{ remote, ref, directory string }

var (
	commit = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9a-f]{40}([0-9a-f]{24})?$`) })
	scp    = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*@[A-Za-z0-9][A-Za-z0-9.-]*:[^:]+$`)
	})
)

// parse reads the name of a repository. What is a file's name is none.
func parse(path string) (source, bool) {
	remote, fragment, _ := strings.Cut(path, "#")
	ref, directory, _ := strings.Cut(fragment, ":")
	s := source{remote, ref, directory}
	if strings.HasPrefix(remote, "github.com/") {
		s.remote = "https://" + remote
		return s, true
	}
	if u, err := url.Parse(remote); err == nil && u.Host != "" {
		switch u.Scheme {
		case "git", "ssh":
			return s, true
		case "http", "https":
			return s, strings.HasSuffix(strings.TrimSuffix(u.Path, "/"), ".git")
		}
		return source{}, false
	}
	return s, scp().MatchString(remote)
}

// fetched is the directory with the commit's files.
func (s source) fetched(ctx context.Context) (string, error) {
	id, err := s.resolve(ctx)
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "cleat-compose", "git", id)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return "", err
	}
	made, err := os.MkdirTemp(filepath.Dir(dir), ".new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(made) // gone by then, unless something failed
	for _, line := range [][]string{{"init", "-q"}, {"fetch", "-q", "--depth=1", "--", s.remote, id}, {"checkout", "-q", "--detach", id}} {
		if _, err := git(ctx, made, line...); err != nil {
			return "", fmt.Errorf("failed to fetch %s: %w", s, err)
		}
	}
	err = os.Rename(made, dir)
	if _, there := os.Stat(dir); there == nil {
		return dir, nil // another one was faster
	}
	return "", err
}

// String is the repository without a password that may stand in its URL.
func (s source) String() string {
	if u, err := url.Parse(s.remote); err == nil {
		return u.Redacted()
	}
	return s.remote
}

// resolve finds the commit that is meant.
func (s source) resolve(ctx context.Context) (string, error) {
	if commit().MatchString(s.ref) {
		return s.ref, nil
	}
	ref := s.ref
	if ref == "" {
		ref = "HEAD" // of the default branch
	}
	out, err := git(ctx, "", "ls-remote", "--exit-code", "--", s.remote, ref)
	if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() == 2 {
		return "", fmt.Errorf("repository %s does not contain ref %s", s, ref)
	}
	if err != nil {
		return "", fmt.Errorf("failed to access repository at %s: %w", s, err)
	}
	id, found := listed(out, ref)
	if !found {
		return "", fmt.Errorf("repository %s does not contain ref %s", s, ref)
	}
	if !commit().MatchString(id) {
		return "", fmt.Errorf("repository %s: git gives %q for a commit", s, id)
	}
	return id, nil
}

// listed finds a ref in the lines of git ls-remote, which lists all whose names end in it: feature/main for main, too,
// and first. Of a branch and a tag of one name it is the branch.
func listed(lines, ref string) (id string, found bool) {
	ids := map[string]string{}
	for line := range strings.Lines(lines) {
		id, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		ids[name] = id
	}
	for _, above := range []string{"", "refs/heads/", "refs/tags/", "refs/"} {
		if id, found = ids[above+ref]; found {
			break
		}
	}
	return id, found
}

// file is the project's file in a directory of the repository, which is at root.
func (s source) file(root string) (string, error) {
	found, err := inside(root, s.directory)
	if err != nil {
		return "", fmt.Errorf("%s: %w", s, err)
	}
	st, err := os.Stat(found)
	if err != nil {
		return "", fmt.Errorf("%s has no %s", s, s.directory)
	}
	if !st.IsDir() {
		return found, nil
	}
	for _, name := range cli.DefaultFileNames {
		if _, err := os.Lstat(filepath.Join(found, name)); err == nil {
			return inside(root, filepath.Join(s.directory, name))
		}
	}
	return "", fmt.Errorf("%s has no compose file in %s: add a directory of it to the name, as in #main:deploy", s, filepath.Join("/", s.directory))
}

// inside is a path below root, which links lead out of not either.
func inside(root, path string) (string, error) {
	if filepath.IsAbs(path) || !filepath.IsLocal(filepath.Join(".", path)) {
		return "", fmt.Errorf("%q leads out of the repository", path)
	}
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return "", err
	}
	found, err := filepath.EvalSymlinks(filepath.Join(root, path))
	if err != nil {
		return "", fmt.Errorf("%q is not there", path)
	}
	if rel, err := filepath.Rel(root, found); err != nil || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("%q leads out of the repository", path)
	}
	return found, nil
}

// git runs git in a directory, which asks nobody for anything, and returns what it says.
func git(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = os.Environ()
	if os.Getenv("GIT_TERMINAL_PROMPT") == "" {
		cmd.Env = append(cmd.Env, "GIT_TERMINAL_PROMPT=0")
	}
	if os.Getenv("GIT_SSH") == "" && os.Getenv("GIT_SSH_COMMAND") == "" {
		cmd.Env = append(cmd.Env, "GIT_SSH_COMMAND=ssh -o ControlMaster=no -o BatchMode=yes")
	}
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return "", errors.New("the program git is needed for projects in repositories: install it")
	}
	if err != nil && said.Len() > 0 {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(said.String()))
	}
	return string(out), err
}
