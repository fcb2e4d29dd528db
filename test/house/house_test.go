// Package house holds the tests of the project's own structure: which package may
// import which, that each says what it promises, and what each binary must not
// link. ARCHITECTURE.md tells the same in words.
package house

import (
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/cleatlabs/cleat"

// floors of the engine's packages; a package imports only from lower floors.
var floors = map[string]int{
	"internal/launch": 0, "internal/apparmor": 0, "internal/seccomp": 0, "internal/cgroup": 0, "internal/netlink": 0, "internal/nft": 0,
	"internal/mount": 0, "internal/rootpath": 0, "internal/kernel": 0, "internal/failure": 0, "internal/proctable": 0,
	"internal/archive": 0, "internal/changes": 0, "internal/instruction": 0, "internal/filter": 0,

	"internal/runtime": 1, "internal/keeper": 1, "internal/store": 1, "internal/record": 1,
	"internal/registryclient": 1, "internal/supervise": 1, "internal/stdio": 1, "internal/plugin": 1, "internal/dns": 1, "internal/firewalld": 1, "internal/cdi": 1, "internal/systemd": 1, "internal/logsend": 1,

	"internal/container": 2, "internal/image": 2, "internal/network": 2, "internal/volume": 2, "internal/logs": 2, "internal/logship": 2, "internal/events": 2, "internal/buildexec": 2, "internal/health": 2, "internal/stats": 2, "internal/bootorder": 2,

	"internal/engine": 3, "internal/build": 3, "internal/classic": 3,

	"internal/api": 4, "internal/metrics": 4,

	"internal/assemble": 5,
}

// arrows are the imports allowed between packages of one floor. The first four
// floor-0 leaves are plain facts about the kernel and errors that the others name.
var arrows = map[string][]string{
	"internal/container":      {"internal/network"},                      // a record keeps the sandbox it has
	"internal/health":         {"internal/container"},                    // whose state it decides
	"internal/stats":          {"internal/container"},                    // which it measures
	"internal/bootorder":      {"internal/container", "internal/events"}, // whose states it waits for
	"internal/logship":        {"internal/logs"},                         // what it sends is read from there
	"internal/buildexec":      {"internal/network"},                      // steps are connected as containers are
	"internal/runtime":        {"internal/keeper", "internal/record", "internal/supervise"},
	"internal/classic":        {"internal/build"}, // which it is an interface to
	"internal/registryclient": {"internal/store"},
	"internal/changes":        {"internal/archive", "internal/failure"},
	"internal/instruction":    {"internal/failure"},
	"internal/filter":         {"internal/failure"},
	"internal/archive":        {"internal/kernel", "internal/rootpath", "internal/failure"},
	"internal/mount":          {"internal/kernel", "internal/rootpath", "internal/failure"},
	"internal/cgroup":         {"internal/failure", "internal/kernel"},
	"internal/proctable":      {"internal/failure"},
	"internal/kernel":         {"internal/failure"},
	"internal/rootpath":       {"internal/failure"},
	"internal/apparmor":       {"internal/failure"},
	"internal/seccomp":        {"internal/kernel", "internal/failure"},
	"internal/launch":         {"internal/failure"},
	"internal/nft":            {"internal/failure", "internal/netlink"},
	"internal/netlink":        {"internal/failure"},
	"internal/dns":            {"internal/supervise"}, // its goroutines
	"internal/store":          {"internal/record"},
	"internal/stdio":          {"internal/record"},
}

// forbidden says which import paths (and everything below them) a binary must not
// link: Go initialises every linked package at start, so each is a start-up cost.
var forbidden = map[string][]string{
	"cmd/cleat": {
		module + "/internal", module + "/registryserver",
		"github.com/containerd/containerd", "github.com/moby/buildkit", "github.com/moby/swarmkit", "github.com/distribution/distribution",
		"github.com/compose-spec", "github.com/docker/cli/cli/command", "google.golang.org/grpc", "go.etcd.io/bbolt", "k8s.io",
		"github.com/docker/docker", "github.com/moby/moby/v2",
	},
	"cmd/cleat-build": {
		module + "/internal", module + "/registryserver", module + "/client/cli",
		"github.com/moby/buildkit/solver/llbsolver", "github.com/moby/buildkit/worker", "github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb",
		"github.com/docker/buildx", "github.com/hashicorp/hcl", "github.com/zclconf", "github.com/compose-spec", "github.com/docker/cli/cli/command",
		"github.com/docker/docker", "github.com/moby/moby/v2", "go.etcd.io/bbolt", "k8s.io",
	},
	"cmd/cleat-bake": {
		module + "/internal", module + "/registryserver", module + "/client/cli",
		"github.com/docker/buildx/driver", "github.com/docker/buildx/build", "github.com/docker/buildx/policy", "github.com/docker/cli/cli/command",
		"github.com/docker/docker", "github.com/moby/moby/v2", "go.etcd.io/bbolt", "k8s.io",
	},
	"cmd/cleat-compose": {
		module + "/internal", module + "/registryserver", module + "/client/cli", module + "/client/build",
		"github.com/moby/buildkit", "github.com/docker/buildx", "github.com/docker/compose", "google.golang.org/grpc", "github.com/docker/docker", "github.com/moby/moby/v2",
		"go.etcd.io/bbolt", "k8s.io",
	},
	"cmd/cleatd": {
		module + "/client", module + "/registryserver",
		"github.com/docker/docker", "github.com/moby/moby/v2", "github.com/docker/cli/cli/command", "github.com/distribution/distribution",
		"github.com/spf13/viper", "k8s.io", "github.com/containerd/go-cni", "github.com/containernetworking", "github.com/opencontainers/runc",
		"github.com/compose-spec",
	},
	"cmd/cleat-registry": {
		module + "/internal", module + "/client",
		"github.com/docker/docker", "github.com/moby/moby/v2", "github.com/moby/buildkit", "github.com/moby/swarmkit", "k8s.io",
	},
}

type pkg struct {
	ImportPath, Dir, Name string
	GoFiles               []string
	Imports, TestImports  []string
	Deps                  []string
	XTestImports          []string
}

func (p pkg) rel() string { return strings.TrimPrefix(p.ImportPath, module+"/") }

func list(t *testing.T, patterns ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Name,GoFiles,Imports,Deps"}, patterns...)...)
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v", patterns, err)
	}
	var ps []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return ps
		} else if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
}

