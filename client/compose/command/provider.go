package command

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// provider finds the program of a service's provider: a plugin of Docker's client of that name, or any in PATH.
func (a *app) provider(name string) (program string, env []string, err error) {
	if name == "compose" {
		return "", nil, errors.New("'compose' is not a valid provider type")
	}
	if name != filepath.Base(name) {
		return "", nil, fmt.Errorf("%q is no program's name", name)
	}
	env = append(os.Environ(), "DOCKER_HOST="+a.api.DaemonHost())
	dirs := slices.Concat(a.config().CLIPluginsExtraDirs, []string{
		filepath.Join(a.globals.Dir(), "cli-plugins"), "/usr/local/lib/docker/cli-plugins", "/usr/local/libexec/docker/cli-plugins",
		"/usr/lib/docker/cli-plugins", "/usr/libexec/docker/cli-plugins",
	})
	for _, dir := range dirs {
		if path := filepath.Join(dir, "docker-"+name); isFile(path) {
			return path, env, nil
		}
	}
	if program, err = exec.LookPath(name); err != nil {
		return "", nil, fmt.Errorf("the program %s is not installed: it has to be in PATH, or as docker-%s among the client's plugins", name, name)
	}
	return program, env, nil
}
