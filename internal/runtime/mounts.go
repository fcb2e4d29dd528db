package runtime

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/launch"
	"github.com/cleatlabs/cleat/internal/mount"
	"github.com/cleatlabs/cleat/internal/rootpath"
	"golang.org/x/sys/unix"
)

// A mountLayout is what is known of a container's mounts before its program is built.
type mountLayout struct {
	replaced  map[string]bool // default mounts that the spec has its own for
	covered   map[string]bool // targets mounted so far: what lies below is made by the program, not in the rootfs
	masked    []maskedPath
	readonly  []string
	cwdExists bool // or was made by the engine
	hostShm   int  // clone of the host's /dev/shm, -1 without

	strictDir, strictPath, rootPath opening
}

type maskedPath struct {
	path  string
	isDir bool
}

// defaultTargets can be replaced by mounts of the spec.
var defaultTargets = []string{"/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup", "/dev/console"}

// arrange fills in the layout. It makes missing mount targets and the working directory in the rootfs where they are
// not below a mount.
func (b *builder) arrange() error {
	l := &b.layout
	l.replaced, l.hostShm = map[string]bool{}, -1
	for _, m := range b.s.Mounts {
		for _, d := range defaultTargets {
			if path.Clean(m.Target) == d {
				l.replaced[d] = true
			}
		}
	}
	l.covered = map[string]bool{"/proc": true, "/dev": true, "/sys": true}
	if b.s.HostIPC && !l.replaced["/dev/shm"] && !b.dry {
		fd, err := unix.OpenTree(unix.AT_FDCWD, "/dev/shm", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		switch {
		case err == nil:
			b.owned = append(b.owned, fd)
			l.hostShm = fd
		case !errors.Is(err, unix.ENOENT):
			return fmt.Errorf("binding the host's /dev/shm: %w", err)
		}
	}
	for _, f := range b.s.MaskedPaths {
		if mode, ok := b.modeOf(f); ok {
			l.masked = append(l.masked, maskedPath{path.Clean(f), mode&unix.S_IFMT == unix.S_IFDIR})
		}
	}
	for _, f := range b.s.ReadonlyPaths {
		if _, ok := b.modeOf(f); ok {
			l.readonly = append(l.readonly, path.Clean(f))
		}
	}
	return nil
}

// modeOf tells a path's file mode: of the same path on the host below /proc and /sys, which the kernel fills alike, in
// the rootfs elsewhere.
func (b *builder) modeOf(f string) (mode uint32, exists bool) {
	f = path.Clean(f)
	if strings.HasPrefix(f, "/proc/") || strings.HasPrefix(f, "/sys/") {
		return b.r.modes.of(f)
	}
	if b.dry {
		return 0, false
	}
	return statIn(b.s.RootFD, f)
}

// kernelModes remembers the modes of paths below /proc and /sys. What is not there is looked for again: a module may
// bring it.
type kernelModes struct {
	mu    sync.Mutex
	known map[string]kernelMode
}

// A kernelMode is of a path that is there, or was not there when it was looked for.
type kernelMode struct {
	mode   uint32
	missed time.Time
}

// missingFor is how long a path that was not there is taken to be still missing. Containers that were started before
// the path came do not have it masked either.
const missingFor = time.Second

func (k *kernelModes) of(f string) (mode uint32, exists bool) {
	now := time.Now()
	k.mu.Lock()
	m, looked := k.known[f]
	k.mu.Unlock()
	if looked && m.missed.IsZero() {
		return m.mode, true
	}
	if looked && now.Sub(m.missed) < missingFor {
		return 0, false
	}
	var st unix.Stat_t
	if unix.Lstat(f, &st) == nil {
		m, exists = kernelMode{mode: st.Mode}, true
	} else {
		m = kernelMode{missed: now}
	}
	const most = 64 // paths are a client's to choose
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.known == nil || len(k.known) >= most {
		k.known = map[string]kernelMode{}
	}
	k.known[f] = m
	return m.mode, exists
}

// covers says whether an absolute path is a target, or lies below one.
func (l *mountLayout) covers(p string) bool {
	for p = path.Clean(p); !l.covered[p]; p = path.Dir(p) {
		if p == "/" || p == "." {
			return false
		}
	}
	return true
}

// canonical resolves the links of a path as far as it exists in the rootfs.
func (b *builder) canonical(p string) (resolved string, exists bool) {
	p = path.Clean("/" + p)
	if b.dry {
		return p, true
	}
	rest := ""
	for dir := p; ; dir = path.Dir(dir) {
		fd, err := rootpath.Open(b.s.RootFD, dir, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err == nil {
			at, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
			unix.Close(fd)
			if err != nil {
				return p, false
			}
			return path.Join(at, rest), rest == ""
		}
		if dir == "/" {
			return p, false
		}
		rest = path.Join(path.Base(dir), rest)
	}
}

// prepareWorkdir makes the working directory in the rootfs unless it lies on a mount, where the program does it.
func (b *builder) prepareWorkdir() error {
	cwd := path.Clean("/" + b.s.Cwd)
	if cwd == "/" || b.dry {
		b.layout.cwdExists = true
		return nil
	}
	resolved, exists := b.canonical(cwd)
	if b.layout.covers(resolved) || b.layout.covers(cwd) {
		return nil
	}
	b.layout.cwdExists = true
	if exists {
		return nil
	}
	fd, err := rootpath.MkdirAll(b.s.RootFD, cwd, 0o755, 0, 0)
	if err != nil {
		return &StartError{Op: "chdir", Path: cwd, Errno: errnoOf(err), Code: codeStartFailed, text: fmt.Sprintf("chdir to cwd (%q) set in config.json failed: %v", cwd, err)}
	}
	return unix.Close(fd)
}

func errnoOf(err error) syscall.Errno {
	var e syscall.Errno
	if errors.As(err, &e) {
		return e
	}
	return syscall.EIO
}

// mounts attaches the spec's mounts in their order.
func (b *builder) mounts() error {
	for i := range b.s.Mounts {
		m := &b.s.Mounts[i]
		err := b.mount(m)
		if errors.Is(err, unix.EMFILE) {
			err = failure.New(errdefs.ErrResourceExhausted, "%w: the engine opens two files for each of a container's %d mounts and may have no more; start it with a higher limit (LimitNOFILE of its unit, ulimit -n)", err, len(b.s.Mounts))
		}
		if err != nil {
			return targetError(m.Target, fmt.Errorf("mount %s: %w", m.Target, err))
		}
	}
	return b.prepareWorkdir()
}

func (b *builder) mount(m *Mount) error {
	target := path.Clean(m.Target)
	o, err := parseMountOptions(m)
	if err != nil {
		return err
	}
	var tree launch.Arg
	if m.Type == "tmpfs" {
		if target == "/proc" {
			return invalid("/proc cannot be a tmpfs: the container needs the kernel's")
		}
		attr := attrNNN&^o.clear | o.set
		if !slices.ContainsFunc(o.data, func(d option) bool { return d.key == "mode" }) {
			o.data = append(o.data, option{"mode", b.modeOfTmpfs(target)})
		}
		tree = b.filesystem("tmpfs", attr, o.data...)
		propagation, recursive, err := propagationOf(m.Propagation)
		if err != nil {
			return err
		}
		if propagation != unix.MS_PRIVATE {
			b.setAttr(tree, target, recursive, 0, 0, propagation)
		}
	} else if tree, err = b.bind(m, target, o); err != nil {
		return err
	}
	resolved, err := b.makeTarget(m, target)
	if err != nil {
		return err
	}
	if rootpath.IsBelow(resolved, "/proc") && !rootpath.IsBelow(target, "/proc") && !procFiles[resolved] {
		return invalid("%s cannot be mounted because it is inside /proc: a symbolic link in the image leads to %s", target, resolved)
	}
	at, op := b.openat2(b.root, target, b.layout.rootPath)
	op.Label(targetMark + target)
	b.attach(tree, at.Arg(), target)
	b.layout.covered[target], b.layout.covered[resolved] = true, true
	return nil
}

// modeOfTmpfs is the mode of a tmpfs for which none was asked: that of the directory it covers, as a directory that the
// image closes to others stays closed, and /tmp's where there is none.
func (b *builder) modeOfTmpfs(target string) string {
	if resolved, _ := b.canonical(target); !b.dry && !b.layout.covers(target) && !b.layout.covers(resolved) {
		if mode, ok := statIn(b.s.RootFD, target); ok {
			return strconv.FormatUint(uint64(mode&0o7777), 8)
		}
	}
	return strconv.FormatUint(tmpMode, 8)
}

// tmpMode is what everyone may write to, as /tmp.
const tmpMode = 0o1777

// clone gives what is to be mounted, as a detached mount.
func (m *Mount) clone() (fd int, err error) {
	switch {
	case m.Tree != 0:
		fd, err = unix.FcntlInt(uintptr(m.Tree), unix.F_DUPFD_CLOEXEC, 0)
	case m.Subpath != "":
		fd, err = mount.BindBelow(m.Source, m.Subpath, !m.NonRecursive)
	default:
		flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
		if !m.NonRecursive {
			flags |= unix.AT_RECURSIVE
		}
		fd, err = unix.OpenTree(unix.AT_FDCWD, m.Source, flags)
	}
	if err == nil && m.UserNS != 0 {
		if err = mount.IDMap(fd, m.UserNS, !m.NonRecursive); err != nil {
			unix.Close(fd)
		}
	}
	return fd, err
}

// bind opens the source now, in the host's mounts, and sets what the mount is to be in the child.
func (b *builder) bind(m *Mount, target string, o mountOptions) (launch.Arg, error) {
	tree, err := b.open(m.Source, func() (int, error) {
		fd, err := m.clone()
		if err != nil {
			return -1, fmt.Errorf("bind source %s: %w", m.Source, err)
		}
		err = checkBind(fd, m, target)
		if err == nil {
			err = checkPropagation(m)
		}
		if err != nil {
			unix.Close(fd)
			return -1, err
		}
		return fd, nil
	})
	if err != nil {
		return tree, err
	}
	propagation, recursive, err := propagationOf(m.Propagation)
	if err != nil {
		return tree, err
	}
	if o.set|o.clear != 0 {
		b.setAttr(tree, target, m.RecursiveReadOnly, o.set, o.clear, 0)
	}
	b.setAttr(tree, target, recursive, 0, 0, propagation)
	return tree, nil
}

// procFiles may be mounted over by binds, as runc allows (lxcfs does it).
var procFiles = map[string]bool{
	"/proc/cpuinfo": true, "/proc/diskstats": true, "/proc/meminfo": true, "/proc/stat": true, "/proc/swaps": true, "/proc/uptime": true,
	"/proc/loadavg": true, "/proc/slabinfo": true, "/proc/net/dev": true, "/proc/sys/kernel/ns_last_pid": true, "/proc/sys/crypto/fips_enabled": true,
}

// checkBind holds what a bind may cover: nothing of /proc but the files above, and /proc itself only with a procfs.
func checkBind(fd int, m *Mount, target string) error {
	if !rootpath.IsBelow(target, "/proc") {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return fmt.Errorf("%s: %w", m.Source, err)
	}
	if target == "/proc" && st.Type == unix.PROC_SUPER_MAGIC || procFiles[target] {
		return nil
	}
	return invalid("%s cannot be mounted because it is inside /proc", target)
}

// makeTarget makes a missing target: in the rootfs now, or by the program where an earlier mount lies over it. It
// returns the target's path without links.
func (b *builder) makeTarget(m *Mount, target string) (resolved string, err error) {
	resolved, exists := b.canonical(target)
	if target == "/proc" || target == "/sys" || target == "/dev" {
		b.p.Call(unix.SYS_MKDIRAT, target, b.root, b.p.Str(target[1:]), launch.Mode(0o755)).Ignore(syscall.EEXIST)
		return resolved, nil
	}
	if rootpath.IsBelow(target, "/proc") || rootpath.IsBelow(target, "/sys") {
		return resolved, nil
	}
	switch {
	case b.layout.covers(target):
		b.makeTargetInProgram(m, target, target)
		return resolved, nil
	case b.layout.covers(resolved): // where the links lead, there may be nothing yet that they can be followed to
		b.makeTargetInProgram(m, resolved, target)
		return resolved, nil
	}
	if exists {
		return resolved, nil
	}
	if err := b.createTarget(m, target); err != nil {
		return "", fmt.Errorf("making the mount target: %w", err)
	}
	resolved, _ = b.canonical(target) // a link whose target was missing
	if b.layout.covers(resolved) {
		b.makeTargetInProgram(m, resolved, target)
	}
	return resolved, nil
}

// createTarget makes a target in the rootfs. That of a tmpfs has the mode that the tmpfs gets without it: the next start
// finds it there.
func (b *builder) createTarget(m *Mount, target string) (err error) {
	fd := -1
	if m.IsFile {
		fd, err = rootpath.CreateFile(b.s.RootFD, target, 0o644, 0, 0)
	} else {
		fd, err = rootpath.MkdirAll(b.s.RootFD, target, 0o755, 0, 0)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if m.Type != "tmpfs" {
		return nil
	}
	return unix.Fchmodat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), tmpMode, 0)
}

// makeTargetInProgram makes the path that a target leads to; errors name the target.
func (b *builder) makeTargetInProgram(m *Mount, at, target string) {
	what := targetMark + target
	if !m.IsFile {
		b.mkdirs(b.root, at, what)
		return
	}
	dir, name := path.Split(at)
	parent := b.mkdirs(b.root, dir, what)
	b.p.Call(unix.SYS_MKNODAT, what, parent, b.p.Str(name), launch.Mode(unix.S_IFREG|0o644), launch.Int(0)).Ignore(syscall.EEXIST)
}

func propagationOf(name string) (flag uint64, recursive bool, err error) {
	switch name {
	case "", "rprivate":
		return unix.MS_PRIVATE, true, nil
	case "private":
		return unix.MS_PRIVATE, false, nil
	case "rshared":
		return unix.MS_SHARED, true, nil
	case "shared":
		return unix.MS_SHARED, false, nil
	case "rslave":
		return unix.MS_SLAVE, true, nil
	case "slave":
		return unix.MS_SLAVE, false, nil
	}
	return 0, false, invalid("invalid propagation mode: %s", name)
}

type mountOptions struct {
	set, clear uint64
	data       []option // of the filesystem
}

var mountFlags = map[string]struct {
	bit uint64
	on  bool
}{
	"ro": {attrRO, true}, "rw": {attrRO, false}, "nosuid": {attrNS, true}, "suid": {attrNS, false}, "nodev": {attrND, true}, "dev": {attrND, false},
	"noexec": {attrNX, true}, "exec": {attrNX, false}, "nodiratime": {unix.MOUNT_ATTR_NODIRATIME, true}, "diratime": {unix.MOUNT_ATTR_NODIRATIME, false},
	"nosymfollow": {unix.MOUNT_ATTR_NOSYMFOLLOW, true}, "symfollow": {unix.MOUNT_ATTR_NOSYMFOLLOW, false},
}

var tmpfsKeys = map[string]bool{"size": true, "mode": true, "uid": true, "gid": true, "nr_inodes": true, "nr_blocks": true, "huge": true, "mpol": true}

// atimes choose when the time of access is written; those that take one back leave the kernel's relatime.
var atimes = map[string]bool{"noatime": true, "strictatime": true, "relatime": true, "atime": true, "norelatime": true, "nostrictatime": true}

// syncs are a filesystem's own; async takes sync back.
var syncs = map[string]bool{"sync": true, "async": true, "dirsync": true}

func parseMountOptions(m *Mount) (mountOptions, error) {
	var o mountOptions
	for _, opt := range m.Options {
		key, value, hasValue := strings.Cut(opt, "=")
		f, isFlag := mountFlags[opt]
		switch {
		case opt == "" || opt == "defaults":
		case isFlag && f.on:
			o.set, o.clear = o.set|f.bit, o.clear&^f.bit
		case isFlag:
			o.set, o.clear = o.set&^f.bit, o.clear|f.bit
		case atimes[opt]:
			atime := map[string]uint64{"noatime": unix.MOUNT_ATTR_NOATIME, "strictatime": unix.MOUNT_ATTR_STRICTATIME}[opt]
			o.clear |= unix.MOUNT_ATTR__ATIME
			o.set = o.set&^unix.MOUNT_ATTR__ATIME | atime
		case m.Type == "tmpfs" && syncs[opt]:
			o.data = append(o.data, option{key: opt})
		case m.Type == "tmpfs" && hasValue && value != "" && tmpfsKeys[key]:
			o.data = append(o.data, option{key, value})
		default:
			return o, invalid("mount option %q is not supported for a %s mount", opt, m.Type)
		}
	}
	if m.ReadOnly {
		o.set, o.clear = o.set|attrRO, o.clear&^attrRO
	}
	return o, nil
}
