package project

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is wrong in a file is said with its line, and with the text that docker compose has.
func TestMistakesHaveAPlace(t *testing.T) {
	for name, c := range map[string]struct {
		file, want string
		line, col  int
	}{
		"an unknown key":          {"services:\n  web:\n    image: x\n    comand: y\n", "additional properties 'comand' not allowed", 4, 5},
		"an unknown top key":      {"servces:\n  a: {image: x}\n", "'servces' not allowed", 1, 1},
		"a wrong type":            {"services:\n  web:\n    image: x\n    ports: 80\n", "services.web.ports must be a array", 4, 5},
		"in a merged mapping":     {"x-a: &a\n  image: x\n  ports: 80\nservices:\n  web:\n    <<: *a\n", "services.web.ports", 3, 3},
		"an interpolated number":  {"services:\n  web:\n    image: x\n    healthcheck:\n      retries: many\n", "retries", 5, 7},
		"a key with dots":         {"services:\n  web:\n    image: x\n    labels:\n      com.example.a: \"${X:?must be set}\"\n", "must be set", 5, 7},
		"an entry of a list":      {"services:\n  web:\n    image: x\n    environment:\n      - A=1\n      - B=${X:?must be set}\n", "must be set", 6, 9},
		"a duration":              {"services:\n  web:\n    image: x\n    stop_grace_period: soon\n", "soon", 4, 5},
		"a circle":                {"services:\n  a:\n    image: x\n    depends_on: [b]\n  b:\n    image: x\n    depends_on:\n      a: {condition: service_started}\n", "dependency cycle", 4, 18},
		"a missing dependency":    {"services:\n  a:\n    image: x\n    depends_on:\n      - nope\n", "undefined service \"nope\"", 5, 9},
		"a missing volume":        {"services:\n  a:\n    image: x\n    volumes:\n      - /tmp:/t\n      - data:/d\n", "undefined volume data", 6, 9},
		"a missing volume, long":  {"services:\n  a:\n    image: x\n    volumes:\n      - {type: volume, source: data, target: /d}\n", "undefined volume data", 5, 9},
		"a missing network":       {"services:\n  a:\n    image: x\n    networks:\n      n:\n", "undefined network n", 5, 7},
		"no image":                {"services:\n  a:\n    command: x\n", "neither an image nor a build", 2, 3},
		"a missing variable":      {"services:\n  a:\n    image: x:${TAG:?say which}\n", "say which", 3, 5},
		"an open brace":           {"services:\n  a:\n    image: x:${TAG\n", "invalid interpolation format", 3, 5},
		"a port":                  {"services:\n  a: {image: x}\n  b:\n    image: x\n    ports:\n      - 99999:80\n", "99999", 6, 9},
		"a missing env file":      {"services:\n  a:\n    image: x\n    env_file: none.env\n", "none.env", 4, 15},
		"a missing include":       {"include:\n  - other/none.yaml\nservices:\n  a: {image: x}\n", "none.yaml", 2, 5},
		"a missing base":          {"services:\n  a:\n    extends:\n      service: nope\n", "nope", 3, 5},
		"an unknown anchor":       {"services:\n  a: *nope\n", "nope", 2, 7},
		"a key that occurs twice": {"services:\n  a: {image: x}\n  a: {image: y}\n", "already defined", 3, 0},
		"indentation":             {"services:\n  web:\n    image: x\n   command: y\n", "did not find expected key", 4, 4},
		"an anchor in itself":     {"services:\n  a: &a\n    <<: *a\n", "contains itself", 3, 9},
		"two anchors in a circle": {"x-a: &a\n  b: &b\n    - c: *a\nservices:\n  web: {image: x}\n", "contains itself", 3, 10},
		"an empty service":        {"services:\n  a: {image: x}\n  web:\n", "services.web must be a mapping", 3, 3},
		"services in a list":      {"name: x\nservices:\n  - web: {image: x}\n", "services must be a mapping", 2, 1},
		"a mapping in a list":     {"services:\n  web:\n    image: x\n    environment:\n      - A=1\n      - B: c\n", "unexpected type", 6, 9},
		"ranges of two lengths":   {"services:\n  web:\n    image: x\n    ports: ['8000-8002:80-81']\n", "invalid ranges", 4, 13},
		"two kinds of network":    {"services:\n  web:\n    image: x\n    networks: [default]\n    network_mode: host\n", "mutually exclusive", 5, 5},
		"a probe without CMD":     {"services:\n  a:\n    image: x\n    healthcheck: {test: [CMD, x]}\n  b:\n    image: x\n    healthcheck:\n      test: [curl, x]\n", "must start either by", 8, 14},
		"a tab":                   {"services:\n\tweb: {}\n", "cannot start any token", 2, 0},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "compose.yaml")
			if err := os.WriteFile(file, []byte(c.file), 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := Load(t.Context(), Options{Files: []string{file}, Name: "p"}, Raw{})
			var placed *PlacedError
			if err == nil || !strings.Contains(err.Error(), c.want) || !errors.As(err, &placed) {
				t.Fatalf("%v, want %q and a place", err, c.want)
			}
			if p := placed.Place; p.File != file || p.Line != c.line || p.Column != c.col {
				t.Errorf("%v, want line %d, column %d", err, c.line, c.col)
			}
		})
	}
}

