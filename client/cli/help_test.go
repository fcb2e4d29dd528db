package cli_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/expect"
)

var commands = []string{
	"",
	"attach",
	"completion",
	"commit",
	"cp",
	"create",
	"diff",
	"events",
	"exec",
	"export",
	"history",
	"images",
	"import",
	"info",
	"inspect",
	"kill",
	"load",
	"login",
	"logout",
	"logs",
	"pause",
	"port",
	"ps",
	"pull",
	"rename",
	"restart",
	"rm",
	"rmi",
	"run",
	"save",
	"start",
	"stats",
	"stop",
	"tag",
	"top",
	"unpause",
	"update",
	"version",
	"wait",
	"container",
	"container attach",
	"container commit",
	"container cp",
	"container diff",
	"container export",
	"container create",
	"container exec",
	"container inspect",
	"container kill",
	"container logs",
	"container ls",
	"container pause",
	"container port",
	"container prune",
	"container rename",
	"container restart",
	"container rm",
	"container run",
	"container start",
	"container stats",
	"container stop",
	"container top",
	"container unpause",
	"container update",
	"container wait",
	"image",
	"image history",
	"image import",
	"image inspect",
	"image load",
	"image ls",
	"image prune",
	"image pull",
	"image rm",
	"image save",
	"image tag",
	"volume",
	"volume create",
	"volume inspect",
	"volume ls",
	"volume rm",
	"network",
	"network check",
	"network connect",
	"network create",
	"network disconnect",
	"network inspect",
	"network ls",
	"network prune",
	"network rm",
	"system",
	"system df",
	"system events",
	"system info",
	"system prune",
	"context",
	"context create",
	"context export",
	"context import",
	"context inspect",
	"context ls",
	"context rm",
	"context show",
	"context update",
	"context use",
	"engine",
	"engine start",
	"engine stop",
	"engine status",
	"engine logs",
}

func TestHelp(t *testing.T) {
	for _, c := range commands {
		r := call(t, program, "unix:///nowhere", "", append(strings.Fields(c), "--help")...)
		if r.code != 0 || r.stderr != "" {
			t.Errorf("%s --help: %+v", c, r)
		}
		name := strings.ReplaceAll(c, " ", "-")
		if name == "" {
			name = "cleat"
		}
		expect.Golden(t, "testdata/golden/help/"+name+".txt", r.stdout)
		if viaHelp := call(t, program, "unix:///nowhere", "", append([]string{"help"}, strings.Fields(c)...)...); c != "" && viaHelp != r {
			t.Errorf("help %s is not %s --help: %+v", c, c, viaHelp)
		}
	}
}

// TestHelpLikeDocker compares the help of the commands whose flags are all docker's.
func TestHelpLikeDocker(t *testing.T) {
	differs := []string{"", "container", "image", "volume", "system", "network", // other commands
		"run", "create", "container run", "container create", "pull", "image pull", "load", "image load", "save", "image save", "images", "image ls", "network check", "network connect", "network create", "completion", "start", "container start", "version"}
	for _, c := range commands {
		if slices.Contains(differs, c) || strings.HasPrefix(c, "engine") {
			continue
		}
		args := append(strings.Fields(c), "--help")
		if got, want := call(t, asDocker, "unix:///nowhere", "", args...), call(t, docker(t), "unix:///nowhere", "", args...); got != want {
			t.Errorf("%s:\n%s\ndocker's:\n%s", c, got.stdout, want.stdout)
		}
	}
}

// TestFlagsAfterArguments: a command takes flags behind its arguments where docker's does.
func TestFlagsAfterArguments(t *testing.T) {
	const unknown = "unknown flag: --no-such-flag"
	taken, left := 0, 0
	for _, c := range commands {
		args := append(strings.Fields(c), "x", "y", "--no-such-flag")
		want := call(t, docker(t), "unix:///nowhere", "", args...).stderr
		if c == "" || strings.Contains(want, "unknown command") || strings.Contains(want, "Usage:  docker "+c+" COMMAND") {
			continue // not docker's, or no command to run
		}
		got := call(t, asDocker, "unix:///nowhere", "", args...).stderr
		if strings.Contains(got, unknown) != strings.Contains(want, unknown) {
			t.Errorf("%s:\n%s\ndocker's:\n%s", c, got, want)
		}
		if strings.Contains(want, unknown) {
			taken++
		} else {
			left++
		}
	}
	if taken < 50 || left < 10 {
		t.Errorf("%d commands of docker's take flags behind their arguments, %d do not", taken, left)
	}
}

