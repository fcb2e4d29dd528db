package cli

import (
	"encoding/csv"
	"errors"
	"os"
	"strings"

	"github.com/docker/cli/opts"
)

// mountFlag is --mount with Docker's keys and idmap[=UID.GID]. A mount without a target is
// refused here: it is a mistake on the command line, whatever the engine says.
type mountFlag struct{ opts.MountOpt }

func (m *mountFlag) Set(value string) error {
	value, err := withIDMap(value, os.Getuid(), os.Getgid())
	if err != nil {
		return err
	}
	if err := m.MountOpt.Set(value); err != nil {
		return err
	}
	all := m.Value()
	if all[len(all)-1].Target == "" {
		return errors.New("target is required")
	}
	return nil
}

// withIDMap writes the key idmap, for which Docker's API has no field, as the engine takes
// it from other clients, too: as the consistency, which says nothing else on Linux.
func withIDMap(value string, uid, gid int) (string, error) {
	fields, err := csv.NewReader(strings.NewReader(value)).Read()
	if err != nil {
		return value, nil // whoever reads it next says what is wrong
	}
	idMap, kept := "", make([]string, 0, len(fields))
	for _, f := range fields {
		if key, _, _ := strings.Cut(f, "="); key == "idmap" {
			idMap = f
			continue
		}
		kept = append(kept, f)
	}
	if idMap == "" {
		return value, nil
	}
	var b strings.Builder
	w := csv.NewWriter(&b)
	if err := w.Write(append(kept, "consistency="+mapToCaller(idMap, uid, gid))); err != nil {
		return "", err
	}
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n"), w.Error()
}
