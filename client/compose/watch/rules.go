// Package watch tells which files of a Compose project have changed, and what its develop sections say to do about
// each.
//
// It promises:
//   - The kernel tells of changes (inotify): nothing is polled. Changes that come together are one batch.
//   - No change is missed: where the kernel drops some, everything counts as changed.
//   - The patterns mean what they mean to docker compose, those of .dockerignore included.
package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// Rule is one entry of a service's develop.watch.
type Rule struct {
	types.Trigger
	Service string

	include *patternmatcher.PatternMatcher // nil is everything
	ignore  []*patternmatcher.PatternMatcher
}

// ErrNone is the error of Rules if no service has anything to watch.
var ErrNone = errors.New("none of the selected services is configured for watch, consider setting a 'develop' section")

// Rules are those of all services of a project, in a stable order. Warn is told of those that are left out: what is
// bind mounted is in the container already.
func Rules(p *types.Project, warn func(string)) ([]Rule, error) {
	var rules []Rule
	for _, name := range p.ServiceNames() {
		s := p.Services[name]
		if s.Develop == nil {
			continue
		}
		for _, t := range s.Develop.Watch {
			r, err := newRule(s, t)
			if err != nil {
				return nil, fmt.Errorf("service %q: develop.watch: %w", name, err)
			}
			if r.Syncs() && bound(t.Path, s.Volumes) {
				warn(fmt.Sprintf("path '%s' also declared by a bind mount volume, this path won't be monitored!", t.Path))
				continue
			}
			rules = append(rules, r)
		}
	}
	if len(rules) == 0 {
		return nil, ErrNone
	}
	return rules, nil
}

func newRule(s types.ServiceConfig, t types.Trigger) (Rule, error) {
	r := Rule{Trigger: t, Service: s.Name}
	switch t.Action {
	case types.WatchActionRebuild:
		if s.Build == nil {
			return r, fmt.Errorf("can't watch service %q with action %s without a build context", s.Name, t.Action)
		}
	case types.WatchActionSync, types.WatchActionSyncRestart, types.WatchActionSyncExec:
		if t.Target == "" {
			return r, fmt.Errorf("the action %s of %s needs a target: where the files go in the container", t.Action, t.Path)
		}
		if t.Action == types.WatchActionSyncExec && len(t.Exec.Command) == 0 {
			return r, fmt.Errorf("can't watch with action %q on service %s without a command", t.Action, s.Name)
		}
	case types.WatchActionRestart:
	default:
		return r, fmt.Errorf("unknown action %q", t.Action)
	}
	if len(t.Include) > 0 {
		m, err := matcher(t.Path, t.Include)
		if err != nil {
			return r, fmt.Errorf("include: %w", err)
		}
		r.include = m
	}
	ignored, err := dockerIgnore(s.Build)
	if err != nil {
		return r, err
	}
	own, err := matcher(t.Path, t.Ignore)
	if err != nil {
		return r, fmt.Errorf("ignore: %w", err)
	}
	passing, err := patternmatcher.New(slices.Concat(passing))
	if err != nil {
		return r, err
	}
	r.ignore = []*patternmatcher.PatternMatcher{own, passing}
	if ignored != nil {
		r.ignore = append(r.ignore, ignored)
	}
	// Patterns are compiled by their first use, which must not be that of two goroutines at once.
	for _, m := range append(slices.Clone(r.ignore), r.include) {
		if m != nil {
			if _, err := m.MatchesOrParentMatches("a/b"); err != nil {
				return r, err
			}
		}
	}
	return r, nil
}

// passing are files that editors and tools make for a moment, and what git keeps for itself.
var passing = []string{
	"**/.git", "**/*___jb_old___", "**/*___jb_tmp___", "**/.idea/**", "**/.#*", "**/#*#", "**/4913", "**/*~", "**/.*.swp", "**/.*.swx",
	"**/.*.swo", "**/.*.swn", "**/.*.kate-swp", "**/*-go-tmp-umask",
}

