package runtime

import (
	"fmt"
	"path"
	"strconv"
	"strings"
	"syscall"

	"github.com/cleatlabs/cleat/internal/launch"
	"golang.org/x/sys/unix"
)

const (
	attrRO  = unix.MOUNT_ATTR_RDONLY
	attrNS  = unix.MOUNT_ATTR_NOSUID
	attrND  = unix.MOUNT_ATTR_NODEV
	attrNX  = unix.MOUNT_ATTR_NOEXEC
	attrNNN = attrNS | attrND | attrNX

	defaultShmSize = 64 << 20
)

// rootfs makes the container's mounts and enters them. Every target is opened inside the root (below /proc, /sys and
// /dev without following any link) and every mount is attached by descriptor: no link in the image, and no process that
// changes a volume meanwhile, can redirect one.
func (b *builder) rootfs() error {
	b.root = b.fd(b.s.RootFD, "root")
	b.enterRoot()

	b.procfs()
	b.oomScoreAdj()
	if err := b.sysctls(); err != nil {
		return err
	}
	if !b.layout.replaced["/proc"] {
		b.attachOwn(b.proc, "proc")
	}
	if err := b.devfs(); err != nil {
		return err
	}
	b.sysfs()
	if err := b.mounts(); err != nil {
		return err
	}
	b.devices()
	b.console()
	b.maskPaths()
	b.readonlyPaths()

	b.settleInRoot()
	return nil
}

// finishRootfs makes the root read-only, as the last change to it.
func (b *builder) finishRootfs() {
	if b.s.ReadonlyRootfs {
		b.setAttr(b.root, "read-only root", false, attrRO, 0, 0)
	}
}

// attachOwn attaches one of the mounts that every container has on a directory of the root, which is made if the image
// lacks it and must not be a link.
func (b *builder) attachOwn(mount launch.Arg, dir string) {
	if !b.hasDir(dir) {
		b.p.Call(unix.SYS_MKDIRAT, dir, b.root, b.p.Str(dir), launch.Mode(0o755)).Ignore(syscall.EEXIST)
	}
	target, _ := b.openat2(b.root, dir, b.layout.strictDir)
	b.attach(mount, target.Arg(), dir)
}

