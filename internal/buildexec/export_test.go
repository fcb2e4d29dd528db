package buildexec

import (
	"github.com/moby/buildkit/executor"

	"github.com/cleatlabs/cleat/internal/rootpath"
	"github.com/cleatlabs/cleat/internal/runtime"
)

// Dump is the launch program of a step with these mounts, in which nothing is open.
func (e *Executor) Dump(id string, meta executor.Meta, user rootpath.User, mounts []runtime.Mount) (string, error) {
	s := &step{e: e, id: id, meta: meta, rootFD: -1, bound: -1, user: user, mounts: mounts, place: &place{ns: 7}}
	spec, err := s.spec()
	if err != nil {
		return "", err
	}
	return e.c.Runtime.Dump(spec)
}
