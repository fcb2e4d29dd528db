package runtime

import (
	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/keeper"
	"github.com/cleatlabs/cleat/internal/rootpath"
)

// Values of Spec.NetNS besides a file descriptor.
const (
	// NewNetwork makes an empty network namespace whose loopback is up.
	NewNetwork = -1
	// HostNetwork stays in the host's network namespace.
	HostNetwork = -2
	// LaterNetwork is a namespace that is given to ReadyStart.Start.
	LaterNetwork = -3
)

// A Mount is one entry of a container's mount table besides those that every container has.
type Mount struct {
	// Target is the absolute path inside the container. It is resolved inside the rootfs; a missing one is created,
	// as a directory or, with IsFile, as an empty file.
	Target string
	// Type is "bind" or "tmpfs".
	Type string
	// Source is the host path of a bind; it must exist.
	Source string
	// Subpath is what is bound instead of Source: a path inside it, which no link there leads out of.
	Subpath string
	// Tree, if not 0, is a detached mount that is attached in place of a clone of Source. It is borrowed, but of no use
	// afterwards.
	Tree int
	// UserNS, if not 0, is a user namespace whose mapping of ids the mount gets. It is borrowed.
	UserNS int
	// ReadOnly makes the mount read-only; of the mounts below it only with RecursiveReadOnly.
	ReadOnly, RecursiveReadOnly bool
	// NonRecursive binds Source without what is mounted below it.
	NonRecursive bool
	// Propagation is "", private, rprivate, shared, rshared, slave or rslave; "" is rprivate.
	Propagation string
	// Options are mount options: for tmpfs size=, mode=, uid=, gid=, nr_inodes=, nr_blocks= and the flags; for binds
	// the flags only (ro, rw, nosuid, suid, nodev, dev, noexec, exec, noatime, relatime, strictatime, nodiratime,
	// nosymfollow).
	Options []string
	// IsFile says that a bind's source is not a directory.
	IsFile bool
	// Engine marks a file that the engine provides (resolv.conf, hosts, hostname).
	Engine bool
}

// A Device is a node to make in the container's /dev.
type Device struct {
	Path         string // absolute, below /dev or elsewhere
	Type         rune   // 'c', 'b', 'u' (as 'c') or 'p'
	Major, Minor int64
	Mode         uint32 // permission bits
	UID, GID     uint32
}

// An Rlimit is a resource limit of the process; Type is as in setrlimit(2), with or without the prefix, in any case
// ("nofile", "RLIMIT_NOFILE").
type Rlimit struct {
	Type       string
	Soft, Hard uint64
}

// Spec is a container to start. All names are looked up and all decisions made by the caller.
type Spec struct {
	ID string // at most 64 of [a-zA-Z0-9_.-]; names the keeper's directory
	// RootFD is the detached mount of the rootfs. It is borrowed: the caller closes it after Start.
	RootFD         int
	ReadonlyRootfs bool

	Args, Env []string
	Cwd       string // absolute; created when missing; "" is /
	User      rootpath.User
	Umask     *uint32 // nil is 0022

	TTY                  bool
	Rows, Cols           uint16
	OpenStdin, StdinOnce bool

	Hostname, Domainname string  // not set with HostUTS
	Mounts               []Mount // parents before children
	ShmSize              int64   // bytes; 0 is 64 MiB

	// NetNS is a network namespace's file descriptor, NewNetwork, HostNetwork or LaterNetwork.
	NetNS                                   int
	HostPID, HostIPC, HostUTS, HostCgroupNS bool
	// JoinPID and JoinIPC are processes whose namespace the container is to be in, nil for one of its own. With the IPC
	// namespace comes the /dev/shm.
	JoinPID, JoinIPC *Process
	NoShm            bool // no /dev/shm is mounted

	// Held are descriptors that are to outlive this engine, keeper.MaxHeld at most: the keeper holds them until the
	// process has ended, and TakeHeld gives them to the engine that adopts it. They are borrowed.
	Held []int

	CgroupPath string // below each hierarchy, "/cleat/<id>"; made by Start
	Resources  cgroup.Resources
	Group      *GroupInMaking // of CgroupPath, if it was begun already; Start takes it over, whatever comes of the start
	Devices    []Device

	Capabilities    uint64
	NoNewPrivs      bool
	Seccomp         []byte // BPF; nil is unconfined
	Privileged      bool   // /sys and the cgroup mount are writable; nothing is masked unless listed below
	MaskedPaths     []string
	ReadonlyPaths   []string
	Sysctls         map[string]string
	Rlimits         []Rlimit
	OOMScoreAdj     int
	Init            bool   // PID 1 is a reaper that forwards signals
	AppArmorProfile string // of the kernel; "" and "unconfined" are none

	// Meanwhile, if there is one, is called once while the process is being set up: what it does costs the start
	// nothing. The command is not executed before it has returned, and not at all if the engine dies before; its error is
	// the start's. The record names the keeper but not the process, which only the keeper knows by then (keeper.Complete).
	// The start may still fail.
	Meanwhile func(keeper.Record) error
}

// ExecSpec is a process to start in a running container.
type ExecSpec struct {
	ID          string // of the exec
	ContainerID string
	Target      *Process

	Args, Env []string
	Cwd       string // must exist; "" is /
	User      rootpath.User
	Umask     *uint32

	TTY        bool
	Rows, Cols uint16
	OpenStdin  bool

	Capabilities uint64
	NoNewPrivs   bool
	Seccomp      []byte
	CgroupPath   string
	Rlimits      []Rlimit
	OOMScoreAdj  int
	// AppArmorProfile is as the Spec's.
	AppArmorProfile string
	// About is what a later engine's Noted tells of the process, as JSON. With nil the process ends with its engine.
	About any
}

// DefaultMaskedPaths are what containers do not see, as in Docker.
func DefaultMaskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
		"/sys/firmware",
	}
}

// DefaultReadonlyPaths are what containers cannot write to, as in Docker.
func DefaultReadonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}
