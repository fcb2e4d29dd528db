package runtime

import (
	"encoding/binary"
	"fmt"
	"strings"
	"syscall"

	"github.com/cleatlabs/cleat/internal/launch"
	"github.com/cleatlabs/cleat/internal/rootpath"
	"golang.org/x/sys/unix"
)

// An identity is what a process may do. Its two halves come before and after the last clone of a program, so that a
// process that appears in a container's PID namespace has already given up what it must not have there.
type identity struct {
	user    rootpath.User
	umask   *uint32
	caps    uint64
	lastCap int
	nnp     bool
	seccomp []byte
	rlimits []Rlimit
	keyring string
	usual   *unix.SchedAttr // see Config.Usual
}

const (
	defaultUmask    = 0o022
	capSysAdmin     = 1 << unix.CAP_SYS_ADMIN
	joinKeyring     = 1 // KEYCTL_JOIN_SESSION_KEYRING
	setModeFilter   = 1 // SECCOMP_SET_MODE_FILTER
	ambientClearAll = 4 // PR_CAP_AMBIENT_CLEAR_ALL
)

// settle is the first half: scheduling, keyring, limits, umask, groups, users, capabilities, no_new_privs. CAP_SYS_ADMIN
// stays where the second half needs it to load the filter.
func (id *identity) settle(pl *plan) error {
	p := pl.p
	id.scheduling(pl)
	p.Call(unix.SYS_KEYCTL, "session keyring", launch.Named(joinKeyring, "JOIN_SESSION_KEYRING"), p.Str(id.keyring)).Ignore(syscall.ENOSYS, syscall.EPERM)
	for _, l := range id.rlimits {
		n, err := rlimitNumber(l.Type)
		if err != nil {
			return err
		}
		p.Call(unix.SYS_PRLIMIT64, strings.ToLower(l.Type), launch.Int(0), launch.Int(n), p.Struct(fmt.Sprintf("{%d, %d}", l.Soft, l.Hard), l.Soft, l.Hard), launch.Int(0))
	}
	umask := uint32(defaultUmask)
	if id.umask != nil {
		umask = *id.umask
	}
	p.Call(unix.SYS_UMASK, "", launch.Mode(umask))

	for c := 0; c <= id.lastCap; c++ {
		if id.caps>>c&1 == 0 {
			p.Call(unix.SYS_PRCTL, "bounding set", launch.Named(unix.PR_CAPBSET_DROP, "PR_CAPBSET_DROP"), launch.Int(c), launch.Int(0), launch.Int(0), launch.Int(0))
		}
	}
	keep := id.user.UID != 0
	if keep {
		p.Call(unix.SYS_PRCTL, "keep capabilities", launch.Named(unix.PR_SET_KEEPCAPS, "PR_SET_KEEPCAPS"), launch.Int(1), launch.Int(0), launch.Int(0), launch.Int(0))
	}
	groups := make([]byte, 0, 4*len(id.user.Groups))
	for _, g := range id.user.Groups {
		groups = binary.LittleEndian.AppendUint32(groups, uint32(g))
	}
	p.Call(unix.SYS_SETGROUPS, "", launch.Int(len(id.user.Groups)), p.Bytes(groups, fmt.Sprint(id.user.Groups)))
	gid, uid := launch.Int(id.user.GID), launch.Int(id.user.UID)
	p.Call(unix.SYS_SETRESGID, "", gid, gid, gid)
	p.Call(unix.SYS_SETRESUID, "", uid, uid, uid)
	if keep {
		p.Call(unix.SYS_PRCTL, "keep capabilities", launch.Named(unix.PR_SET_KEEPCAPS, "PR_SET_KEEPCAPS"), launch.Int(0), launch.Int(0), launch.Int(0), launch.Int(0))
	}
	p.Call(unix.SYS_PRCTL, "ambient set", launch.Named(unix.PR_CAP_AMBIENT, "PR_CAP_AMBIENT"), launch.Named(ambientClearAll, "CLEAR_ALL"), launch.Int(0), launch.Int(0), launch.Int(0))
	id.capset(pl, id.caps|id.toLoadFilter())
	if id.nnp {
		p.Call(unix.SYS_PRCTL, "no_new_privs", launch.Named(unix.PR_SET_NO_NEW_PRIVS, "PR_SET_NO_NEW_PRIVS"), launch.Int(1), launch.Int(0), launch.Int(0), launch.Int(0))
	}
	return nil
}

