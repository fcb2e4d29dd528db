package volume

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/mount"
)

// Options of the local driver, as Docker names them.
const (
	optType   = "type"
	optData   = "o"
	optDevice = "device"
	optSize   = "size"
)

// checkOptions holds the options of a new local volume against Docker's rules: type and device come together, o needs
// both.
func checkOptions(name string, opts map[string]string) error {
	needs := map[string][]string{optType: {optDevice}, optDevice: {optType}, optData: {optDevice, optType}, optSize: nil}
	for _, o := range slices.Sorted(maps.Keys(opts)) {
		others, known := needs[o]
		if !known {
			return failure.Invalid("create %s: invalid option: %q", name, o)
		}
		for _, other := range others {
			if opts[other] == "" {
				return failure.Invalid("create %s: missing required option: %q", name, other)
			}
		}
		if strings.ContainsRune(opts[o], 0) {
			return failure.Invalid("create %s: option %q holds a zero byte", name, o)
		}
	}
	if _, err := mount.ParseOptions(opts[optData]); err != nil {
		return failure.Invalid("create %s: %w", name, err)
	}
	if opts[optSize] != "" && opts[optDevice] != "" {
		return failure.Invalid("create %s: the option size limits the engine's own directory and cannot be given with device: use the limit of the filesystem, as o=size=… of a tmpfs", name)
	}
	return nil
}

// isMounted says whether the options name something that is mounted for use.
func isMounted(opts map[string]string) bool { return opts[optDevice] != "" }

// isRemote says whether looking at the mounted files may wait for a server.
func isRemote(opts map[string]string) bool {
	t := opts[optType]
	return strings.HasPrefix(t, "nfs") || strings.HasPrefix(t, "fuse") || slices.Contains([]string{"cifs", "smb3", "9p", "ceph", "virtiofs", "glusterfs"}, t)
}

// mountLocal mounts what opts name on target.
func mountLocal(ctx context.Context, opts map[string]string, target string) error {
	device := opts[optDevice]
	list, err := forKernel(ctx, opts)
	if err != nil {
		return failure.Unavailable("failed to mount local volume: %w", err)
	}
	parsed, err := mount.ParseOptions(list)
	if err != nil {
		return err
	}
	if err := mount.At(device, target, opts[optType], parsed); err != nil {
		what := fmt.Sprintf("mount %s:%s", device, target)
		if parsed.Flags != 0 {
			what += fmt.Sprintf(", flags: %#x", parsed.Flags)
		}
		if parsed.Data != "" {
			what += ", data: " + mount.HidePasswords(parsed.Data)
		}
		if errors.Is(err, unix.ENODEV) {
			return failure.Unavailable("failed to mount local volume: %s: %w: the kernel has no filesystem %s, or has not loaded it: modprobe %s",
				what, err, opts[optType], moduleOf(opts[optType]))
		}
		return fmt.Errorf("failed to mount local volume: %s: %w", what, err)
	}
	return nil
}

// moduleOf is the kernel module that has a filesystem.
func moduleOf(fstype string) string {
	switch fstype {
	case "nfs4":
		return "nfsv4"
	case "smb3":
		return "cifs"
	case "ext2", "ext3":
		return "ext4"
	}
	return fstype
}
