package mount

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
)

// What x/sys does not have of <linux/quota.h>, <linux/dqblk_xfs.h> and <linux/fs.h>.
const (
	projectQuota = 2
	getQuota     = 0x800007
	setQuota     = 0x800008
	getState     = 'X'<<8 + 5
	enforced     = 1 << 5 // of the flags of fs_quota_stat: project quota is enforced

	quotaBlock    = 1024 // bytes
	limitsAreSet  = 1
	getAttributes = 0x801c581f // FS_IOC_FSGETXATTR
	setAttributes = 0x401c5820 // FS_IOC_FSSETXATTR
	inheritID     = 0x200
)

// quota is struct if_dqblk.
type quota struct {
	hardBlocks, softBlocks, bytes  uint64
	hardInodes, softInodes, inodes uint64
	blockTime, inodeTime           uint64
	valid                          uint32
	_                              uint32
}

// quotaState is struct fs_quota_stat.
type quotaState struct {
	version int8
	flags   uint16
	_       [76]byte
}

// attributes is struct fsxattr.
type attributes struct {
	flags, extentSize, extents, project, cowExtentSize uint32
	_                                                  [8]byte
}

// Project is a project id of a filesystem's quota: the files below a directory that has one count towards its limit.
type Project struct {
	dir *os.File
	id  uint32
}

// OpenProject readies the project id for the filesystem that the directory dir is on. A filesystem that enforces no
// project quota is errdefs.ErrNotImplemented. Close it.
func OpenProject(dir string, id uint32) (*Project, error) {
	f, err := openNoFollow(unix.AT_FDCWD, dir)
	if err != nil {
		return nil, err
	}
	p := &Project{dir: f, id: id}
	var state quotaState
	if err := p.control(getState, 0, unsafe.Pointer(&state)); err != nil || state.flags&enforced == 0 {
		f.Close()
		return nil, failure.NotImplemented("the filesystem of %s enforces no project quota: mount it with the option prjquota "+
			"(XFS; ext4 after tune2fs -O project,quota), or limit the volume otherwise, as with -o type=tmpfs -o device=tmpfs -o o=size=…", dir)
	}
	return p, nil
}

// Close frees what the project holds of the process, not its limit.
func (p *Project) Close() error { return p.dir.Close() }

// ID is the project's number.
func (p *Project) ID() uint32 { return p.id }

func (p *Project) control(command uintptr, id uint32, addr unsafe.Pointer) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, p.dir.Fd(), command<<8|projectQuota, uintptr(id), uintptr(addr), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// Used reports how many bytes the project's files take, and its limit; both are 0 for one that nobody uses.
func (p *Project) Used() (bytes, limit uint64, err error) {
	q, err := p.read()
	return q.bytes, q.hardBlocks * quotaBlock, err
}

// Files reports how many files and directories belong to the project, 0 for one that the filesystem does not know.
func (p *Project) Files() (uint64, error) {
	q, err := p.read()
	return q.inodes, err
}

func (p *Project) read() (q quota, err error) {
	err = p.control(getQuota, p.id, unsafe.Pointer(&q))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return quota{}, nil
	}
	if err != nil {
		return quota{}, fmt.Errorf("quota of project %d: %w", p.id, err)
	}
	return q, nil
}

// Limit sets how many bytes the project's files may take, rounded up to a KiB; 0 is no limit.
func (p *Project) Limit(bytes uint64) error {
	blocks := (bytes + quotaBlock - 1) / quotaBlock
	q := quota{hardBlocks: blocks, softBlocks: blocks, valid: limitsAreSet}
	if err := p.control(setQuota, p.id, unsafe.Pointer(&q)); err != nil {
		return fmt.Errorf("quota of project %d: %w", p.id, err)
	}
	return nil
}

// Adopt gives the directory that the project was opened for, which is to be empty, to the project: so are the files that
// are made in it.
func (p *Project) Adopt() error {
	var a attributes
	if err := ioctlAttributes(p.dir, getAttributes, &a); err != nil {
		return fmt.Errorf("project of %s: %w", p.dir.Name(), err)
	}
	a.project, a.flags = p.id, a.flags|inheritID
	if err := ioctlAttributes(p.dir, setAttributes, &a); err != nil {
		return fmt.Errorf("project of %s: %w", p.dir.Name(), err)
	}
	return nil
}

// ClaimProject gives empty directories to the first project from an id on that nobody uses, with a limit of so many bytes
// for all of them together. Callers that search the same ids take turns.
func ClaimProject(dirs []string, first, count uint32, bytes uint64) (id uint32, err error) {
	return claim(directories(dirs), first, count, bytes)
}

// claimant is what wants a project.
type claimant interface {
	// files counts those of a project.
	files(id uint32) (uint64, error)
	// join makes the claimant's own files the project's.
	join(id uint32) error
	// limit sets the project's.
	limit(id uint32, bytes uint64) error
}

// claim takes a project that has no files: whoever uses one has a directory at least. So the directories come before the
// limit, and what a claim leaves that is killed at any point is found free again when its directories are deleted.
func claim(c claimant, first, count uint32, bytes uint64) (uint32, error) {
	for id := first; id < first+count; id++ {
		n, err := c.files(id)
		if err != nil {
			return 0, err
		}
		if n > 0 {
			continue
		}
		if err := c.join(id); err != nil {
			return 0, err
		}
		return id, c.limit(id, bytes)
	}
	return 0, failure.Unavailable("all %d project ids from %d on are in use", count, first)
}

// directories are empty ones, of one filesystem.
type directories []string

func (d directories) files(id uint32) (n uint64, err error) {
	err = d.with(d[0], id, func(p *Project) (err error) {
		n, err = p.Files()
		return err
	})
	return n, err
}

func (d directories) join(id uint32) (err error) {
	for _, dir := range d {
		err = errors.Join(err, d.with(dir, id, (*Project).Adopt))
	}
	return err
}

func (d directories) limit(id uint32, bytes uint64) error {
	return d.with(d[0], id, func(p *Project) error { return p.Limit(bytes) })
}

func (d directories) with(dir string, id uint32, do func(*Project) error) error {
	p, err := OpenProject(dir, id)
	if err != nil {
		return err
	}
	return errors.Join(do(p), p.Close())
}

// LimitsLayers says whether project quota binds what is written through an overlay, by an error if not: the kernel writes
// there with the rights of who mounted it, and only XFS limits those, too.
func LimitsLayers(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if st.Type != unix.XFS_SUPER_MAGIC {
		return failure.NotImplemented("%s is not on XFS, which alone limits what is written through an overlay", dir)
	}
	p, err := OpenProject(dir, 1)
	if err != nil {
		return err
	}
	return p.Close()
}

// hasProject says whether files that are made in a directory belong to a project: others cannot be renamed into it.
func hasProject(dir *os.File) bool {
	var a attributes
	return ioctlAttributes(dir, getAttributes, &a) == nil && a.flags&inheritID != 0
}

func ioctlAttributes(f *os.File, command uintptr, a *attributes) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), command, uintptr(unsafe.Pointer(a)))
	if errno != 0 {
		return errno
	}
	return nil
}
