package build

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cleatlabs/cleat/client/build/solve"
)

// rightSSH is that to the user's SSH agent, which needs no path.
const rightSSH = "ssh"

// checkRights holds what targets want beyond the working directory against what the user allows: a bake file may be
// somebody else's.
func checkRights(plan *BakePlan, allow []string) error {
	named, read, write, err := allowed(allow)
	if err != nil {
		return err
	}
	read, write = append(read, plan.Given.Reads()...), append(write, plan.Given.Writes()...)
	for _, right := range needed(plan.Given) {
		named[right] = true
	}
	files := true
	if on, err := strconv.ParseBool(os.Getenv("BUILDX_BAKE_ENTITLEMENTS_FS")); err == nil {
		files = on
	}
	var missing []string
	for _, t := range plan.Targets {
		for _, right := range needed(t) {
			if key, _, _ := strings.Cut(right, "="); !named[right] && !named[key] && (files || right != rightSSH) {
				missing = append(missing, right)
			}
		}
		if files {
			missing = slices.Concat(missing, outside("fs.read=", t.Reads(), read), outside("fs.write=", t.Writes(), write))
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	return fmt.Errorf("the bake file wants more than the working directory and the rights of a build: allow it by --allow %s",
		strings.Join(slices.Compact(missing), " --allow "))
}

// needed are the rights of a target that have a name.
func needed(t *solve.Target) []string {
	out := slices.DeleteFunc(slices.Clone(t.Allow), func(s string) bool { return s == "" })
	for _, s := range t.SSH {
		if len(s.Paths) == 0 {
			out = append(out, rightSSH)
		}
	}
	return out
}

// outside are the paths that are in none of the directories, nor in the working directory, with prefix before each.
func outside(prefix string, paths, dirs []string) (out []string) {
	for _, p := range paths {
		if !within(p, append(dirs, ".")) {
			out = append(out, prefix+p)
		}
	}
	return out
}

func allowed(allow []string) (named map[string]bool, read, write []string, err error) {
	named = map[string]bool{}
	for _, a := range allow {
		key, path, _ := strings.Cut(a, "=")
		switch key {
		case "fs":
			read, write = append(read, path), append(write, path)
		case "fs.read":
			read = append(read, path)
		case "fs.write":
			write = append(write, path)
		case "network.host", "security.insecure", "device", rightSSH, "image.load", "image.push", "image", solve.AllowLocalDelete:
			named[a] = true
		default:
			return nil, nil, nil, fmt.Errorf("unknown entitlement key %q: choose network.host, security.insecure, fs, fs.read or fs.write", a)
		}
	}
	return named, read, write, nil
}

// within says whether a path is in one of the directories, symbolic links followed.
func within(path string, dirs []string) bool {
	path = resolved(path)
	for _, d := range dirs {
		if d == "*" {
			return true
		}
		if rel, err := filepath.Rel(resolved(d), path); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
			return true
		}
	}
	return false
}

// mostLinks is how many symbolic links the kernel follows in one path.
const mostLinks = 40

// resolved is where the kernel finds, or makes, what a path names: ".." is the parent of what is before it, links
// followed, and a link to what is not there leads there.
func resolved(path string) string {
	if wd, err := os.Getwd(); err == nil && !filepath.IsAbs(path) {
		path = wd + "/" + path
	}
	at, rest, links := "/", strings.Split(path, "/"), 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, name)
		target, err := os.Readlink(next)
		if err != nil || links == mostLinks {
			at = next
			continue
		}
		links++
		if rest = slices.Concat(strings.Split(target, "/"), rest); filepath.IsAbs(target) {
			at = "/"
		}
	}
	return at
}
