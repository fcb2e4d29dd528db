package seccomp

import (
	"fmt"
	"math"
	"slices"
	"sort"

	profiles "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/kernel"
)

// syscallNumber is an entry of the tables in tables.go.
type syscallNumber struct {
	name string
	nr   uint32
}

// architecture is one that a process may make system calls of.
type architecture struct {
	name  specs.Arch
	audit uint32 // AUDIT_ARCH_*, the value in struct seccomp_data
	table []syscallNumber
}

// architectures lists those that a machine can run, its own first.
func architectures(goarch string) []architecture {
	if goarch == "arm64" {
		return []architecture{
			{specs.ArchAARCH64, unix.AUDIT_ARCH_AARCH64, syscallsARM64[:]},
			{specs.ArchARM, unix.AUDIT_ARCH_ARM, syscallsARM[:]},
		}
	}
	return []architecture{
		{specs.ArchX86_64, unix.AUDIT_ARCH_X86_64, syscallsAMD64[:]},
		{specs.ArchX86, unix.AUDIT_ARCH_I386, syscalls386[:]},
	}
}

// number finds a system call in the architecture's table.
func (a architecture) number(name string) (uint32, bool) {
	i := sort.Search(len(a.table), func(i int) bool { return a.table[i].name >= name })
	if i < len(a.table) && a.table[i].name == name {
		return a.table[i].nr, true
	}
	return 0, false
}

// policy is a profile with its conditions about the host decided: what to do for each system call.
type policy struct {
	fallback uint32 // the default action
	enosys   bool   // system calls newer than all in the profile fail with ENOSYS instead
	arches   []table
	rules    int // in all of them
}

// table holds the rules for one architecture.
type table struct {
	architecture
	rules map[uint32][]rule
	named bool   // the profile names any
	last  uint32 // the newest system call that it names
}

// rule is an action for a system call whose arguments meet all conditions.
type rule struct {
	conditions []specs.LinuxSeccompArg
	action     uint32
}

// firstPrivate is where ARM's private system calls begin: numbers there say nothing about age.
const firstPrivate = 0xf0000

// resolve decides the conditions. The result is nil for a profile that confines nothing.
func resolve(p *profiles.Seccomp, h host) (*policy, error) {
	if p.DefaultAction == "" && len(p.Syscalls) == 0 {
		return nil, nil
	}
	if err := refuse(p); err != nil {
		return nil, err
	}
	fallback, err := action(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return nil, fmt.Errorf("seccomp profile: default action: %w", err)
	}
	s := &policy{
		fallback: fallback,
		enosys:   fallback != unix.SECCOMP_RET_ALLOW && fallback != unix.SECCOMP_RET_LOG,
	}
	if err := s.chooseArches(p, h); err != nil {
		return nil, err
	}
	for i, call := range p.Syscalls {
		if call == nil {
			return nil, failure.Invalid("seccomp profile: rule %d is null", i+1)
		}
		if err := s.add(call, h); err != nil {
			return nil, fmt.Errorf("seccomp profile: rule %d: %w", i+1, err)
		}
	}
	return s, nil
}

// refuse names what a program cannot express.
func refuse(p *profiles.Seccomp) error {
	if p.ListenerPath != "" || p.ListenerMetadata != "" {
		return failure.NotImplemented("seccomp profile: listenerPath is not supported")
	}
	for _, f := range p.Flags {
		switch f {
		case "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC":
			// The first is always used; the second is about threads, of which a starting process has one.
		default:
			return failure.NotImplemented("seccomp profile: the flag %s is not supported", f)
		}
	}
	if len(p.Architectures) > 0 && len(p.ArchMap) > 0 {
		return failure.Invalid("both 'architectures' and 'archMap' are specified in the seccomp profile, use either 'architectures' or 'archMap'")
	}
	return nil
}

// chooseArches keeps the machine's own architecture and those others of the machine that the profile lists.
func (s *policy) chooseArches(p *profiles.Seccomp, h host) error {
	machine := architectures(h.goarch)
	listed := p.Architectures
	for _, m := range p.ArchMap {
		if m.Arch == machine[0].name {
			listed = m.SubArches
			break
		}
	}
	for _, name := range listed {
		if !slices.Contains(knownArches(), name) {
			return failure.Invalid("seccomp profile: unknown architecture %q", name)
		}
	}
	for i, a := range machine {
		if i == 0 || slices.Contains(listed, a.name) {
			s.arches = append(s.arches, table{architecture: a, rules: map[uint32][]rule{}})
		}
	}
	return nil
}

func knownArches() []specs.Arch {
	return []specs.Arch{
		specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64, specs.ArchMIPS, specs.ArchMIPS64,
		specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32, specs.ArchPPC, specs.ArchPPC64,
		specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X, specs.ArchPARISC, specs.ArchPARISC64, specs.ArchRISCV64, specs.ArchLOONGARCH64,
		specs.ArchM68K, specs.ArchSH, specs.ArchSHEB,
	}
}

