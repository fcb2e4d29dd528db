package buildexec

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/executor"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
	cmount "github.com/cleatlabs/cleat/internal/mount"
	"github.com/cleatlabs/cleat/internal/rootpath"
	"github.com/cleatlabs/cleat/internal/runtime"
)

// openMounts opens what is mounted in the step besides its own files. A mount in the place of another replaces it.
func (s *step) openMounts(ctx context.Context, mounts []executor.Mount) error {
	for _, m := range mounts {
		list, err := s.mountsOf(ctx, m.Src, m.Readonly)
		if err != nil {
			return fmt.Errorf("failed to mount %s: %w", m.Dest, err)
		}
		for _, from := range list {
			rm, err := s.openMount(m, from)
			if err != nil {
				return err
			}
			s.addMount(rm)
		}
	}
	return nil
}

func (s *step) addMount(m runtime.Mount) {
	same := func(o runtime.Mount) bool { return path.Clean(o.Target) == path.Clean(m.Target) }
	if i := slices.IndexFunc(s.mounts, same); i >= 0 {
		s.mounts[i] = m
		return
	}
	s.mounts = append(s.mounts, m)
}

// openMount makes one of a step's mounts.
func (s *step) openMount(m executor.Mount, from mount.Mount) (runtime.Mount, error) {
	rm := runtime.Mount{Target: path.Join("/", m.Dest), Type: "bind", Source: from.Source}
	if from.Type == "tmpfs" {
		return tmpfs(rm, from, m.Readonly)
	}
	tree, err := openTree(from, s.e.overlay)
	if err == nil {
		s.trees = append(s.trees, tree)
		tree, err = s.selected(tree, m.Selector)
	}
	if err != nil {
		return rm, fmt.Errorf("failed to mount %s: %w", m.Dest, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(tree, &st); err != nil {
		return rm, fmt.Errorf("failed to mount %s: %w", m.Dest, err)
	}
	rm.Tree, rm.IsFile = tree, st.Mode&unix.S_IFMT != unix.S_IFDIR
	rm.ReadOnly = m.Readonly || slices.Contains(from.Options, "ro")
	rm.RecursiveReadOnly = rm.ReadOnly
	rm.Options = flagsOf(from)
	return rm, nil
}

// selected takes what a mount is to show of a tree: a path in it, which no link there leads out of.
func (s *step) selected(tree int, selector string) (int, error) {
	if path.Join("/", selector) == "/" {
		return tree, nil
	}
	part, err := cmount.Subtree(tree, selector)
	if err != nil {
		return -1, err
	}
	s.trees = append(s.trees, part)
	return part, nil
}

// tmpfs is a mount of memory: BuildKit's may be executed from, as the kernel has it by default.
func tmpfs(rm runtime.Mount, from mount.Mount, readonly bool) (runtime.Mount, error) {
	rm.Type, rm.Source, rm.ReadOnly = "tmpfs", "", readonly
	rm.Options = []string{"exec", "dev", "suid"}
	for _, o := range from.Options {
		if o == "ro" {
			rm.ReadOnly = true
			continue
		}
		rm.Options = append(rm.Options, o)
	}
	return rm, nil
}

// flagsOf are the options of a bind that are a mount's own: the others concern its filesystem.
func flagsOf(m mount.Mount) []string {
	var flags []string
	for _, o := range m.Options {
		switch o {
		case "nosuid", "suid", "nodev", "dev", "noexec", "exec", "noatime", "relatime":
			flags = append(flags, o)
		}
	}
	return flags
}

// openTree makes a mount of BuildKit's as a detached one, which propagates nothing. What is read-only about it is left
// to whom it is for.
func openTree(m mount.Mount, overlay func(cmount.Overlay) (int, error)) (int, error) {
	switch m.Type {
	case "overlay":
		o, err := overlayOf(m)
		if err != nil {
			return -1, err
		}
		return overlay(o)
	case "bind", "rbind":
	default:
		return -1, failure.NotImplemented("a mount of type %q is not supported in build steps", m.Type)
	}
	fd, err := cmount.Bind(m.Source, m.Type == "rbind" || slices.Contains(m.Options, "rbind"))
	if err != nil {
		return -1, err
	}
	if err := cmount.SetAttr(fd, cmount.Attr{Propagation: "rprivate"}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (e *Executor) overlay(o cmount.Overlay) (int, error) { return o.Mount(e.c.Features) }

// rootOverlay is that of the step's result.
func (s *step) rootOverlay(o cmount.Overlay) (int, error) {
	if s.upper = o.Upper; o.Upper == "" {
		return s.e.overlay(o)
	}
	return volatile(o, s.e.overlay)
}

// overlayOf reads the options that a snapshotter gives for an overlay.
func overlayOf(m mount.Mount) (cmount.Overlay, error) {
	var o cmount.Overlay
	for _, opt := range m.Options {
		key, value, _ := strings.Cut(opt, "=")
		switch key {
		case "lowerdir":
			o.Lower = strings.Split(value, ":")
		case "upperdir":
			o.Upper = value
		case "workdir":
			o.Work = value
		case "volatile":
			o.Volatile = true
		case "index", "rw", "ro": // never an index; read-only is the mount's own
		case "redirect_dir", "metacopy", "userxattr", "xino", "nfs_export", "uuid":
			o.Options = append(o.Options, opt)
		default:
			return o, failure.NotImplemented("overlay option %q is not supported in build steps", opt)
		}
	}
	// BuildKit makes an overlay read-only by leaving its upper directory out.
	o.Volatile = o.Volatile && o.Upper != ""
	return o, nil
}

// below says whether a path lies at or below one of the mounts.
func below(p string, mounts []runtime.Mount) bool {
	for _, m := range mounts {
		if rootpath.IsBelow(p, path.Clean(m.Target)) {
			return true
		}
	}
	return false
}