func TestCommandsOfLater(t *testing.T) {
	for _, line := range []string{"swarm init", "stack deploy x"} {
		r := call(t, program, "unix:///nowhere", "", strings.Fields(line)...)
		if r.code != 1 || r.stdout != "" || !strings.Contains(r.stderr, "is not a cleat command yet") || !strings.Contains(r.stderr, "--help'") {
			t.Errorf("%s: %+v", line, r)
		}
	}
}

// TestTrustIsRefused: what will not come is not promised.
func TestTrustIsRefused(t *testing.T) {
	r := call(t, program, "unix:///nowhere", "", "trust", "sign", "x")
	if r.code != 1 || r.stdout != "" || !strings.Contains(r.stderr, "'trust' is not supported") || !strings.Contains(r.stderr, "digest") {
		t.Errorf("%+v", r)
	}
}

// TestPluginIsMissing: what builds is another program, and where it belongs is said.
func TestPluginIsMissing(t *testing.T) {
	for _, line := range []string{"build .", "builder prune", "buildx ls", "image build .", "-H unix:///nowhere build .", "help build", "build --help"} {
		r := call(t, program, "unix:///nowhere", "", strings.Fields(line)...)
		if r.code != 1 || r.stdout != "" || !strings.Contains(r.stderr, "images are built by the program cleat-build, which is not installed: it belongs beside ") {
			t.Errorf("%s: %+v", line, r)
		}
	}
	r := call(t, program, "unix:///nowhere", "", "compose", "up")
	if r.code != 1 || !strings.Contains(r.stderr, "Compose files are carried out by the program cleat-compose, which is not installed: it belongs beside ") {
		t.Errorf("compose: %+v", r)
	}
}

// TestPluginIsRun: the plugin gets the command line as it was typed, and is found beside
// the client and where plugins lie.
func TestPluginIsRun(t *testing.T) {
	config := t.TempDir()
	plugin := filepath.Join(config, "cli-plugins", "cleat-build")
	if err := os.MkdirAll(filepath.Dir(plugin), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(plugin, []byte("#!/bin/sh\necho \"$DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND: $*\"\nexit 7\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for bin, name := range map[string]string{program: "cleat", asDocker: "docker"} {
		for _, line := range []string{"build -t x .", "builder prune", "image build --help", "__complete build --ta"} {
			line = "--config " + config + " " + line
			r := call(t, bin, "unix:///nowhere", "", strings.Fields(line)...)
			if r.code != 7 || r.stdout != name+": "+line+"\n" {
				t.Errorf("%s %s: %+v", name, line, r)
			}
		}
	}
}

func TestVersionLine(t *testing.T) {
	for bin, want := range map[string]string{program: "Cleat version 1.2.3\n", asDocker: "Docker version 1.2.3, build cleat\n"} {
		for _, flag := range []string{"-v", "--version"} {
			if r := call(t, bin, "unix:///nowhere", "", flag); r.stdout != want || r.code != 0 {
				t.Errorf("%s %s: %+v", filepath.Base(bin), flag, r)
			}
		}
	}
}

func TestHumanOutput(t *testing.T) {
	for _, c := range []string{"info", "version --format json", "events", "ps -a --no-trunc --format table"} {
		f := newFake(t)
		r := call(t, program, f.host(), "", strings.Fields(c)...)
		if r.code != 0 {
			t.Errorf("%s: %+v", c, r)
		}
		if strings.HasPrefix(c, "version") || strings.HasPrefix(c, "ps") {
			continue // these tell the build, or how long ago something was
		}
		expect.Golden(t, "testdata/golden/output/"+strings.ReplaceAll(c, " ", "")+".txt", r.stdout+"--- stderr\n"+r.stderr)
	}
	// Docker's layout but for the client's own lines.
	for _, c := range []string{"version", "info"} {
		f := newFake(t)
		_, ours, _ := strings.Cut(call(t, program, f.host(), "", c).stdout, "\n\nServer")
		_, theirs, _ := strings.Cut(call(t, docker(t), f.host(), "", c).stdout, "\n\nServer")
		if ours != theirs || ours == "" {
			t.Errorf("%s, ours:\n%s\ndocker's:\n%s", c, ours, theirs)
		}
	}
}