// add puts one entry of the profile into the tables, if it is meant for this host.
func (s *policy) add(call *profiles.Syscall, h host) error {
	names := call.Names
	if call.Name != "" {
		if len(names) > 0 {
			return failure.Invalid("both 'name' and 'names' are specified, use either 'name' or 'names'")
		}
		names = []string{call.Name}
	}
	for _, n := range names {
		if n == "" {
			return failure.Invalid("the name of a system call is empty")
		}
	}
	if !h.meets(call.Includes) || call.Excludes != nil && h.excluded(call.Excludes) {
		return nil
	}
	act, err := action(call.Action, call.ErrnoRet)
	if err != nil {
		return err
	}
	sets, err := conditions(call.Args)
	if err != nil {
		return err
	}
	for i := range s.arches {
		for _, n := range names {
			s.rules += s.arches[i].add(n, act, act == s.fallback, sets)
			if s.rules > maxRules {
				return failure.Invalid("the seccomp profile is too long: its names and conditions make more than %d rules", maxRules)
			}
		}
	}
	return nil
}

// maxRules bounds what a profile takes before its program is known to be too long: names may be repeated, and each has all
// conditions of its entry.
const maxRules = 1 << 16

// add notes the rules for one name, and says how many these are. One that only repeats the default action is left out, so
// that it neither beats nor is beaten by others, as are those behind one that beats them all.
func (t *table) add(name string, act uint32, redundant bool, sets [][]specs.LinuxSeccompArg) int {
	nr, ok := t.number(name)
	if !ok {
		return 0
	}
	if nr < firstPrivate {
		t.named, t.last = true, max(t.last, nr)
	}
	rules := t.rules[nr]
	if redundant || len(rules) > 0 && len(rules[len(rules)-1].conditions) == 0 {
		return 0
	}
	for _, set := range sets {
		rules = append(rules, rule{set, act})
	}
	t.rules[nr] = rules
	return len(sets)
}

// meets reports whether the host fulfils all of a filter's conditions; a missing filter is met.
func (h host) meets(f *profiles.Filter) bool {
	if f == nil {
		return true
	}
	if len(f.Arches) > 0 && !slices.Contains(f.Arches, h.goarch) {
		return false
	}
	for _, c := range f.Caps {
		if !h.hasCap(c) {
			return false
		}
	}
	return f.MinKernel == nil || h.atLeast(f.MinKernel)
}

// excluded reports whether the host fulfils any of them.
func (h host) excluded(f *profiles.Filter) bool {
	return slices.Contains(f.Arches, h.goarch) || slices.ContainsFunc(f.Caps, h.hasCap) || f.MinKernel != nil && h.atLeast(f.MinKernel)
}

// hasCap: a capability that does not exist is one that nobody has.
func (h host) hasCap(name string) bool {
	n, err := kernel.CapNumber(name)
	return err == nil && h.caps>>n&1 == 1
}

func (h host) atLeast(v *profiles.KernelVersion) bool {
	major, minor := uint64(h.major), uint64(h.minor)
	return major > v.Kernel || major == v.Kernel && minor >= v.Major
}

// action is the value that a program returns to the kernel.
func action(a specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	code := uint32(unix.EPERM)
	if errno != nil {
		if *errno > math.MaxUint16 {
			return 0, failure.Invalid("errnoRet %d is no error number", *errno)
		}
		code = uint32(*errno)
	}
	switch a {
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | code, nil
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | code, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActNotify:
		return 0, failure.NotImplemented("the action SCMP_ACT_NOTIFY (a listener decides) is not supported")
	case "":
		return 0, failure.Invalid("the action is missing")
	}
	return 0, failure.Invalid("unknown action %q", a)
}

// conditions splits the conditions of one entry into the sets that each make a rule: all in one, but one for each
// condition if two are about the same argument, of which both could hardly be meant at once.
func conditions(args []specs.LinuxSeccompArg) ([][]specs.LinuxSeccompArg, error) {
	const argsOfSyscall = 6
	var seen [argsOfSyscall]bool
	twice := false
	for _, a := range args {
		if a.Index >= argsOfSyscall {
			return nil, failure.Invalid("a condition is about argument %d: system calls have the arguments 0 to %d", a.Index, argsOfSyscall-1)
		}
		if !slices.Contains([]specs.LinuxSeccompOperator{specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo,
			specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual}, a.Op) {
			return nil, failure.Invalid("unknown comparison %q", a.Op)
		}
		twice = twice || seen[a.Index]
		seen[a.Index] = true
	}
	if !twice {
		return [][]specs.LinuxSeccompArg{args}, nil
	}
	var sets [][]specs.LinuxSeccompArg
	for _, a := range args {
		sets = append(sets, []specs.LinuxSeccompArg{a})
	}
	return sets, nil
}
