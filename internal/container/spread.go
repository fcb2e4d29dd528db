package container

import (
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/record"
)

// Spread tells ext4 that the directories in dir have nothing to do with each
// other (chattr +T), so that each gets its place in another block group. Else all
// lie in the group of dir, where ext4 steps over every inode that was freed in the
// last minutes, one by one, each time it makes a file: after a few hundred
// containers that is the longest part of a start. Where the filesystem has no such
// flag, nothing is lost.
func Spread(dir string) {
	const topDir = 0x20000 // FS_TOPDIR_FL
	f, err := os.Open(dir)
	if err != nil {
		return // the caller meets the same
	}
	defer f.Close()
	fd := int(f.Fd())
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err != nil || flags&topDir != 0 {
		return
	}
	if err := unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags|topDir); err != nil {
		slog.Debug("the directories of containers lie close together", "dir", dir, "error", err)
	}
}

// Prepare readies directories, which are to become containers', for Add: see
// record.Prepare.
func Prepare(dirs []string) error { return record.Prepare(configs(dirs), 0o600) }

// Settle readies directories in root that Recycle has emptied: see record.Settle.
func Settle(root string, dirs []string) error { return record.Settle(root, configs(dirs)) }

func configs(dirs []string) []string {
	paths := make([]string, len(dirs))
	for i, dir := range dirs {
		paths[i] = filepath.Join(dir, configFile)
	}
	return paths
}
