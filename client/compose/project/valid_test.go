package project

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/sirupsen/logrus"
)

// loaded is what is made of files, as they are loaded or with all of the library's validation: the project or the
// error, and warnings.
func loaded(t *testing.T, files []string, skip bool) (*types.Project, string) {
	t.Helper()
	var said bytes.Buffer
	logrus.SetOutput(&said)
	defer logrus.SetOutput(os.Stderr)
	options, err := Options{Files: files}.projectOptions(Raw{})
	if err != nil {
		t.Fatal(err)
	}
	load := func(ctx context.Context) (*types.Project, error) { return checked(ctx, options) }
	if skip {
		load = func(ctx context.Context) (*types.Project, error) { return loadProject(ctx, options, Raw{}) }
	}
	p, err := load(t.Context())
	lines := strings.Split(stamped(said.String()), "\n")
	slices.Sort(lines)
	if err != nil {
		lines = append(lines, err.Error())
	}
	return p, strings.Join(slices.Compact(lines), "\n")
}

// stamped is text without times.
func stamped(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if _, rest, ok := strings.Cut(line, " level="); ok {
			line = rest
		}
		b.WriteString(line)
	}
	return b.String()
}

func surely(t *testing.T, files ...string) bool {
	t.Helper()
	var said bytes.Buffer
	logrus.SetOutput(&said)
	defer logrus.SetOutput(os.Stderr)
	options, err := Options{Files: files}.projectOptions(Raw{})
	if err != nil {
		t.Fatal(err)
	}
	read, ok := drafted(options)
	if !ok {
		return false
	}
	_, yes := read.surelyValid()
	return yes
}

// Projects that are surely valid are loaded without the library's validation as they are with it, and most of them are.
func TestValidationMakesNoDifference(t *testing.T) {
	// The library says once in a process that a file's version is obsolete: these files have names of this run's own.
	corpus := filepath.Join(t.TempDir(), "corpus")
	if err := os.CopyFS(corpus, os.DirFS("../../../test/e2e/testdata/compose-config")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("FROM_SHELL", "from shell")
	files, err := filepath.Glob(corpus + "/*.yaml")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	more, err := filepath.Glob(corpus + "/*/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	sure := 0
	for _, file := range append(files, more...) {
		if surely(t, file) {
			sure++
		}
		with, saidWith := loaded(t, []string{file}, false)
		without, saidWithout := loaded(t, []string{file}, true)
		if saidWith != saidWithout {
			t.Errorf("%s: %q, and without validation %q", file, saidWith, saidWithout)
		}
		if with == nil || without == nil {
			if with != without {
				t.Errorf("%s: %v, and without validation %v", file, with, without)
			}
			continue
		}
		a, aerr := with.MarshalYAML()
		b, berr := without.MarshalYAML()
		if aerr != nil || berr != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: %s, and without validation %s (%v, %v)", file, a, b, aerr, berr)
		}
	}
	if sure < 40 {
		t.Errorf("only %d of %d are surely valid", sure, len(files)+len(more))
	}
}

// What is wrong, or takes more than the file itself to know, is left to the library.
func TestSurelyValid(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("COUNT", "3")
	for _, c := range []struct {
		text string
		want bool
	}{
		{"services: {a: {image: x, scale: $COUNT, privileged: '${YES:-true}', command: [a, a]}}", true},
		{"name: any\nservices: {a: {image: x, ports: ['80:80', '80:80']}}\nvolumes: {v: }", true},
		{"x-a: &a {image: x}\nservices: {a: *a, b: {<<: *a, environment: {A: 1}}}", true},
		{"services: {a: {image: x, scale: $NONE}}", false},
		{"services: {a: {image: x, privileged: 1}}", false},
		{"services: {a: {image: x, imagee: x}}", false},
		{"services: {a: {image: x, expose: [80, 80]}}", true}, // the library drops the second one before it looks
		{"services: {a: {image: x, links: [b, b]}, b: {image: x}}", true},
		{"services: {a: {image: x, security_opt: [b, b]}}", false},
		{"services: {a: {image: x}}\n---\nservices: {b: {image: x}}", false},
		{"services: {a: {image: x, environment: !reset {}}}", false},
		{"services: {a: {image: x, extends: b}, b: {image: x}}", false},
		{"include: [other.yaml]\nservices: {a: {image: x}}", false},
		{"version: '3'\nservices: {a: {image: x}}", true},
		{"version: 3\nservices: {a: {image: x}}", false},
		{"services: {a: {image: x, develop: {watch: [{path: ., action: sync, target: /a}]}}}", true},
		{"services: {a: {image: x, develop: {watch: [{path: ., action: sync, target: /a, x-initialSync: true}]}}}", false},
		{"services: {a: {image: x, x-develop: {watch: []}}}", false},
		{"services: {a: {image: '${COMPOSE_PROJECT_NAME:-x}'}}", false},
		{"services: {a: {image: x, cpus: .nan}}", false},
		{"services: {a: {image: x, 1: 2}}", false},
		{"services: {a: {image: x}}\nvolumes: {v: {external: true, driver: local}}", false},
		{"services: {a: {image: x}}\nsecrets: {s: {file: ''}}", true},
		{"services: {a: {image: x}}\nsecrets: {s: {}}", false},
		{"services: {a: {image: x, ports: [{target: 80, host_ip: no}]}}", false},
		{"services:", false},
		{"", false},
		{"- a", false},
		{"services: [", false},
	} {
		if got := surely(t, writeFile(t, dir, "compose.yaml", c.text)); got != c.want {
			t.Errorf("%s: %v", c.text, got)
		}
		if !c.want {
			continue
		}
		if _, said := loaded(t, []string{filepath.Join(dir, "compose.yaml")}, false); said != "" && !strings.Contains(said, "`version` is obsolete") {
			t.Errorf("%s: the library says %s", c.text, said)
		}
	}
	base := writeFile(t, dir, "base.yaml", "services: {a: {image: x, ports: ['80:80'], networks: [n]}}\nnetworks: {n: }")
	if !surely(t, base, writeFile(t, dir, "more.yaml", "services: {a: {networks: {n: {aliases: [b]}}, environment: [A=1]}}")) {
		t.Error("two files are not surely valid")
	}
	if surely(t, base, writeFile(t, dir, "less.yaml", "services: {a: {networks: 3}}")) || surely(t, base, filepath.Join(dir, "none.yaml")) {
		t.Error("a second file that is wrong, or not there, is surely valid")
	}
}

// A load adds to the variables of its options: what is looked through beside it has its own.
func TestDraftHasItsVariables(t *testing.T) {
	file := filepath.Join(t.TempDir(), "compose.yaml")
	if err := os.WriteFile(file, []byte("services: {a: {image: x}}"), 0o644); err != nil {
		t.Fatal(err)
	}
	options, err := Options{Files: []string{file}}.projectOptions(Raw{})
	if err != nil {
		t.Fatal(err)
	}
	d, ok := drafted(options)
	if !ok {
		t.Fatal("not drafted")
	}
	options.Environment["ADDED_BY_A_LOAD"] = "1"
	if value, found := d.interpolate.LookupValue("ADDED_BY_A_LOAD"); found {
		t.Errorf("the draft sees what is added: %q", value)
	}
}
