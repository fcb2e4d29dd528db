package solve

import (
	"bufio"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	bkclient "github.com/moby/buildkit/client"
)

// addRepository tells which commit of which repository a context in a directory is, for the
// provenance and the history, as buildx does. The repository's files are read here: to run
// git four times would take longer than many a build. Only whether there are changes that
// are not committed is asked of git, if BUILDX_GIT_CHECK_DIRTY wants it known. What cannot
// be found out is left out.
func (t *Target) addRepository(so *bkclient.SolveOpt) error {
	info, labels := setting("BUILDX_GIT_INFO", true), setting("BUILDX_GIT_LABELS", false) || os.Getenv("BUILDX_GIT_LABELS") == "full"
	if !info && !labels || t.Context == "-" || !isDir(t.Context) {
		return nil
	}
	repo, ok := findRepository(t.Context)
	if !ok {
		return nil
	}
	commit := repo.commit()
	if commit != "" && setting("BUILDX_GIT_CHECK_DIRTY", false) {
		dirty, err := repo.dirty()
		if err != nil {
			return err
		}
		if dirty {
			commit += "-dirty"
		}
	}
	dockerfile := t.Dockerfile
	if dockerfile == "" {
		dockerfile = filepath.Join(t.Context, defaultDockerfile)
	}
	local := dockerfile != "-" && !IsRemote(dockerfile)
	if info {
		set(so.FrontendAttrs, "vcs:revision", commit)
		set(so.FrontendAttrs, "vcs:source", repo.remote())
		set(so.FrontendAttrs, "vcs:localdir:context", repo.within(t.Context))
		if local {
			set(so.FrontendAttrs, "vcs:localdir:dockerfile", repo.within(filepath.Dir(dockerfile)))
		}
	}
	if labels {
		t.label(so, "org.opencontainers.image.revision", commit)
		t.label(so, "org.opencontainers.image.source", repo.remote())
		if local {
			t.label(so, "com.docker.image.source.entrypoint", repo.within(dockerfile))
		}
	}
	return nil
}

// label adds a label unless it was given.
func (t *Target) label(so *bkclient.SolveOpt, key, value string) {
	if _, given := t.Labels[key]; !given {
		set(so.FrontendAttrs, "label:"+key, value)
	}
}

// setting is a switch in the environment.
func setting(name string, usual bool) bool {
	if v, err := strconv.ParseBool(os.Getenv(name)); err == nil {
		return v
	}
	return usual
}

// repository is a working tree of git.
type repository struct {
	root   string // of the working tree, without links
	dir    string // what belongs to this working tree: HEAD
	common string // what is shared by all of the repository's: references, configuration
}

// findRepository looks for the working tree that a directory is in.
func findRepository(dir string) (repository, bool) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	for ; err == nil; dir = filepath.Dir(dir) {
		git := filepath.Join(dir, ".git")
		if st, err := os.Stat(git); err == nil {
			if !st.IsDir() { // of a linked working tree, or a submodule
				text, _ := os.ReadFile(git)
				to, ok := strings.CutPrefix(strings.TrimSpace(string(text)), "gitdir: ")
				if !ok {
					return repository{}, false
				}
				git = under(dir, to)
			}
			r := repository{root: dir, dir: git, common: git}
			if text, err := os.ReadFile(filepath.Join(git, "commondir")); err == nil {
				r.common = under(git, strings.TrimSpace(string(text)))
			}
			_, err := os.Stat(filepath.Join(git, "HEAD"))
			return r, err == nil
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	return repository{}, false
}

func under(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// maxReferences bounds a chain of references to references.
const maxReferences = 5

var commitID = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// branch is the reference that is checked out, "" for a commit that is so by itself.
func (r repository) branch() string {
	text, _ := os.ReadFile(filepath.Join(r.dir, "HEAD"))
	name, _ := strings.CutPrefix(strings.TrimSpace(string(text)), "ref: ")
	if name == strings.TrimSpace(string(text)) {
		return ""
	}
	return name
}

// commit is the one that is checked out, "" if there is none yet.
func (r repository) commit() string {
	name := "HEAD"
	for range maxReferences {
		if !filepath.IsLocal(name) {
			return ""
		}
		text, err := os.ReadFile(filepath.Join(r.dir, name))
		if err != nil {
			text, err = os.ReadFile(filepath.Join(r.common, name))
		}
		value := strings.TrimSpace(string(text))
		if err != nil {
			value = r.packed(name)
		}
		if next, ok := strings.CutPrefix(value, "ref: "); ok {
			name = next
			continue
		}
		if commitID.MatchString(value) {
			return value
		}
		return ""
	}
	return ""
}

// packed looks a reference up that has no file of its own.
func (r repository) packed(name string) string {
	f, err := os.Open(filepath.Join(r.common, "packed-refs"))
	if err != nil {
		return ""
	}
	defer f.Close()
	for scan := bufio.NewScanner(f); scan.Scan(); {
		if id, ref, ok := strings.Cut(scan.Text(), " "); ok && ref == name {
			return id
		}
	}
	return ""
}

var (
	section = regexp.MustCompile(`^\[\s*([\w.-]+)\s*(?:"(.*)")?\s*\]`)
	value   = regexp.MustCompile(`^([\w-]+)\s*=\s*(.*)$`)
)

// remote is where the branch comes from, or else origin: a URL without credentials.
func (r repository) remote() string {
	f, err := os.Open(filepath.Join(r.common, "config"))
	if err != nil {
		return ""
	}
	defer f.Close()
	branch := strings.TrimPrefix(r.branch(), "refs/heads/")
	urls, from, kind, name := map[string]string{}, "origin", "", ""
	for scan := bufio.NewScanner(f); scan.Scan(); {
		line := strings.TrimSpace(scan.Text())
		if m := section.FindStringSubmatch(line); m != nil {
			kind, name = strings.ToLower(m[1]), strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(m[2])
			continue
		}
		m := value.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		text := strings.Trim(m[2], `"`)
		switch {
		case kind == "remote" && strings.EqualFold(m[1], "url") && urls[name] == "":
			urls[name] = text
		case kind == "branch" && name == branch && strings.EqualFold(m[1], "remote") && text != ".":
			from = text
		}
	}
	where := urls[from]
	for _, other := range []string{"origin", "upstream"} {
		if where == "" {
			where = urls[other]
		}
	}
	u, err := url.Parse(where)
	switch {
	case err == nil && u.User != nil:
		u.User = nil
		return u.String()
	case err != nil && strings.Contains(where, "://"):
		return "" // what cannot be taken apart may have a password in it
	}
	return where // a path, or HOST:PATH
}

// within is a path inside the working tree, "" for one outside.
func (r repository) within(path string) string {
	path, err := filepath.Abs(path)
	if err == nil {
		var dir string
		if dir, err = filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
			path = filepath.Join(dir, filepath.Base(path))
		}
	}
	if whole, werr := filepath.EvalSymlinks(path); werr == nil && isDir(whole) {
		path = whole
	}
	rel, rerr := filepath.Rel(r.root, path)
	if err != nil || rerr != nil || !filepath.IsLocal(rel) {
		return ""
	}
	return rel
}

// dirty asks git whether something is not committed.
func (r repository) dirty() (bool, error) {
	cmd := exec.Command("git", "status", "--porcelain", "--ignored")
	cmd.Dir = r.root
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return false, errors.New("BUILDX_GIT_CHECK_DIRTY needs the program git, which was not found")
	}
	if err != nil {
		return false, fmt.Errorf("git status in %s: %w", r.root, err)
	}
	return len(out) > 0, nil
}
