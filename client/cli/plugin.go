package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/usage"
)

// pluginProgram carries out the commands that build. What it links would make every other
// command slower to start.
const pluginProgram = "cleat-build"

// pluginDirs are where Docker's clients look for plugins, after the user's own.
var pluginDirs = []string{
	"/usr/local/lib/docker/cli-plugins", "/usr/local/libexec/docker/cli-plugins",
	"/usr/lib/docker/cli-plugins", "/usr/libexec/docker/cli-plugins",
}

// originalCommand is the variable by which a plugin is told what the user has typed.
const originalCommand = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND"

// isPlugin says whether a command line, from its first command on, is for the plugin.
func isPlugin(args []string) bool {
	if len(args) == 0 {
		return false
	}
	switch args[0] {
	case "build", "builder", "buildx":
		return true
	case "image":
		return len(args) > 1 && args[1] == "build"
	case "help":
		return isPlugin(args[1:])
	case cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd:
		// Which command it is has been typed; of an unfinished word the plugin knows nothing.
		return len(args) > 2 && isPlugin(args[1:len(args)-1])
	}
	return false
}

// execPlugin replaces this process by the plugin, with the same arguments. It returns only
// if there is none.
func (a *app) execPlugin() error {
	for _, path := range a.pluginPaths() {
		env := slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, originalCommand+"=") })
		err := syscall.Exec(path, append([]string{path}, a.args...), append(env, originalCommand+"="+a.name))
		if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s: %s cannot be run: %w", a.name, path, err)
		}
	}
	self, _ := os.Executable()
	return fmt.Errorf("%s: images are built by the program %s, which is not installed: it belongs beside %s or into %s",
		a.name, pluginProgram, self, pluginDirs[0])
}

// pluginPaths are where the plugin may be, in the order of preference: beside this program,
// so that the two are of one version, and then where plugins are.
func (a *app) pluginPaths() []string {
	var dirs []string
	if self, err := os.Executable(); err == nil {
		dirs = append(dirs, filepath.Dir(self))
		if real, err := filepath.EvalSymlinks(self); err == nil && filepath.Dir(real) != dirs[0] {
			dirs = append(dirs, filepath.Dir(real))
		}
		if _, err := os.Stat(filepath.Join(dirs[0], pluginProgram)); err == nil {
			return []string{filepath.Join(dirs[0], pluginProgram)} // without reading the configuration
		}
	}
	dirs = append(dirs, a.config().CLIPluginsExtraDirs...)
	dirs = append(dirs, filepath.Join(a.configDir(), "cli-plugins"))
	dirs = append(dirs, pluginDirs...)
	for i := range dirs {
		dirs[i] = filepath.Join(dirs[i], pluginProgram)
	}
	return dirs
}

// pluginCommands are shown where commands are listed.
func (a *app) pluginCommands() []*cobra.Command {
	run := func(*pflag.FlagSet) action {
		return func(context.Context, []string) error { return a.execPlugin() }
	}
	build := a.command(spec{use: "build [OPTIONS] PATH | URL | -", short: "Build an image from a Dockerfile", top: 4, setup: run})
	list := []*cobra.Command{build}
	for _, s := range []spec{{use: "builder", short: "Manage builds", setup: run}, {use: "buildx", short: "Manage builds, by the name of Docker's plugin", setup: run}} {
		cmd := a.command(s)
		cmd.Annotations[usage.AnnotationManagement] = "yes"
		list = append(list, cmd)
	}
	return list
}

// pluginImageBuild is shown among the commands of image.
func (a *app) pluginImageBuild() spec {
	return spec{
		use: "build [OPTIONS] PATH | URL | -", short: "Build an image from a Dockerfile",
		setup: func(*pflag.FlagSet) action {
			return func(context.Context, []string) error { return a.execPlugin() }
		},
	}
}
