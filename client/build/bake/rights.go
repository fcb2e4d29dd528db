package bake

import (
	"path/filepath"

	"github.com/cleatlabs/cleat/client/build"
	"github.com/cleatlabs/cleat/client/build/option"
	"github.com/cleatlabs/cleat/client/build/solve"
)

// rights are what targets want beyond the working directory: a bake file may be somebody
// else's, so its user has to allow it.
func rights(targets map[string]*target) build.BakeRights {
	r := build.BakeRights{Named: map[string]bool{}, Read: map[string]bool{}, Write: map[string]bool{}}
	for _, t := range targets {
		for _, e := range t.Entitlements {
			r.Named[e] = true
		}
		read := func(path string) {
			if path != "" && path != "-" && !solve.IsRemote(path) {
				r.Read[path] = true
			}
		}
		read(value(t.Context))
		if t.DockerfileInline == nil && !solve.IsRemote(value(t.Context)) {
			d := value(t.Dockerfile)
			if !filepath.IsAbs(d) {
				d = filepath.Join(value(t.Context), d)
			}
			read(d)
		}
		for _, where := range t.Contexts {
			if build.IsLocal(where) {
				read(where)
			}
		}
		if list, err := option.Secrets(t.Secrets); err == nil {
			for _, s := range list {
				read(s.File)
			}
		}
		if list, err := option.SSHs(t.SSH); err == nil {
			for _, s := range list {
				for _, p := range s.Paths {
					read(p)
				}
			}
		}
		if list, err := option.Caches(t.CacheFrom); err == nil {
			for _, c := range list {
				if c.Type == "local" {
					read(c.Attrs["src"])
				}
			}
		}
		if list, err := option.Caches(t.CacheTo); err == nil {
			for _, c := range list {
				if c.Type == "local" && c.Attrs["dest"] != "" {
					r.Write[c.Attrs["dest"]] = true
				}
			}
		}
		if list, err := option.Outputs(t.Outputs); err == nil {
			for _, o := range list {
				if o.Dest != "" && o.Dest != "-" {
					r.Write[o.Dest] = true
				}
			}
		}
	}
	return r
}
