package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/clientplugin"
	"github.com/cleatlabs/cleat/client/connect"
)

// execDockerPlugin replaces this process by a plugin that somebody has made for the docker command, as docker-rollout is
// what `docker rollout` runs, with the arguments that were typed. It returns nil if there is none of this name.
func (a *app) execDockerPlugin(name string) error {
	if !isPluginName(name) {
		return nil
	}
	for _, dir := range clientplugin.Dirs(a.configDir(), a.config().CLIPluginsExtraDirs) {
		path := filepath.Join(dir, "docker-"+name)
		if !clientplugin.IsProgram(path) {
			continue
		}
		err := syscall.Exec(path, append([]string{path}, a.args...), a.dockerPluginEnviron())
		return fmt.Errorf("%s: the plugin %s cannot be run: %w", a.name, path, err)
	}
	return nil
}

// isPluginName says whether Docker's clients would look for a plugin of this name.
func isPluginName(name string) bool {
	for i, r := range name {
		if letter, digit := r >= 'a' && r <= 'z', r >= '0' && r <= '9'; !letter && (i == 0 || !digit) {
			return false
		}
	}
	return name != ""
}

// dockerPluginEnviron is this program's environment with what such a plugin is told: who has called it, and which engine
// is this client's, where nothing says so that both read. By itself it would look for Docker's.
func (a *app) dockerPluginEnviron() []string {
	env := append(clientplugin.Environ(), clientplugin.OriginalCommand+"="+os.Args[0])
	if len(a.globals.Hosts) > 0 || os.Getenv(client.EnvOverrideHost) != "" || a.contextName() != defaultContext {
		return env
	}
	// An empty one would come first.
	env = slices.DeleteFunc(env, func(s string) bool { return strings.HasPrefix(s, client.EnvOverrideHost+"=") })
	return append(env, client.EnvOverrideHost+"=unix://"+connect.DefaultSocket())
}
