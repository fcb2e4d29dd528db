package mend

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// missingFile is about a file that a COPY or ADD has not found.
func missingFile(m []string, where line, place Place) string {
	name := strings.TrimPrefix(path.Clean("/"+m[1]), "/")
	if strings.Contains(where.text, "--from=") {
		return where.String() + fmt.Sprintf("there is no /%s in the stage or image that --from names", name)
	}
	if st, err := os.Stat(place.Context); name == "" || err != nil || !st.IsDir() {
		return ""
	}
	if _, err := os.Lstat(filepath.Join(place.Context, filepath.FromSlash(name))); err != nil {
		return where.String() + notThere(name, where, place)
	}
	file, n, pattern := ignoredBy(name, place)
	if pattern == "" {
		return ""
	}
	return where.String() + fmt.Sprintf("%s is there, but line %d of %s (%s) shuts it out: change that line, or add '!%s' after it", name, n, file, pattern, name)
}

// oddName looks for a file of the context that the protocol cannot name.
func oddName(place Place) string {
	if st, err := os.Stat(place.Context); err != nil || !st.IsDir() {
		return ""
	}
	odd := ""
	_ = filepath.WalkDir(place.Context, func(p string, _ fs.DirEntry, err error) error { // what cannot be read is not it
		if utf8.ValidString(p) {
			return nil
		}
		if rel, rerr := filepath.Rel(place.Context, p); rerr == nil {
			if _, _, pattern := ignoredBy(filepath.ToSlash(rel), place); pattern == "" {
				odd = rel
				return fs.SkipAll
			}
		}
		return nil
	})
	if odd == "" {
		return ""
	}
	return fmt.Sprintf("the name of the file %q is not UTF-8, as those in a build context must be: rename it, or shut it out by .dockerignore", odd)
}

// notThere looks for what may have been meant.
func notThere(name string, where line, place Place) string {
	for _, word := range strings.Fields(where.text) {
		if strings.HasPrefix(word, "../") {
			return fmt.Sprintf("%s is outside of the context %s, and only what is in the context can be copied: build with a directory further up as the context and name this Dockerfile by -f", word, place.Context)
		}
	}
	msg := fmt.Sprintf("there is no %s in the context %s", name, place.Context)
	entries, err := os.ReadDir(filepath.Join(place.Context, filepath.FromSlash(path.Dir(name))))
	if err != nil {
		return msg
	}
	for _, e := range entries {
		if strings.EqualFold(e.Name(), path.Base(name)) {
			return msg + fmt.Sprintf(": there is %s, and case matters", path.Join(path.Dir(name), e.Name()))
		}
	}
	if found := elsewhere(place.Context, path.Base(name)); found != "" {
		return msg + fmt.Sprintf(": there is %s", found)
	}
	return msg
}

// lookedAt bounds the search for a file that lies elsewhere in the context.
const lookedAt = 5000

func elsewhere(dir, base string) string {
	found, n := "", 0
	_ = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if n++; err != nil || n > lookedAt {
			return filepath.SkipAll
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if d.Name() == base && p != dir {
			found, _ = filepath.Rel(dir, p)
			return filepath.SkipAll
		}
		return nil
	})
	return found
}

// ignoredBy is the pattern that shuts name out, and the file and the line it stands in.
func ignoredBy(name string, place Place) (file string, number int, pattern string) {
	file, lines := ignoreFile(place)
	var patterns []string
	var numbers []int
	for i, l := range lines {
		// One line at a time, so that the pattern's line is known.
		p, err := ignorefile.ReadAll(strings.NewReader(l))
		if err != nil || len(p) != 1 {
			continue
		}
		patterns, numbers = append(patterns, p[0]), append(numbers, i+1)
	}
	if !ignored(name, patterns) {
		return "", 0, ""
	}
	// The last pattern that decides is the first after which it stays shut out.
	for i := range slices.Backward(patterns) {
		if !strings.HasPrefix(patterns[i], "!") && ignored(name, patterns[i:i+1]) {
			return file, numbers[i], strings.TrimSpace(lines[numbers[i]-1])
		}
	}
	return "", 0, ""
}

func ignored(name string, patterns []string) bool {
	pm, err := patternmatcher.New(patterns)
	if err != nil {
		return false
	}
	out, err := pm.MatchesOrParentMatches(filepath.FromSlash(name))
	return err == nil && out
}

// ignoreFile reads the Dockerfile's own ignore file, or else that of the context.
func ignoreFile(place Place) (string, []string) {
	dockerfile := place.Dockerfile
	if dockerfile == "" || dockerfile == "-" {
		dockerfile = filepath.Join(place.Context, "Dockerfile")
	}
	for _, p := range []string{dockerfile + ".dockerignore", filepath.Join(place.Context, ".dockerignore")} {
		data, err := os.ReadFile(p)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", nil
		}
		return p, strings.Split(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n")
	}
	return "", nil
}

// stageName matches the name of a stage.
const stageName = `(?i)^\s*FROM\s.*\sAS\s+(\S+)`

// unknownStage names the stages that there are.
func unknownStage(_ string, place Place) string {
	dockerfile := place.Dockerfile
	if dockerfile == "" {
		dockerfile = filepath.Join(place.Context, "Dockerfile")
	}
	f, err := os.Open(dockerfile)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	var names []string
	re := regexp.MustCompile(stageName)
	for s := bufio.NewScanner(f); s.Scan(); {
		if m := re.FindStringSubmatch(s.Text()); m != nil {
			names = append(names, m[1])
		}
	}
	if len(names) == 0 {
		return dockerfile + " names no stage: write 'FROM IMAGE AS NAME'"
	}
	return "the stages are " + strings.Join(names, ", ")
}
