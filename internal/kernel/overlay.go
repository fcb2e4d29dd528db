package kernel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
)

// CheckOverlay reports whether the directory dir can hold the upper and work directories of overlay mounts. It makes a
// small overlay in a temporary directory below dir, deletes and replaces what its lower layer holds, and removes
// everything again. The error (errdefs.ErrFailedPrecondition when the filesystem is the reason) names dir's filesystem
// and what to choose instead.
func CheckOverlay(dir string) error {
	tmp, err := os.MkdirTemp(dir, ".overlay-check-")
	if err != nil {
		return fmt.Errorf("checking whether %s can hold containers: %w", dir, err)
	}
	defer removeTree(tmp)
	if err := tryOverlay(tmp); err != nil {
		return failure.New(errdefs.ErrFailedPrecondition, "%s lies on %s, which cannot hold the writable layers of containers (%w): choose a data root on ext4, xfs (made with ftype=1) or btrfs; in a container, a volume",
			dir, filesystemName(dir), err)
	}
	return nil
}

// removeTree removes what tryOverlay made. The kernel makes the directory inside the work directory with mode 0; root may
// enter it all the same.
func removeTree(dir string) {
	if err := os.RemoveAll(dir); err != nil {
		// What is left is a few empty directories with a name that says where they come from.
		return
	}
}

func tryOverlay(tmp string) error {
	sub := func(name string) string { return filepath.Join(tmp, name) }
	for _, d := range []string{"lower", "lower/dir", "upper", "work"} {
		if err := os.Mkdir(sub(d), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(sub("lower/file"), nil, 0o600); err != nil {
		return err
	}
	if err := entryTypes(sub("lower")); err != nil {
		return err
	}
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fsopen overlay: %w", err)
	}
	defer unix.Close(fs)
	for _, o := range [][2]string{{"lowerdir", sub("lower")}, {"upperdir", sub("upper")}, {"workdir", sub("work")}} {
		fd, err := unix.Open(o[1], unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd) // old kernels look the paths up at the end
		// By number: fsconfig takes strings of 255 bytes at most, and overlay treats some characters in them specially.
		if err := unix.FsconfigSetString(fs, o[0], fmt.Sprintf("/proc/self/fd/%d", fd)); err != nil {
			return err
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		if log := ContextLog(fs); log != "" {
			return fmt.Errorf("%w: %s", err, log)
		}
		return err
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("fsmount: %w", err)
	}
	defer unix.Close(mnt)
	return exerciseOverlay(mnt)
}

// exerciseOverlay deletes a file (needs whiteouts: RENAME_WHITEOUT and character devices) and replaces a directory
// (needs the trusted.overlay extended attributes) of the lower layer.
func exerciseOverlay(mnt int) error {
	if err := unix.Unlinkat(mnt, "file", 0); err != nil {
		return fmt.Errorf("deleting a file of an image: %w", err)
	}
	if err := unix.Unlinkat(mnt, "dir", unix.AT_REMOVEDIR); err != nil {
		return fmt.Errorf("deleting a directory of an image: %w", err)
	}
	if err := unix.Mkdirat(mnt, "dir", 0o755); err != nil {
		return fmt.Errorf("replacing a directory of an image: %w", err)
	}
	return nil
}

// entryTypes makes sure that the filesystem tells the type of directory entries, without which overlay shows its
// whiteouts (xfs made with ftype=0).
func entryTypes(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	buf := make([]byte, 4096)
	n, err := unix.Getdents(fd, buf)
	if err != nil {
		return fmt.Errorf("reading a directory: %w", err)
	}
	const lengthAt, typeAt = 16, 18 // in struct linux_dirent64
	for b := buf[:n]; len(b) > typeAt; {
		if b[typeAt] == unix.DT_UNKNOWN {
			return errors.New("it does not store the type of directory entries (d_type)")
		}
		length := int(b[lengthAt]) | int(b[lengthAt+1])<<8
		b = b[length:]
	}
	return nil
}

// ContextLog reads the messages that the kernel left in the filesystem context fs (of fsopen) about what was wrong with
// its options; "" when there are none.
func ContextLog(fs int) string {
	var messages []string
	buf := make([]byte, 1024)
	for {
		n, err := unix.Read(fs, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n <= 0 {
			return strings.Join(messages, "; ")
		}
		// Each is a letter for its severity, a space, the filesystem's name and the text.
		if _, text, ok := strings.Cut(strings.TrimSpace(string(buf[:n])), " "); ok {
			messages = append(messages, strings.TrimPrefix(text, "overlay: "))
		}
	}
}

// filesystemName names the filesystem that path lies on, for people.
func filesystemName(path string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return "an unknown filesystem"
	}
	names := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs",
		unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.NFS_SUPER_MAGIC: "nfs", unix.FUSE_SUPER_MAGIC: "fuse", unix.MSDOS_SUPER_MAGIC: "vfat",
		unix.SQUASHFS_MAGIC: "squashfs", unix.RAMFS_MAGIC: "ramfs", unix.ECRYPTFS_SUPER_MAGIC: "ecryptfs",
		unix.F2FS_SUPER_MAGIC: "f2fs", unix.EROFS_SUPER_MAGIC_V1: "erofs", unix.V9FS_MAGIC: "9p", unix.SMB2_SUPER_MAGIC: "smb",
		unix.CIFS_SUPER_MAGIC: "cifs", 0x2fc12fc1: "zfs", unix.CEPH_SUPER_MAGIC: "ceph", 0x2011bab0: "exfat", unix.ISOFS_SUPER_MAGIC: "iso9660",
		unix.PROC_SUPER_MAGIC: "proc", unix.SYSFS_MAGIC: "sysfs", unix.DEVPTS_SUPER_MAGIC: "devpts",
	}
	if name, ok := names[int64(st.Type)&0xffffffff]; ok {
		return "the filesystem " + name
	}
	return fmt.Sprintf("a filesystem of type %#x", uint32(st.Type))
}
