package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestBuildMistakes: the errors that beginners make are told with the line and with
// what to do about it.
func TestBuildMistakes(t *testing.T) {
	e := builder(t)
	h := dockerHub(t)
	for _, m := range []struct {
		name       string
		dockerfile string
		args       []string // "." unless given
		want       []string
	}{
		{"an image in capitals", "FROM Ubuntu\n", nil, []string{"Dockerfile:1", ">>> FROM Ubuntu", "must be lowercase"}},
		{"COPY with one argument", "FROM busybox\nCOPY app.py\n", nil, []string{"Dockerfile:2", "COPY requires at least two arguments", "Destination could not be determined"}},
		{"a command that is no command", "FROM debian:bookworm-slim\n\nRUN install curl\n", nil, []string{"Dockerfile:3", ">>> RUN install curl", "missing destination file operand", "exit code: 1"}},
		{"a program that is not installed", "FROM busybox\nRUN apt-get update\n", nil, []string{"Dockerfile:2", "apt-get: not found", "exit code: 127"}},
		{"a misspelled instruction", "FROM busybox\nRUNN true\n", nil, []string{"Dockerfile:2", "unknown instruction: RUNN", "did you mean RUN?"}},
		{"an instruction before FROM", "RUN true\nFROM busybox\n", nil, []string{"Dockerfile:1", "no build stage in current context"}},
		{"nothing", "\n", nil, []string{"file with no instructions"}},
		{"a file that is not there", "FROM busybox\nWORKDIR /app\nCOPY requirements.txt .\n", nil, []string{"Dockerfile:3", ">>> COPY requirements.txt .", `"/requirements.txt": not found`}},
		{"a file above the context", "FROM busybox\nCOPY ../secret /\n", nil, []string{"Dockerfile:2", `"/secret": not found`}},
		{"a stage that is not there", "FROM busybox AS build\nFROM busybox\nCOPY --from=" + h.Addr + "/library/bulid /x /x\n", nil, []string{"Dockerfile:3", h.Addr + "/library/bulid", "not found"}},
		{"an image that is not there", "FROM " + h.Addr + "/library/nothing:1\n", nil, []string{"Dockerfile:1", h.Addr + "/library/nothing:1", "not found"}},
		{"a tag that is not there", "FROM " + h.Addr + "/library/python:3.12-slimm\n", nil, []string{"Dockerfile:1", "python:3.12-slimm", "not found"}},
		{"a missing EOF", "FROM busybox\nRUN <<EOF\ntrue\n", nil, []string{"Dockerfile:2", "unterminated heredoc"}},
		{"a flag that is none", "FROM busybox\nCOPY --form=build a b\n", nil, []string{"Dockerfile:2", "unknown flag: --form", "did you mean from?"}},
		{"a bad mount", "FROM busybox\nRUN --mount=type=chache,target=/c true\n", nil, []string{"Dockerfile:2", `unsupported mount type "chache"`, "did you mean cache?"}},
		{"the Dockerfile in the place of the directory", "FROM busybox\n", []string{"Dockerfile"}, []string{"unable to prepare context", "Dockerfile"}},
		{"no directory", "FROM busybox\n", []string{}, []string{"requires 1 argument"}},
		{"a directory that is not there", "FROM busybox\n", []string{"nowhere"}, []string{"nowhere", "not found"}},
		{"a Dockerfile that is not there", "FROM busybox\n", []string{"-f", "Dockerfle", "."}, []string{"failed to read dockerfile: open Dockerfle: no such file or directory"}},
		{"a tag that is none", "FROM busybox\n", []string{"-t", "My App", "."}, []string{"invalid", "My App"}},
	} {
		t.Run(m.name, func(t *testing.T) {
			args := m.args
			if args == nil {
				args = []string{"."}
			}
			for _, program := range buildClients {
				r := buildRun{dir: project(t, files{"Dockerfile": m.dockerfile, "a.txt": "a", "b.txt": "b"}), args: args}.do(t, e, program)
				for _, w := range m.want {
					if r.Code == 0 || !strings.Contains(strings.ToLower(r.Stdout+r.Stderr), strings.ToLower(w)) {
						t.Errorf("%s does not fail with %q: %s", program, w, r)
					}
				}
			}
		})
	}
	t.Run("a secret in an argument", func(t *testing.T) {
		for _, program := range buildClients {
			dir := project(t, dockerfile("FROM busybox\nARG API_TOKEN\nENV DB_PASSWORD=x\n"))
			r := buildRun{dir: dir, args: []string{"--build-arg", "API_TOKEN=hush", "--check", "."}}.do(t, e, program)
			for _, w := range []string{"SecretsUsedInArgOrEnv", `(ARG "API_TOKEN")`, `(ENV "DB_PASSWORD")`, "Dockerfile:2", "Dockerfile:3"} {
				if r.Code == 0 || !strings.Contains(r.Stdout, w) {
					t.Errorf("%q is not said: %s", w, r)
				}
			}
			build(t, e, program, dir, "--output", "type=cacheonly").has(t, `SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG "API_TOKEN") (line 2)`)
		}
	})
}

// TestBuildUnreadableFile: a file that the user may not read ends the build with its name. It came into the image empty.
func TestBuildUnreadableFile(t *testing.T) {
	e := builder(t)
	dir := project(t, files{"Dockerfile": "FROM busybox\nCOPY . /c\n", "readable": "text", "kept": "secret"})
	if err := os.Chmod(filepath.Join(dir, "kept"), 0); err != nil {
		t.Fatal(err)
	}
	// Root without the capabilities to read what it may not.
	client := harness.Program(t, "cleat")
	run := buildRun{dir: dir, args: []string{"--bounding-set=-dac_override,-dac_read_search", client, "build", "--output", "type=cacheonly", "."}}
	r := run.command(t, e, "setpriv")
	for _, want := range []string{"kept: permission denied", ".dockerignore"} {
		if r.Code == 0 || !strings.Contains(r.Stderr, want) {
			t.Errorf("not refused with %q: %s", want, r)
		}
	}
	files{".dockerignore": "kept\n"}.write(t, dir)
	if r := run.command(t, e, "setpriv"); r.Code != 0 {
		t.Errorf("what is ignored is read: %s", r)
	}
}
