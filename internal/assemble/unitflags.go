package assemble

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cleatlabs/cleat/internal/record"
)

// flagsFile is in the directory that the engine's unit and that of its containers have of systemd (RuntimeDirectory=) and
// that stays until the machine is down: the command line of the engine that ran last.
const flagsFile = "engine-flags.json"

// flagsPath is "" outside of such a unit.
func flagsPath() string {
	dir, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":")
	if !filepath.IsAbs(dir) {
		return ""
	}
	return filepath.Join(dir, flagsFile)
}

// leaveFlags notes the engine's command line for whoever stops the containers that it leaves running. Flags that a drop-in
// gives to the engine's unit hold there, too, and systemd, which is busy with the machine's end, is asked for nothing.
func (c *Config) leaveFlags() error {
	path := flagsPath()
	if path == "" {
		return nil
	}
	return record.WriteJSON(path, c.arguments(), 0o600)
}

// leftFlags is the configuration of the engine that ran last; c where that is not known, or if c has flags of its own.
func (c *Config) leftFlags() (*Config, error) {
	path := flagsPath()
	if path == "" || len(c.arguments()) > 0 {
		return c, nil
	}
	var arguments []string
	switch err := record.ReadJSON(path, &arguments); {
	case errors.Is(err, fs.ErrNotExist):
		return c, nil
	case err != nil:
		return nil, err
	}
	of, err := c.with(arguments)
	if err != nil {
		return nil, fmt.Errorf("with the engine's flags, which are in %s: %w", path, err)
	}
	return of, nil
}
