package runtime

import (
	"fmt"
	"strings"

	"github.com/cleatlabs/cleat/internal/kernel"
)

// checkPropagation refuses a shared or slave bind of a source whose mount on the host has no peers to share with or
// follow: it would work as a private one, and no one would know why.
func checkPropagation(m *Mount) error {
	kind := strings.TrimPrefix(m.Propagation, "r")
	if kind != "shared" && kind != "slave" {
		return nil
	}
	on, err := kernel.MountOf(m.Source)
	switch {
	case err != nil:
		return fmt.Errorf("propagation: %w", err)
	case kind == "shared" && !on.Shared:
		return invalid("path %s is mounted on %s but it is not a shared mount: make it one (mount --make-rshared %[2]s), or leave out %[3]s", m.Source, on.Point, m.Propagation)
	case kind == "slave" && !on.Shared && !on.Slave:
		return invalid("path %s is mounted on %s but it is not a shared or slave mount: make it one (mount --make-rshared %[2]s), or leave out %[3]s", m.Source, on.Point, m.Propagation)
	}
	return nil
}
