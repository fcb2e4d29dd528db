package solve

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	bkclient "github.com/moby/buildkit/client"
)

// Reads are the paths of this machine that a build of t may read, as t has them: relative ones are the working
// directory's. For a directory it is all that is in it.
func (t *Target) Reads() []string {
	var out []string
	local := t.Context != "-" && (isDir(t.Context) || !IsRemote(t.Context))
	if local {
		out = append(out, t.Context)
	}
	if d := t.Dockerfile; t.DockerfileInline == "" && d != "-" && (local || filepath.IsAbs(d)) {
		out = append(out, d)
	}
	for _, where := range t.Contexts {
		switch {
		case isElsewhere(where):
		case strings.HasPrefix(where, layoutPrefix):
			dir, _, _, _ := splitLayout(where)
			out = append(out, dir)
		default:
			out = append(out, where)
		}
	}
	for _, s := range t.Secrets {
		if _, set := os.LookupEnv(s.ID); s.File == "" && s.Env == "" && !set {
			out = append(out, s.ID)
		}
		out = append(out, s.File)
	}
	for _, s := range t.SSH {
		out = append(out, s.Paths...)
	}
	for _, c := range t.CacheFrom {
		if c.Type == "local" {
			out = append(out, c.Attrs["src"])
		}
	}
	return slices.DeleteFunc(out, func(s string) bool { return s == "" })
}

// Writes are the paths of this machine that a build of t may write, as Reads has them.
func (t *Target) Writes() []string {
	var out []string
	for _, c := range t.CacheTo {
		if c.Type == "local" {
			out = append(out, c.Attrs["dest"])
		}
	}
	for _, o := range t.Outputs {
		out = append(out, o.Dest)
	}
	return slices.DeleteFunc(out, func(s string) bool { return s == "" || s == "-" })
}

// Deletes says whether an output of t deletes what is in its directory and not in the result.
func (t *Target) Deletes() bool {
	for _, o := range t.Outputs {
		if mode, err := bkclient.ParseLocalExporterMode(o.Attrs["mode"]); o.Type == "local" && err == nil && mode == bkclient.LocalExporterModeDelete {
			return true
		}
	}
	return false
}
