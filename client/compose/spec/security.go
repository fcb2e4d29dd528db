package spec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/moby/api/types/container"
)

// security fills in what security_opt says. A seccomp profile is a file, whose content the
// engine is sent.
func (r *Replica) security(h *container.HostConfig) error {
	for _, text := range r.Service.SecurityOpt {
		key, value, ok := strings.Cut(text, "=")
		if !ok && text != "no-new-privileges" {
			// The older form.
			if key, value, ok = strings.Cut(text, ":"); !ok {
				return fmt.Errorf("invalid security-opt: %q", text)
			}
		}
		switch {
		case text == "systempaths=unconfined":
			h.MaskedPaths, h.ReadonlyPaths = []string{}, []string{}
			continue
		case key == "seccomp" && value != "unconfined" && value != "builtin":
			profile, err := r.profile(value)
			if err != nil {
				return err
			}
			text = "seccomp=" + profile
		}
		h.SecurityOpt = append(h.SecurityOpt, text)
	}
	return nil
}

func (r *Replica) profile(path string) (string, error) {
	if !filepath.IsAbs(path) {
		path = filepath.Join(r.Project.WorkingDir, path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("opening seccomp profile (%s) failed: %w", path, err)
	}
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		return "", fmt.Errorf("compacting json for seccomp profile (%s) failed: %w", path, err)
	}
	return b.String(), nil
}