// Syncs says whether the rule copies files into containers.
func (r *Rule) Syncs() bool {
	return r.Action == types.WatchActionSync || r.Action == types.WatchActionSyncRestart || r.Action == types.WatchActionSyncExec
}

// Match says whether a file of the host, by its absolute path, is one of the rule's, and which of a container it is.
func (r *Rule) Match(file string) (target string, ok bool) {
	rel, below := below(r.Path, file)
	if !below || r.Ignores(file) {
		return "", false
	}
	if r.include != nil {
		if in, err := r.include.MatchesOrParentMatches(inner(file)); err != nil || !in {
			return "", false
		}
	}
	return path.Join(r.Target, filepath.ToSlash(rel)), true
}

// Ignores says whether the rule's patterns leave out a file.
func (r *Rule) Ignores(file string) bool {
	for _, m := range r.ignore {
		if out, err := m.MatchesOrParentMatches(inner(file)); err == nil && out {
			return true
		}
	}
	return false
}

// prunes says whether nothing below a directory can be one of the rule's.
func (r *Rule) prunes(dir string) bool {
	for _, m := range r.ignore {
		if out, err := m.MatchesOrParentMatches(inner(dir)); err == nil && out && !m.Exclusions() {
			return true
		}
	}
	return false
}

// inner is an absolute path in the form in which patterns are matched.
func inner(file string) string { return strings.TrimPrefix(filepath.ToSlash(file), "/") }

// below gives the path of file from dir, "." for itself.
func below(dir, file string) (rel string, ok bool) {
	rel, err := filepath.Rel(dir, file)
	return rel, err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// matcher matches absolute paths by patterns that begin at root. As docker compose has it, "*" says nothing beside
// exceptions.
func matcher(root string, patterns []string) (*patternmatcher.PatternMatcher, error) {
	everything := slices.Contains(patterns, "*")
	absolute := make([]string, 0, len(patterns))
	for _, p := range patterns {
		p = strings.TrimSpace(p)
		rest, exception := strings.CutPrefix(p, "!")
		if p == "" || everything && !exception {
			continue
		}
		full := rest
		if !filepath.IsAbs(full) {
			full = filepath.Join(root, full)
		}
		full = inner(full)
		if exception {
			full = "!" + full
		}
		absolute = append(absolute, full)
	}
	return patternmatcher.New(absolute)
}

// dockerIgnore are the patterns of a build context, nil if there are none.
func dockerIgnore(b *types.BuildConfig) (*patternmatcher.PatternMatcher, error) {
	if b == nil || strings.Contains(b.Context, "://") {
		return nil, nil
	}
	dockerfile := b.Dockerfile
	if !filepath.IsAbs(dockerfile) {
		dockerfile = filepath.Join(b.Context, dockerfile)
	}
	for _, name := range []string{dockerfile + ".dockerignore", filepath.Join(b.Context, ".dockerignore")} {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
			continue
		}
		if err != nil {
			return nil, err
		}
		defer f.Close()
		patterns, err := ignorefile.ReadAll(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return matcher(b.Context, patterns)
	}
	return nil, nil
}

// bound says whether a path is in the container by a bind mount.
func bound(file string, volumes []types.ServiceVolumeConfig) bool {
	for _, v := range volumes {
		if v.Type == types.VolumeTypeBind {
			if _, in := below(v.Source, file); in {
				return true
			}
		}
	}
	return false
}

// Changed are the files below the rule's path that were changed since a time, and are its own.
func (r *Rule) Changed(since func(info fs.FileInfo) bool) ([]string, error) {
	var files []string
	err := filepath.WalkDir(r.Path, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if file != r.Path && r.prunes(file) {
				return fs.SkipDir
			}
			return nil
		}
		if _, ok := r.Match(file); !ok {
			return nil
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && since(info) {
			files = append(files, file)
		}
		return err
	})
	return files, err
}