// scheduling takes back what the process has from the engine.
func (id *identity) scheduling(pl *plan) {
	if u := id.usual; u != nil {
		attr := pl.p.Struct(fmt.Sprintf("{SCHED_NORMAL, nice %d, usual slice}", u.Nice), uint64(u.Size)|uint64(u.Policy)<<32, u.Flags, uint64(uint32(u.Nice)), u.Runtime, 0, 0, 0)
		// An engine that was reniced since, and may not take that back, still starts containers.
		pl.p.Call(unix.SYS_SCHED_SETATTR, "", launch.Int(0), attr, launch.Int(0)).Ignore(syscall.EPERM)
	}
}

// toLoadFilter is the capability that loading a seccomp filter takes without no_new_privs.
func (id *identity) toLoadFilter() uint64 {
	if len(id.seccomp) > 0 && !id.nnp {
		return capSysAdmin
	}
	return 0
}

// confine is the second half: the filter, the last capability, the signal mask.
func (id *identity) confine(pl *plan) {
	p := pl.p
	none := p.Struct("{}", 0)
	p.Call(unix.SYS_RT_SIGPROCMASK, "unblock all", launch.Named(2, "SIG_SETMASK"), none, launch.Int(0), launch.Int(8))
	id.filter(pl)
}

func (id *identity) filter(pl *plan) {
	if len(id.seccomp) == 0 {
		return
	}
	p := pl.p
	n := len(id.seccomp) / unix.SizeofSockFilter
	code := p.Bytes(id.seccomp, "filter")
	prog := p.Struct(fmt.Sprintf("{%d instructions}", n), uint64(n), code.Address())
	p.Call(unix.SYS_SECCOMP, "filter", launch.Named(setModeFilter, "SET_MODE_FILTER"), launch.Named(unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, "SPEC_ALLOW"), prog)
	if id.toLoadFilter()&^id.caps != 0 {
		id.capset(pl, id.caps)
	}
}

// capset sets the permitted and effective sets; the inheritable set is always empty.
func (id *identity) capset(pl *plan, caps uint64) {
	lo, hi := caps&0xffffffff, caps>>32
	pl.p.Call(unix.SYS_CAPSET, "", pl.p.Struct("{VERSION_3}", unix.LINUX_CAPABILITY_VERSION_3),
		pl.p.Struct(fmt.Sprintf("{%#x}", caps), lo|lo<<32, hi<<32, hi))
}

var rlimitNumbers = map[string]int{
	"CPU": unix.RLIMIT_CPU, "FSIZE": unix.RLIMIT_FSIZE, "DATA": unix.RLIMIT_DATA, "STACK": unix.RLIMIT_STACK, "CORE": unix.RLIMIT_CORE,
	"RSS": unix.RLIMIT_RSS, "NPROC": unix.RLIMIT_NPROC, "NOFILE": unix.RLIMIT_NOFILE, "MEMLOCK": unix.RLIMIT_MEMLOCK, "AS": unix.RLIMIT_AS,
	"LOCKS": unix.RLIMIT_LOCKS, "SIGPENDING": unix.RLIMIT_SIGPENDING, "MSGQUEUE": unix.RLIMIT_MSGQUEUE, "NICE": unix.RLIMIT_NICE,
	"RTPRIO": unix.RLIMIT_RTPRIO, "RTTIME": unix.RLIMIT_RTTIME,
}

func rlimitNumber(name string) (int, error) {
	n, ok := rlimitNumbers[strings.TrimPrefix(strings.ToUpper(name), "RLIMIT_")]
	if !ok {
		return 0, invalid("invalid ulimit type: %s", name)
	}
	return n, nil
}
