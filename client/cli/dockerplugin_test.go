package cli_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// thePlugin says what it was given.
const thePlugin = `#!/bin/sh
if [ "$1" = docker-cli-plugin-metadata ]; then
	echo '{"SchemaVersion": "0.1.0", "Vendor": "somebody", "Version": "1", "ShortDescription": "Says hello"}'
	exit
fi
echo "hello: $*"
echo "host: $DOCKER_HOST, context: $DOCKER_CONTEXT, called by $DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND"
case $* in *fail*) exit 6 ;; esac
`

// hasPlugins is a configuration with the plugin hello in both of the user's places.
func hasPlugins(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for path, text := range map[string]string{
		"config.json": `{"cliPluginsExtraDirs": ["` + dir + `/extra"]}`, "extra/docker-first": thePlugin,
		"cli-plugins/docker-hello": thePlugin, "cli-plugins/docker-Upper": thePlugin, "cli-plugins/docker-with-dash": thePlugin,
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func withPlugins(dir, bin string, env []string, args ...string) result {
	cmd := exec.Command(bin, args...)
	cmd.Env = append([]string{"HOME=/nonexistent", "PATH=/bin:/usr/bin", "DOCKER_CONFIG=" + dir}, env...)
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	_ = cmd.Run()
	return result{strings.ReplaceAll(out.String(), bin, "PROGRAM"), errOut.String(), cmd.ProcessState.ExitCode()}
}

// A command that is not ours is looked for where docker looks for plugins, and given what docker gives it.
func TestDockersPlugins(t *testing.T) {
	dir := hasPlugins(t)
	for _, line := range []string{
		"hello", "hello a --b -c", "hello fail", "first x", "-D hello a", "hello --help", "-H unix:///x hello a", "--context other hello", "help hello", "Upper", "with-dash", "help nothing", "../docker-hello",
	} {
		env := []string{"DOCKER_HOST=unix:///somewhere"}
		want := withPlugins(dir, docker(t), env, strings.Fields(line)...)
		if got := withPlugins(dir, asDocker, env, strings.Fields(line)...); got != want {
			t.Errorf("%s: ours %+v\ndocker's %+v", line, got, want)
		}
	}
}

// It is to reach the engine that this client would.
func TestEngineOfDockersPlugins(t *testing.T) {
	dir := hasPlugins(t)
	for _, c := range []struct{ env, line, want string }{
		{"", "hello", "host: unix:///"}, {"DOCKER_HOST=", "hello", "host: unix:///"}, {"DOCKER_HOST=unix:///x", "hello", "host: unix:///x,"},
		{"DOCKER_CONTEXT=other", "hello", "host: , context: other,"}, {"", "-c other hello", "host: ,"}, {"", "-H unix:///x hello", "host: ,"},
	} {
		if got := withPlugins(dir, program, []string{c.env}, strings.Fields(c.line)...); got.code != 0 || !strings.Contains(got.stdout, c.want) {
			t.Errorf("%s %s: %+v, want %q", c.env, c.line, got, c.want)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "cli-plugins/docker-hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := withPlugins(dir, program, nil, "hello"); got.code != 1 || !strings.Contains(got.stderr, dir+"/cli-plugins/docker-hello cannot be run") {
		t.Errorf("that cannot be executed: %+v", got)
	}
}
