package command

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/cleatlabs/cleat/client/clientplugin"
)

// provider finds the program of a service's provider: a plugin of Docker's client of that name, or any in PATH.
func (a *app) provider(name string) (program string, env []string, err error) {
	if name == "compose" {
		return "", nil, errors.New("'compose' is not a valid provider type")
	}
	if name != filepath.Base(name) {
		return "", nil, fmt.Errorf("%q is no program's name", name)
	}
	if env, err = a.environ(); err != nil {
		return "", nil, err
	}
	for _, dir := range clientplugin.Dirs(a.globals.Dir(), a.config().CLIPluginsExtraDirs) {
		if path := filepath.Join(dir, "docker-"+name); clientplugin.IsProgram(path) {
			return path, env, nil
		}
	}
	if program, err = exec.LookPath(name); err != nil {
		return "", nil, fmt.Errorf("the program %s is not installed: it has to be in PATH, or as docker-%s among the client's plugins", name, name)
	}
	return program, env, nil
}
