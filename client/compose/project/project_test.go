package project

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/client/compose/label"
)

func writeFile(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
	return file
}

// The name is that of the flag, else of the environment, else of the file, else of the
// directory.
func TestProjectNames(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "My.Shop_2")
	plain := writeFile(t, dir, "plain.yaml", "services: {a: {image: x}}\n")
	named := writeFile(t, dir, "named.yaml", "name: from-file\nservices: {a: {image: x}}\n")
	for _, c := range []struct{ file, flag, environment, want string }{
		{plain, "", "", "myshop_2"},
		{named, "", "", "from-file"},
		{named, "", "from-env", "from-env"},
		{named, "from-flag", "from-env", "from-flag"},
		{plain, "Not Good", "", ""},
	} {
		t.Setenv("COMPOSE_PROJECT_NAME", c.environment)
		if c.environment == "" {
			os.Unsetenv("COMPOSE_PROJECT_NAME")
		}
		p, err := Load(t.Context(), Options{Files: []string{c.file}, Name: c.flag}, Raw{})
		switch {
		case c.want == "" && err == nil:
			t.Errorf("%+v: %s", c, p.Name)
		case c.want != "" && (err != nil || p.Name != c.want):
			t.Errorf("%+v: %v", c, err)
		case err == nil && p.Services["a"].CustomLabels[label.Project] != c.want:
			t.Errorf("%+v: labels %v", c, p.Services["a"].CustomLabels)
		}
	}
}

// Without a file there is an error that has an exit code of its own.
func TestNoFile(t *testing.T) {
	t.Chdir(t.TempDir())
	if _, err := Load(t.Context(), Options{}, Raw{}); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
	if _, err := Load(t.Context(), Options{Files: []string{"none.yaml"}}, Raw{}); err == nil || errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "none.yaml") {
		t.Error(err)
	}
}

func TestProfilesAndSelection(t *testing.T) {
	file := writeFile(t, t.TempDir(), "compose.yaml", `services:
  web: {image: x, depends_on: [db]}
  db: {image: x}
  alone: {image: x}
  debug: {image: x, profiles: [debug], depends_on: [web]}
`)
	for _, c := range []struct {
		profiles, services []string
		want               string
	}{
		{nil, nil, "alone db web"},
		{[]string{"debug"}, nil, "alone db debug web"},
		{[]string{"*"}, nil, "alone db debug web"},
		{nil, []string{"web"}, "db web"},
		{nil, []string{"debug"}, "db debug web"},
	} {
		p, err := Load(t.Context(), Options{Files: []string{file}, Profiles: c.profiles, Name: "p"}, Raw{}, c.services...)
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		if got := strings.Join(Names(p), " "); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
	if _, err := Load(t.Context(), Options{Files: []string{file}, Name: "p"}, Raw{}, "nobody"); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Error(err)
	}
}

// Whatever a file says, loading ends, with a project of that name or an error.
func FuzzLoad(f *testing.F) {
	for _, text := range []string{
		"services: {a: {image: x, ports: ['80:80'], volumes: ['v:/v'], environment: {A: '${B:-c}'}}}\nvolumes: {v: }\n",
		"x-a: &a {image: x}\nservices: {b: {<<: *a, depends_on: {c: {condition: service_healthy}}}, c: *a}\n",
		"services: {a: {extends: a, image: !reset null}}", "services:\n  a: &a\n    <<: *a\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, "include") || strings.Contains(text, "file") {
			t.Skip("it would read this machine's files")
		}
		p, err := Load(t.Context(), Options{Files: []string{writeFile(t, t.TempDir(), "compose.yaml", text)}, Name: "p"}, Raw{})
		if err == nil && (p.Name != "p" || slices.Contains(Names(p), "")) {
			t.Errorf("%q: %+v", text, p)
		}
	})
}
