// Package clientplugin is what Docker's clients and their plugins agree upon: where plugins lie, how one is asked what
// it is, and how it is told what the user has typed. It is also where the client's programs find each other.
package clientplugin

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// OriginalCommand is the variable by which a plugin is told what the user has typed.
const OriginalCommand = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND"

// metadata is the only argument of a plugin that is asked what it is.
const metadata = "docker-cli-plugin-metadata"

// Describe answers on w if args, without the program's name, ask the plugin what it is: by what it does, in a few words,
// and its version.
func Describe(w io.Writer, args []string, does, version string) (asked bool, err error) {
	if len(args) != 1 || args[0] != metadata {
		return false, nil
	}
	return true, json.NewEncoder(w).Encode(map[string]string{
		"SchemaVersion": "0.1.0", "Vendor": "Cleat", "Version": version,
		"ShortDescription": does, "URL": "https://github.com/cleatlabs/cleat",
	})
}

// Caller is the client that runs this plugin, "cleat" or "docker". One that is started by itself, as the program self,
// stands for cleat, or for docker under such a name.
func Caller(self string) string {
	if original := os.Getenv(OriginalCommand); original != "" {
		return filepath.Base(original)
	}
	if strings.HasPrefix(filepath.Base(self), "docker") {
		return "docker"
	}
	return "cleat"
}

// Environ is this program's environment without what a plugin is told by its client.
func Environ() []string {
	return slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, OriginalCommand+"=") })
}

// SystemDir is the first of the directories for all users.
const SystemDir = "/usr/local/lib/docker/cli-plugins"

// Dirs are where Docker's clients look for plugins: where the user's configuration says, below configDir, where it lies,
// and in the directories for all users.
func Dirs(configDir string, extra []string) []string {
	return append(slices.Clone(extra), filepath.Join(configDir, "cli-plugins"),
		SystemDir, "/usr/local/libexec/docker/cli-plugins", "/usr/lib/docker/cli-plugins", "/usr/libexec/docker/cli-plugins")
}

// Sibling finds one of the client's programs: names[0] beside this program, so that the two are of one version, or else
// the first of names that is in PATH. does says, for the error, what is done by it.
func Sibling(does string, names ...string) (string, error) {
	self, err := os.Executable()
	if err == nil {
		if real, err := filepath.EvalSymlinks(self); err == nil {
			self = real
		}
		if path := filepath.Join(filepath.Dir(self), names[0]); IsProgram(path) {
			return path, nil
		}
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s by the program %s, which is not installed: it belongs beside %s", does, names[0], self)
}

// IsProgram says whether a file lies at path.
func IsProgram(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}
