package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/clientplugin"
	"github.com/cleatlabs/cleat/client/usage"
)

// plugin is a program that carries out some of the commands. What it links would make
// every other command slower to start.
type plugin struct {
	program string
	does    string // for the case that it is missing
}

// builds and composes are the plugins that belong to this client.
func builds() *plugin   { return &plugin{"cleat-build", "images are built"} }
func composes() *plugin { return &plugin{"cleat-compose", "Compose files are carried out"} }

// pluginFor is the plugin that a command line, from its first command on, is for; nil if it
// is this program's own.
func pluginFor(args []string) *plugin {
	if len(args) == 0 {
		return nil
	}
	switch args[0] {
	case "build", "bake", "builder", "buildx", "manifest":
		return builds()
	case "compose":
		return composes()
	case "image":
		if len(args) > 1 && args[1] == "build" {
			return builds()
		}
	case "help":
		return pluginFor(args[1:])
	case cobra.ShellCompRequestCmd, cobra.ShellCompNoDescRequestCmd:
		// Which command it is has been typed; of an unfinished word the plugin knows nothing.
		if len(args) > 2 {
			return pluginFor(args[1 : len(args)-1])
		}
	}
	return nil
}

// execPlugin replaces this process by the plugin, with the same arguments. It returns only
// if there is none.
func (a *app) execPlugin(p *plugin) error {
	for _, path := range a.pluginPaths(p.program) {
		err := syscall.Exec(path, append([]string{path}, a.args...), append(clientplugin.Environ(), clientplugin.OriginalCommand+"="+a.name))
		if !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s: %s cannot be run: %w", a.name, path, err)
		}
	}
	self, _ := os.Executable()
	return fmt.Errorf("%s: %s by the program %s, which is not installed: it belongs beside %s or into %s",
		a.name, p.does, p.program, self, clientplugin.SystemDir)
}

// pluginPaths are where the plugin may be, in the order of preference: beside this program,
// so that the two are of one version, and then where plugins are.
func (a *app) pluginPaths(program string) []string {
	var dirs []string
	if self, err := os.Executable(); err == nil {
		dirs = append(dirs, filepath.Dir(self))
		if real, err := filepath.EvalSymlinks(self); err == nil && filepath.Dir(real) != dirs[0] {
			dirs = append(dirs, filepath.Dir(real))
		}
		if _, err := os.Stat(filepath.Join(dirs[0], program)); err == nil {
			return []string{filepath.Join(dirs[0], program)} // without reading the configuration
		}
	}
	dirs = append(dirs, clientplugin.Dirs(a.configDir(), a.config().CLIPluginsExtraDirs)...)
	for i := range dirs {
		dirs[i] = filepath.Join(dirs[i], program)
	}
	return dirs
}

// pluginCommands are shown where commands are listed.
func (a *app) pluginCommands() []*cobra.Command {
	list := []*cobra.Command{
		a.command(spec{use: "build [OPTIONS] PATH | URL | -", short: "Build an image from a Dockerfile", top: 4, setup: a.by(builds())}),
		a.command(spec{use: "bake [OPTIONS] [TARGET...]", short: "Build from a file", top: 5, setup: a.by(builds())}),
	}
	for _, s := range []spec{
		{use: "builder", short: "Manage builds", setup: a.by(builds())},
		{use: "buildx", short: "Manage builds, by the name of Docker's plugin", setup: a.by(builds())},
		{use: "manifest", short: "Look at image manifests and manifest lists", setup: a.by(builds())},
		{use: "compose", short: "Run whole applications from a Compose file", setup: a.by(composes())},
	} {
		cmd := a.command(s)
		cmd.Annotations[usage.AnnotationManagement] = "yes"
		list = append(list, cmd)
	}
	return list
}

// by is the action of a command that a plugin carries out.
func (a *app) by(p *plugin) func(*pflag.FlagSet) action {
	return func(*pflag.FlagSet) action {
		return func(context.Context, []string) error { return a.execPlugin(p) }
	}
}

// pluginImageBuild is shown among the commands of image.
func (a *app) pluginImageBuild() spec {
	return spec{use: "build [OPTIONS] PATH | URL | -", short: "Build an image from a Dockerfile", setup: a.by(builds())}
}