func under(path, prefix string) bool { return path == prefix || strings.HasPrefix(path, prefix+"/") }

func TestFloors(t *testing.T) {
	for _, p := range list(t, "./internal/...") {
		from, ok := floors[p.rel()]
		if !ok {
			t.Errorf("%s is on no floor: give it one here and in ARCHITECTURE.md", p.rel())
			continue
		}
		for _, imp := range p.Imports {
			if under(imp, module+"/client") || under(imp, module+"/registryserver") {
				t.Errorf("%s imports %s: the client and the registry are houses of their own", p.rel(), imp)
			}
			to := strings.TrimPrefix(imp, module+"/")
			floor, ours := floors[to]
			if !ours {
				continue
			}
			if floor > from || (floor == from && !slices.Contains(arrows[p.rel()], to)) {
				t.Errorf("%s (floor %d) imports %s (floor %d)", p.rel(), from, to, floor)
			}
		}
	}
}

func TestClientHouse(t *testing.T) {
	for _, p := range list(t, "./client/...", "./registryserver/...") {
		for _, imp := range p.Imports {
			if under(imp, module+"/internal") {
				t.Errorf("%s imports %s: no engine package may be imported here", p.rel(), imp)
			}
		}
	}
}

// TestSharedLeaf: what the engine and the client both read imports nothing of either.
func TestSharedLeaf(t *testing.T) {
	for _, p := range list(t, "./registrytrust/...") {
		for _, imp := range p.Imports {
			if under(imp, module) {
				t.Errorf("%s imports %s: it lies below all houses", p.rel(), imp)
			}
		}
	}
}

func TestForbiddenImports(t *testing.T) {
	for cmd, banned := range forbidden {
		p := list(t, "./"+cmd)[0]
		for _, dep := range p.Deps {
			for _, b := range banned {
				if under(dep, b) || strings.HasPrefix(dep, b+"/v") {
					t.Errorf("%s links %s", cmd, dep)
				}
			}
		}
	}
}

// TestClientImportCount bounds how much the client and its plugins link, which bounds their start.
func TestClientImportCount(t *testing.T) {
	for cmd, most := range map[string]int{"cmd/cleat": 420, "cmd/cleat-build": 640, "cmd/cleat-bake": 720, "cmd/cleat-compose": 560} {
		if n := len(list(t, "./"+cmd)[0].Deps); n > most {
			t.Errorf("%s links %d packages, more than %d: each one costs start time", cmd, n, most)
		}
	}
}

func TestPackageComments(t *testing.T) {
	for _, p := range list(t, "./...") {
		documented := false
		for _, f := range p.GoFiles {
			ast, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, f), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			documented = documented || (ast.Doc != nil && len(ast.Doc.Text()) > 40)
		}
		if !documented && len(p.GoFiles) > 0 {
			t.Errorf("%s has no package comment that says what it promises", p.rel())
		}
	}
}

func TestNoVaguePackageNames(t *testing.T) {
	for _, p := range list(t, "./...") {
		if slices.Contains([]string{"util", "utils", "common", "types", "helpers", "misc"}, p.Name) {
			t.Errorf("%s: a package is named after its concept", p.rel())
		}
	}
}

func TestFileLength(t *testing.T) {
	const most = 750
	for _, p := range list(t, "./...") {
		for _, f := range p.GoFiles {
			b, err := os.ReadFile(filepath.Join(p.Dir, f))
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(string(b), "// Code generated") {
				continue
			}
			if n := strings.Count(string(b), "\n"); n > most {
				t.Errorf("%s/%s has %d lines: one file is one part of one concept", p.rel(), f, n)
			}
		}
	}
}

func TestNoInitFunctions(t *testing.T) {
	for _, p := range list(t, "./internal/...", "./client/...", "./cmd/...", "./registryserver/...", "./registrytrust/...") {
		for _, f := range p.GoFiles {
			b, err := os.ReadFile(filepath.Join(p.Dir, f))
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(b), "\nfunc init()") {
				t.Errorf("%s/%s has an init function: wire it where it is used", p.rel(), f)
			}
		}
	}
}
