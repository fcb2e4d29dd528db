package mount

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
)

// Options are the parts that mount(2) takes of a list of options as mount(8) writes it.
type Options struct {
	Flags       uintptr // MS_* without propagation
	Propagation uintptr // MS_SHARED and the like with MS_REC, 0 without
	Data        string  // what the filesystem itself is to read
}

type flagOption struct {
	bit uintptr
	off bool
}

// flagOptions are the options that are flags; every other is the filesystem's.
func flagOptions() map[string]flagOption {
	return map[string]flagOption{
		"": {}, "defaults": {},
		"ro": {bit: unix.MS_RDONLY}, "rw": {bit: unix.MS_RDONLY, off: true},
		"nosuid": {bit: unix.MS_NOSUID}, "suid": {bit: unix.MS_NOSUID, off: true},
		"nodev": {bit: unix.MS_NODEV}, "dev": {bit: unix.MS_NODEV, off: true},
		"noexec": {bit: unix.MS_NOEXEC}, "exec": {bit: unix.MS_NOEXEC, off: true},
		"sync": {bit: unix.MS_SYNCHRONOUS}, "async": {bit: unix.MS_SYNCHRONOUS, off: true},
		"dirsync": {bit: unix.MS_DIRSYNC}, "mand": {bit: unix.MS_MANDLOCK}, "nomand": {bit: unix.MS_MANDLOCK, off: true},
		"noatime": {bit: unix.MS_NOATIME}, "atime": {bit: unix.MS_NOATIME, off: true},
		"nodiratime": {bit: unix.MS_NODIRATIME}, "diratime": {bit: unix.MS_NODIRATIME, off: true},
		"relatime": {bit: unix.MS_RELATIME}, "norelatime": {bit: unix.MS_RELATIME, off: true},
		"strictatime": {bit: unix.MS_STRICTATIME}, "nostrictatime": {bit: unix.MS_STRICTATIME, off: true},
		"bind": {bit: unix.MS_BIND}, "rbind": {bit: unix.MS_BIND | unix.MS_REC},
	}
}

func propagationOptions() map[string]uintptr {
	return map[string]uintptr{
		"private": unix.MS_PRIVATE, "rprivate": unix.MS_PRIVATE | unix.MS_REC, "shared": unix.MS_SHARED, "rshared": unix.MS_SHARED | unix.MS_REC,
		"slave": unix.MS_SLAVE, "rslave": unix.MS_SLAVE | unix.MS_REC,
		"unbindable": unix.MS_UNBINDABLE, "runbindable": unix.MS_UNBINDABLE | unix.MS_REC,
	}
}

// SplitOptions returns the items of a list of options. A comma that belongs to a password is written twice, for
// mount.cifs and for the kernel, and stays so.
func SplitOptions(list string) []string {
	items := strings.Split(list, ",")
	joined := items[:0]
	for i := 0; i < len(items); i++ {
		item := items[i]
		for isPassword(item) && i+2 < len(items) && items[i+1] == "" {
			item += ",," + items[i+2]
			i += 2
		}
		joined = append(joined, item)
	}
	return joined
}

func isPassword(item string) bool {
	key, _, given := strings.Cut(item, "=")
	return given && strings.HasPrefix(strings.ToLower(key), "pass")
}

// HidePasswords returns a list of options as it may be told.
func HidePasswords(list string) string {
	items := SplitOptions(list)
	for i, item := range items {
		if isPassword(item) {
			key, _, _ := strings.Cut(item, "=")
			items[i] = key + "=********"
		}
	}
	return strings.Join(items, ",")
}

// ParseOptions splits a comma list. remount, which makes no mount, is refused; so is a zero byte, which would end the
// list early.
func ParseOptions(list string) (Options, error) {
	var o Options
	if strings.ContainsRune(list, 0) {
		return o, failure.Invalid("mount options %q hold a zero byte", list)
	}
	flags, propagations := flagOptions(), propagationOptions()
	var data []string
	for _, opt := range SplitOptions(list) {
		flag, isFlag := flags[opt]
		propagation, isPropagation := propagations[opt]
		switch {
		case opt == "remount":
			return o, failure.Invalid("the mount option remount makes no sense for a new mount")
		case isPropagation:
			o.Propagation = propagation
		case isFlag && flag.off:
			o.Flags &^= flag.bit
		case isFlag:
			o.Flags |= flag.bit
		default:
			data = append(data, opt)
		}
	}
	o.Data = strings.Join(data, ",")
	return o, nil
}

// At mounts a filesystem, or with the flag bind another directory, on the directory target. Nothing stays mounted if it
// fails. A network filesystem whose server does not answer makes it wait as long as the kernel does.
func At(device, target, fstype string, o Options) error {
	err := ignoringInterrupts(func() error { return unix.Mount(device, target, fstype, o.Flags, o.Data) })
	if err != nil {
		return err
	}
	// A bind takes its other flags only when it is there.
	if rest := o.Flags &^ (unix.MS_BIND | unix.MS_REC); o.Flags&unix.MS_BIND != 0 && rest != 0 {
		err = unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|rest, "")
	}
	if err == nil && o.Propagation != 0 {
		err = unix.Mount("", target, "", o.Propagation, "")
	}
	if err != nil {
		if uerr := unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); uerr != nil {
			err = fmt.Errorf("%w (and it stays mounted: %w)", err, uerr)
		}
	}
	return err
}
