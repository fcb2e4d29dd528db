package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// parseVolume splits what is given to -v: [SOURCE:]TARGET[:OPTIONS]. It returns the
// bind for the engine, in which a source that is written relative to the working
// directory (".", "./x", "../x") is made absolute, or an anonymous volume's path.
func parseVolume(spec string) (bind, anonymous string, err error) {
	if spec == "" {
		return "", "", errors.New("invalid empty volume spec")
	}
	parts := strings.Split(spec, ":")
	if len(spec) > 2 {
		for _, p := range parts {
			if p == "" {
				return "", "", fmt.Errorf("invalid spec: %s: empty section between colons", spec)
			}
		}
	}
	if len(parts) > 3 {
		return "", "", fmt.Errorf("invalid spec: %s: too many colons", spec)
	}
	if len(parts) == 1 || len(spec) <= 2 {
		return "", spec, nil
	}
	if source := parts[0]; strings.HasPrefix(source, ".") {
		abs, err := filepath.Abs(source)
		if err != nil {
			return "", "", fmt.Errorf("invalid spec: %s: %w", spec, err)
		}
		parts[0] = abs
	}
	if len(parts) == 3 {
		parts[2] = mapToCaller(parts[2], os.Getuid(), os.Getgid())
	}
	return strings.Join(parts, ":"), "", nil
}

// mapToCaller says to whom on the host files are to belong that a container makes,
// if the option idmap does not: to the user who calls. It leaves that of root to the
// engine, which takes the owner of the directory.
func mapToCaller(modes string, uid, gid int) string {
	list := strings.Split(modes, ",")
	for i, m := range list {
		if m == "idmap" && uid != 0 {
			list[i] = fmt.Sprintf("idmap=%d.%d", uid, gid)
		}
	}
	return strings.Join(list, ",")
}

// parseVolumes sorts -v values, each given once however often it is repeated, into
// binds for the engine and anonymous volumes.
func parseVolumes(specs []string) (binds []string, anonymous map[string]struct{}, err error) {
	anonymous = map[string]struct{}{}
	seen := map[string]bool{}
	for _, s := range specs {
		if seen[s] {
			continue
		}
		seen[s] = true
		bind, anon, err := parseVolume(s)
		switch {
		case err != nil:
			return nil, nil, err
		case bind != "":
			binds = append(binds, bind)
		default:
			anonymous[anon] = struct{}{}
		}
	}
	return binds, anonymous, nil
}

// parseTmpfs sorts --tmpfs values TARGET[:OPTIONS] by target.
func parseTmpfs(specs []string) map[string]string {
	out := map[string]string{}
	for _, s := range specs {
		k, v, _ := strings.Cut(s, ":")
		out[k] = v
	}
	return out
}