// hasDir reports whether the root has the directory: looking for it here, beside other work, is a step less for the
// child.
func (b *builder) hasDir(dir string) bool {
	var st unix.Stat_t
	return !b.dry && unix.Fstatat(b.s.RootFD, dir, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// attachIn attaches on a directory that the program has just made in a filesystem of its own making, which nobody else
// can reach.
func (b *builder) attachIn(fs, mount launch.Arg, dir, what string) {
	b.p.Call(unix.SYS_MOVE_MOUNT, what, mount, b.p.Str(""), fs, b.p.Str(dir), launch.Named(unix.MOVE_MOUNT_F_EMPTY_PATH, "F_EMPTY_PATH"))
}

// attachBelow is attachOwn below another of our mounts, where the directory exists.
func (b *builder) attachBelow(parent, mount launch.Arg, dir, what string) {
	target, _ := b.openat2(parent, dir, b.layout.strictDir)
	b.attach(mount, target.Arg(), what)
}

func (b *builder) procfs() {
	b.layout.strictDir = b.strict(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, "O_PATH|O_DIRECTORY|O_CLOEXEC")
	b.layout.strictPath = b.strict(unix.O_PATH|unix.O_CLOEXEC, "O_PATH|O_CLOEXEC")
	b.layout.rootPath = b.inRoot(unix.O_PATH|unix.O_CLOEXEC, "O_PATH|O_CLOEXEC")
	b.proc = b.filesystem("proc", attrNNN)
}

// defaultDevices are in every container.
var defaultDevices = []struct {
	name         string
	major, minor uint32
}{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}}

var devLinks = [][2]string{
	{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"},
	{"/proc/kcore", "core"},
}

// devDirs are what filesystems are mounted on in there.
var devDirs = []string{"pts", "mqueue", "shm"}

const devAttr = attrNS | unix.MOUNT_ATTR_STRICTATIME

var devOptions = []option{{"mode", "755"}, {"size", "65536k"}}

// devfs makes /dev. Where the spec mounts something else there, our own null device still lies in a tmpfs outside the
// root.
func (b *builder) devfs() error {
	p := b.p
	if !b.takeDev() {
		b.dev = b.filesystem("tmpfs", devAttr, devOptions...)
	}
	whole := !b.layout.replaced["/dev"]
	if whole {
		b.attachOwn(b.dev, "dev")
	} else {
		b.hideAway("null device", b.dev)
	}
	for _, d := range defaultDevices {
		if b.spareDev || !whole && d.name != "null" {
			continue
		}
		if err := b.defaultDevice(d.name, d.major, d.minor); err != nil {
			return err
		}
	}
	null, _ := b.openat2(b.dev, "null", b.layout.strictPath)
	b.null = null.Arg()
	if !whole {
		return nil
	}
	for _, l := range devLinks {
		if b.spareDev {
			break
		}
		p.Call(unix.SYS_SYMLINKAT, l[1], p.Str(l[0]), b.dev, p.Str(l[1]))
	}
	b.devMount("pts", func() launch.Arg {
		if b.tty == nil {
			return b.filesystem("devpts", attrNS|attrNX, devptsOptions...)
		}
		b.devpts = b.fd(b.tty.devpts, "devpts")
		return b.devpts
	})
	b.devMount("mqueue", func() launch.Arg { return b.filesystem("mqueue", attrNNN) })
	if !b.s.NoShm {
		b.devMount("shm", b.shm)
	}
	return nil
}

// shm is the memory that goes with the IPC namespace: its own, the host's or another container's.
func (b *builder) shm() launch.Arg {
	switch {
	case b.s.JoinIPC != nil:
		return b.joinedShm
	case b.s.HostIPC && b.layout.hostShm >= 0:
		return b.fd(b.layout.hostShm, "host's /dev/shm")
	}
	size := b.s.ShmSize
	if size == 0 {
		size = defaultShmSize
	}
	return b.filesystem("tmpfs", attrNNN, option{"mode", "1777"}, option{"size", strconv.FormatInt(size, 10)})
}

// defaultDevice makes a node, or, where the engine itself may not make nodes, binds the host's.
func (b *builder) defaultDevice(name string, major, minor uint32) error {
	p := b.p
	if b.r.held&(1<<unix.CAP_MKNOD) != 0 {
		p.Call(unix.SYS_MKNODAT, name, b.dev, p.Str(name), launch.Mode(unix.S_IFCHR|0o666), launch.Int(unix.Mkdev(major, minor)))
		return nil
	}
	tree, err := b.openTree("/dev/" + name)
	if err != nil {
		return err
	}
	p.Call(unix.SYS_MKNODAT, name, b.dev, p.Str(name), launch.Mode(unix.S_IFREG), launch.Int(0))
	target, _ := b.openat2(b.dev, name, b.layout.strictPath)
	b.attach(tree, target.Arg(), "dev/"+name)
	return nil
}

// openTree clones a mount of the host's, for the child to attach.
func (b *builder) openTree(file string) (launch.Arg, error) {
	return b.open(file, func() (int, error) {
		fd, err := unix.OpenTree(unix.AT_FDCWD, file, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
		if err != nil {
			return -1, fmt.Errorf("bind source %s: %w", file, err)
		}
		return fd, nil
	})
}

func (b *builder) devMount(name string, mount func() launch.Arg) {
	if b.layout.replaced["/dev/"+name] {
		return
	}
	if !b.spareDev {
		b.p.Call(unix.SYS_MKDIRAT, name, b.dev, b.p.Str(name), launch.Mode(0o755))
	}
	b.attachIn(b.dev, mount(), name, "dev/"+name)
}

// devices makes the nodes that were asked for, below our own /dev or elsewhere in the root. What is mounted over /dev
// brings its own.
func (b *builder) devices() {
	for _, d := range b.s.Devices {
		full := path.Clean(d.Path)
		root, rel := b.root, strings.TrimPrefix(full, "/")
		if inDev, ok := strings.CutPrefix(full, "/dev/"); ok {
			if b.layout.replaced["/dev"] {
				continue
			}
			root, rel = b.dev, inDev
		}
		b.device(root, rel, full, d)
	}
}

func (b *builder) device(root launch.Arg, rel, full string, d Device) {
	p := b.p
	dir, name := path.Split(rel)
	parent := root
	if dir != "" {
		parent = b.mkdirs(root, dir, full)
	}
	kind := uint32(unix.S_IFCHR)
	switch d.Type {
	case 'b':
		kind = unix.S_IFBLK
	case 'p':
		kind = unix.S_IFIFO
	}
	dev := launch.Int(unix.Mkdev(uint32(d.Major), uint32(d.Minor)))
	p.Call(unix.SYS_MKNODAT, full, parent, p.Str(name), launch.Mode(kind|d.Mode&0o7777), dev).Ignore(syscall.EEXIST)
	if d.UID != 0 || d.GID != 0 {
		p.Call(unix.SYS_FCHOWNAT, full, parent, p.Str(name), launch.Int(d.UID), launch.Int(d.GID), launch.Named(unix.AT_SYMLINK_NOFOLLOW, "AT_SYMLINK_NOFOLLOW"))
	}
}

// mkdirs makes the directories of dir one by one below root, which path resolution never leaves, and returns the last.
func (pl *plan) mkdirs(root launch.Arg, dir, what string) launch.Arg {
	how := pl.inRoot(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, "O_PATH|O_DIRECTORY|O_CLOEXEC")
	at, prefix := root, ""
	for _, name := range strings.Split(strings.Trim(dir, "/"), "/") {
		if name == "" {
			continue
		}
		pl.p.Call(unix.SYS_MKDIRAT, what, at, pl.p.Str(name), launch.Mode(0o755)).Ignore(syscall.EEXIST)
		prefix += name
		fd, op := pl.openat2(root, prefix, how)
		op.Label(what)
		at, prefix = fd.Arg(), prefix+"/"
	}
	return at
}

// console puts the terminal at /dev/console, by descriptor: from the instance of devpts that only we have touched.
func (b *builder) console() {
	if b.tty == nil || b.layout.replaced["/dev"] || b.layout.replaced["/dev/console"] || b.layout.replaced["/dev/pts"] {
		return
	}
	p := b.p
	p.Call(unix.SYS_MKNODAT, "console", b.dev, p.Str("console"), launch.Mode(unix.S_IFREG), launch.Int(0)).Ignore(syscall.EEXIST)
	tree := p.Slot()
	p.Call(unix.SYS_OPEN_TREE, "console", b.devpts, p.Str(b.tty.name), argClone).To(tree)
	target, _ := b.openat2(b.dev, "console", b.layout.strictPath)
	b.attach(tree.Arg(), target.Arg(), "dev/console")
}

func (b *builder) sysfs() {
	if b.layout.replaced["/sys"] {
		return
	}
	attr := uint64(attrNNN)
	if !b.s.Privileged {
		attr |= attrRO
	}
	b.sys = b.filesystem("sysfs", attr)
	b.attachOwn(b.sys, "sys")
	if !b.layout.replaced["/sys/fs/cgroup"] {
		b.cgroupMount(attr)
	}
}

// cgroupMount shows the container its own control groups: on v2 the unified tree as its namespace sees it, on v1 one
// bind of its own group for each hierarchy, with a link for each controller of hierarchies that have several.
func (b *builder) cgroupMount(attr uint64) {
	const dir = "fs/cgroup"
	if b.r.hierarchies == nil || b.making == nil {
		b.attachBelow(b.sys, b.filesystem("cgroup2", attr), dir, "sys/fs/cgroup")
		return
	}
	p := b.p
	base := b.filesystem("tmpfs", attr&^attrRO, option{"mode", "755"})
	for _, h := range b.r.hierarchies {
		p.Call(unix.SYS_MKDIRAT, h.name, base, p.Str(h.name), launch.Mode(0o755))
		for _, l := range h.links {
			p.Call(unix.SYS_SYMLINKAT, l, p.Str(h.name), base, p.Str(l))
		}
	}
	b.attachBelow(b.sys, base, dir, "sys/fs/cgroup")
	for i, h := range b.r.hierarchies {
		for _, tree := range b.groupTrees[i] {
			b.attachIn(base, tree, h.name, "sys/fs/cgroup/"+h.name)
		}
	}
	b.setAttr(base, "sys/fs/cgroup", false, attr, 0, 0)
}

// maskPaths hides files behind our own null device and directories behind one empty read-only filesystem. A path that
// does not exist in this container's namespaces leaves its slot at −1, which the calls after it answer with EBADF.
func (b *builder) maskPaths() {
	attached := false // a mount can be cloned once it has a place
	for _, m := range b.layout.masked {
		p := b.p
		target, op := b.openTarget(m.path)
		op.Ignore(syscall.ENOENT)
		if m.isDir && !attached {
			attached = true
			b.emptyDir = b.filesystem("tmpfs", attrNNN|attrRO, option{"nr_blocks", "1"}, option{"nr_inodes", "1"}, option{"mode", "555"})
			b.attach(b.emptyDir, target.Arg(), "mask "+m.path)
			continue
		}
		source := b.null
		if m.isDir {
			source = b.emptyDir
		}
		tree := p.Slot()
		p.Call(unix.SYS_OPEN_TREE, "mask", source, p.Str(""), argCloneEmpty).To(tree)
		b.attach(tree.Arg(), target.Arg(), "mask "+m.path).Ignore(syscall.EBADF)
	}
}

func (b *builder) readonlyPaths() {
	for _, f := range b.layout.readonly {
		p := b.p
		target, op := b.openTarget(f)
		op.Ignore(syscall.ENOENT)
		tree := p.Slot()
		p.Call(unix.SYS_OPEN_TREE, f, target.Arg(), p.Str(""), argCloneEmptyRec).To(tree).Ignore(syscall.EBADF)
		b.setAttr(tree.Arg(), "read-only "+f, true, attrRO, 0, 0).Ignore(syscall.EBADF)
		b.attach(tree.Arg(), target.Arg(), "read-only "+f).Ignore(syscall.EBADF)
	}
}

// openTarget opens a path of the container for a mount: strictly below our own /proc and /sys, inside the root elsewhere.
func (b *builder) openTarget(f string) (launch.Slot, launch.Op) {
	if rel, ok := strings.CutPrefix(f, "/proc/"); ok && !b.layout.replaced["/proc"] {
		return b.openat2(b.proc, rel, b.layout.strictPath)
	}
	if rel, ok := strings.CutPrefix(f, "/sys/"); ok && !b.layout.replaced["/sys"] {
		return b.openat2(b.sys, rel, b.layout.strictPath)
	}
	return b.openat2(b.root, f, b.layout.rootPath)
}
