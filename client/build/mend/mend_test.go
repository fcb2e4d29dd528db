package mend_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"

	"github.com/cleatlabs/cleat/client/build/mend"
)

// at is an error of the engine's, with the line of the Dockerfile that it has marked.
func at(msg, dockerfile string, line int32) error {
	err := errors.New(msg)
	if line == 0 {
		return err
	}
	return errdefs.WithSource(err, &errdefs.Source{
		Info:   &pb.SourceInfo{Filename: "Dockerfile", Data: []byte(dockerfile)},
		Ranges: []*pb.Range{{Start: &pb.Position{Line: line}, End: &pb.Position{Line: line}}},
	})
}

func exit(command, code string) string {
	return `failed to solve: process "/bin/sh -c ` + command + `" did not complete successfully: exit code: ` + code
}

func TestHints(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"Dockerfile": "FROM debian AS base\nFROM base as Test\n", ".dockerignore": "# secrets\n\n*.env\n!keep.env\ndist/\n", "prod.env": "x", "keep.env": "x",
		"dist/app.js": "x", "src/main.py": "x", "README.md": "x", "Other.dockerignore": "src\n", "Other": "FROM x\n",
		"src/odd\xff.txt": "x", "dist/odd\xff.txt": "x",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	missing := func(name string) string {
		return `failed to solve: failed to compute cache key: failed to calculate checksum of ref abc::def: "/` + name + `": not found`
	}
	for _, c := range []struct {
		err        error
		dockerfile string
		want       string // a part of the hint; empty is no hint
	}{
		{at(`failed to parse stage name "Ubuntu": invalid reference format: repository name (library/Ubuntu) must be lowercase`, "FROM Ubuntu", 1), "", `line 1 of Dockerfile: names of images are in lower case: write "FROM ubuntu"`},
		{at(`invalid tag "MyApp": invalid reference format: repository name (library/MyApp) must be lowercase`, "", 0), "", `write "myapp"`},
		{at("dockerfile parse error on line 3: COPY requires at least two arguments, but only one was provided", "FROM x\n\nCOPY app.js", 3), "", "line 3 of Dockerfile: COPY wants what to copy and where to: write 'COPY app.js .'"},
		{at("dockerfile parse error on line 3: ADD requires at least two arguments", "", 0), "", "line 3: ADD wants"},
		{at(exit("install curl", "127"), "FROM debian\nRUN install curl", 2), "", "line 2 of Dockerfile: packages are installed by the distribution's tool: write 'RUN apt-get update && apt-get install -y curl'"},
		{at(exit("install nginx git", "1"), "", 0), "", "apk add nginx git"},
		{at(exit("install -m 755 a b", "1"), "", 0), "", ""},
		{at(exit("pip3 install x", "127"), "", 0), "", `no command "pip3"`},
		{at(exit("apk add x", "127"), "", 0), "", "no apk in this image"},
		{at(exit("sudo apt-get update", "127"), "", 0), "", "run as root anyway"},
		{at(exit("a && b", "127"), "", 0), "", "not found in the image"},
		{at(exit("./run.sh", "127"), "", 0), "", "its lines end as Unix has them"},
		{at(exit("./run.sh", "126"), "", 0), "", "chmod +x"},
		{at(exit("apt-get install -y curl", "100"), "", 0), "", "apt-get update && apt-get install -y"},
		{at(exit("apt-get update && apt-get install -y nonsuch", "100"), "", 0), "", ""},
		{at(exit("apt-get update && apt-get install curl", "1"), "", 0), "", "add -y"},
		{at(exit("make test", "2"), "", 0), "", ""},
		{at(missing("prod.env"), "FROM x\nCOPY prod.env /", 2), "", "line 2 of Dockerfile: prod.env is there, but line 3 of " + dir + "/.dockerignore (*.env) shuts it out"},
		{at(missing("dist/app.js"), "", 0), "", "line 5 of " + dir + "/.dockerignore (dist/)"},
		{at(missing("src/main.py"), "", 0), dir + "/Other", "line 1 of " + dir + "/Other.dockerignore (src)"},
		{at(missing("readme.md"), "", 0), "", "there is README.md, and case matters"},
		{at(missing("main.py"), "", 0), "", "there is no main.py in the context " + dir + ": there is src/main.py"},
		{at(missing("lib"), "FROM x\nCOPY ../lib /lib", 2), "", "../lib is outside of the context"},
		{at(missing("out"), "FROM x\nCOPY --from=base /out /", 2), "", "there is no /out in the stage or image that --from names"},
		{at("failed to load LLB: network.host is not allowed", "", 0), "", "--allow network.host"},
		{at("granting entitlement network.host is not allowed by build daemon configuration", "", 0), "", `the engine gives this right to no build: {"builder": {"entitlements": {"network-host": true}}}`},
		{at("granting entitlement security.insecure is not allowed by build daemon configuration", "", 0), "", `{"security-insecure": true}`},
		{at("granting entitlement device is not allowed by build daemon configuration", "", 0), "", "no devices for build steps"},
		{at("secret token: not found", "FROM x\nRUN --mount=type=secret,id=token,required true", 2), "", "--secret id=token,src=FILE"},
		{at("nothing:1: failed to resolve source metadata for docker.io/library/nothing:1: docker.io/library/nothing:1: not found", "FROM nothing:1", 1), "", "line 1 of Dockerfile: is nothing:1 spelled as its registry has it, or a stage of this file? 'cleat pull nothing:1' says which registries and mirrors were asked"},
		{at("failed to resolve source metadata for 127.0.0.1:5000/a/b:1: 127.0.0.1:5000/a/b:1: not found", "", 0), "", "'cleat pull 127.0.0.1:5000/a/b:1' says"},
		{at(`target stage "prod" could not be found`, "", 0), "", "the stages are base, Test"},
		{at("base name ($BASE) should not be blank", "FROM $BASE", 1), "", "$BASE is empty"},
		{at("rpc error: code = Internal desc = grpc: error while marshaling: string field contains invalid UTF-8", "", 0), "", `"src/odd\xff.txt" is not UTF-8`},
		{at("something else", "", 0), "", ""},
	} {
		got := mend.Hint(mend.In(c.err, mend.Place{Context: dir, Dockerfile: c.dockerfile}))
		if (c.want == "" && got != "") || !strings.Contains(got, c.want) {
			t.Errorf("%v:\n got %q\nwant %q", c.err, got, c.want)
		}
	}
	if mend.In(nil, mend.Place{}) != nil || mend.Hint(nil) != "" {
		t.Error("no error has a hint")
	}
}

func TestTheErrorStays(t *testing.T) {
	cause := errors.New("cause")
	if err := mend.In(cause, mend.Place{}); !errors.Is(err, cause) || err.Error() != "cause" {
		t.Error(err)
	}
}

// FuzzHint: whatever the engine says, and whatever lies in the context, there is an answer.
func FuzzHint(f *testing.F) {
	f.Add(`failed to compute cache key: "/a": not found`, "FROM x\nCOPY a b", "a\n!b\n[\n\\")
	f.Add(exit("install", "127"), "RUN", "**")
	f.Add("repository name () must be lowercase", "FROM", "!")
	f.Fuzz(func(t *testing.T, msg, dockerfile, ignore string) {
		dir := t.TempDir()
		for name, text := range map[string]string{"Dockerfile": dockerfile, ".dockerignore": ignore, "a": ""} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		_ = mend.Hint(mend.In(at(msg, dockerfile, 1), mend.Place{Context: dir}))
	})
}