// Of several files the one that says it has the place, whether it comes first or last.
func TestPlacesInSeveralFiles(t *testing.T) {
	dir := t.TempDir()
	var files []string
	for name, text := range map[string]string{"a.yaml": "services:\n  web:\n    image: x\n    depends_on: [nope]\n", "b.yaml": "services:\n  web:\n    environment: {A: b}\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		files = append(files, filepath.Join(dir, name))
	}
	_, err := Load(t.Context(), Options{Files: files, Name: "p"}, Raw{})
	var placed *PlacedError
	if !errors.As(err, &placed) || !strings.HasSuffix(placed.Place.File, "a.yaml") || placed.Place.Line != 4 {
		t.Error(err)
	}
}

// What is wrong in a file that is included or extended, at whichever remove, is said with that file's place.
func TestPlacesInRelatedFiles(t *testing.T) {
	for name, c := range map[string]struct{ compose, other, want string }{
		"included":  {"include: [other.yaml]\n", "services:\n  a:\n    image: x\n    healthcheck:\n      test: [curl]\n", "other.yaml:5:14"},
		"of a path": {"include:\n  - path: [third.yaml, other.yaml]\n", "services:\n  a:\n    image: x\n    depends_on: [none]\n", "other.yaml:4:18"},
		"by others": {"include: [second.yaml]\n", "services:\n  a:\n    image: x\n    volumes: [none:/x]\n", "other.yaml:4:15"},
		"extended":  {"services:\n  b:\n    extends: {file: other.yaml, service: a}\n", "services:\n  a:\n    image: x\n    healthcheck: {test: [curl]}\n", "other.yaml:4:26"},
		"in a circle": {"include: [other.yaml]\nservices:\n  b: {image: x, healthcheck: {test: [curl]}}\n", "include: [compose.yaml]\n",
			"include cycle detected"},
	} {
		dir := t.TempDir()
		file := writeFile(t, dir, "compose.yaml", c.compose)
		writeFile(t, dir, "other.yaml", c.other)
		writeFile(t, dir, "second.yaml", "include: [other.yaml]\n")
		writeFile(t, dir, "third.yaml", "services: {c: {image: x}}\n")
		if _, err := Load(t.Context(), Options{Files: []string{file}, Name: "p"}, Raw{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// A file that the parser does not understand is named whether the project has a name or it is looked for in the files.
func TestPlacesOfBadSyntax(t *testing.T) {
	for text, want := range map[string]string{
		"services:\n  web:\n    image: x\n   ports: [80]\n": ":4:4\n    4 |    ports: [80]",
		"services:\n  web:\n    image: x\n\tports: [80]\n":  ":4\n    4 | \tports: [80]",
		"services:\n  web: {image: *nope}\n":                ":2:17\n    2 |   web: {image: *nope}",
		"services:\n  web: {image: x}\n  web: {image: x}\n": ":3\n    3 |   web: {image: x}",
		"- a\n": "top-level object must be a mapping",
	} {
		file := filepath.Join(t.TempDir(), "compose.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"p", ""} {
			_, err := Load(t.Context(), Options{Files: []string{file}, Name: name}, Raw{})
			if err == nil || !strings.Contains(err.Error(), want) || name == "" && !strings.HasPrefix(err.Error(), "failed to parse "+file+": ") {
				t.Errorf("%q, name %q: %v, want %q", text, name, err, want)
			}
		}
	}
}

// What the engine says of a service gets its place, too.
func TestPlacesOfLaterErrors(t *testing.T) {
	file := filepath.Join(t.TempDir(), "compose.yaml")
	text := "services:\n  web:\n    image: x\n    cpu_count: 2\n    ports: ['127.0.0.1:8080:80']\n    volumes: ['./none:/n']\nnetworks:\n  n: {external: true}\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for said, line := range map[string]int{
		`service "web": the attribute cpu_count is not supported: remove it`:             4,
		`service "web": cannot reach the registry`:                                       3,
		"Bind for 127.0.0.1:8080 failed: port is already allocated":                      5,
		"bind source path does not exist: " + filepath.Join(filepath.Dir(file), "none"):  6,
		"network n declared as external, but could not be found":                         8,
		"something that no file is to blame for":                                         0,
		"validating /nowhere: services.other.x must be a string":                         0,
		`dependency failed to start: container p-web-1 is unhealthy: service "nobody": `: 0,
		"failed to parse " + file + ".none: yaml: line 3: not found":                     0,
	} {
		err := Locate(errors.New(said), []string{file})
		var placed *PlacedError
		if found := errors.As(err, &placed); found != (line > 0) || found && placed.Place.Line != line {
			t.Errorf("%v, want line %d", err, line)
		}
	}
	if Locate(nil, nil) != nil {
		t.Error("no error has a place")
	}
}

// Whatever a file and an error say, looking for a place ends and finds a line of the file.
func FuzzLocate(f *testing.F) {
	f.Add("services:\n  a: &a\n    <<: *a\n    ports: [1]\n", "error while interpolating services.a.ports.0: x")
	f.Add("a: &a [*a]\n", "validating f: a.0.0.0 must")
	f.Add("services: {a: {image: x}}", `service "a" refers to undefined volume data: x`)
	f.Fuzz(func(t *testing.T, text, said string) {
		file := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		var placed *PlacedError
		if errors.As(Locate(errors.New(said), []string{file}), &placed) && placed.Place.Line > strings.Count(text, "\n")+1 {
			t.Errorf("%v in %q", placed, text)
		}
	})
}
