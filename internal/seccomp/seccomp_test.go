package seccomp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	profiles "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/kernel"
)

const (
	allow  = unix.SECCOMP_RET_ALLOW
	eperm  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	enosys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	killed = unix.SECCOMP_RET_KILL_PROCESS
)

func amd64Host(caps uint64) host { return host{"amd64", caps, 6, 18} }

func nr(t testing.TB, table []syscallNumber, name string) uint32 {
	t.Helper()
	n, ok := architecture{table: table}.number(name)
	if !ok {
		t.Fatalf("no system call %s", name)
	}
	return n
}

func mustCompile(t testing.TB, p *profiles.Seccomp, h host) []byte {
	t.Helper()
	b, err := compile(p, h)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTablesAreThoseOfTheModule(t *testing.T) {
	fresh := filepath.Join(t.TempDir(), "tables") // a name in .go would be taken for a second source file
	if out, err := exec.Command("go", "run", "gen.go", fresh).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want, err := os.ReadFile(fresh)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("tables.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("tables.go is not what gen.go makes of the present golang.org/x/sys: run `go generate ./internal/seccomp`")
	}
}

func TestTablesAreSorted(t *testing.T) {
	for _, goarch := range []string{"amd64", "arm64"} {
		for _, a := range architectures(goarch) {
			if !slices.IsSortedFunc(a.table, func(x, y syscallNumber) int { return strings.Compare(x.name, y.name) }) {
				t.Errorf("the table of %s is not sorted by name", a.name)
			}
		}
	}
}

// Every name in the default profile must be in a table, or it is silently not allowed.
func TestDefaultProfileNamesAreKnown(t *testing.T) {
	// System calls of other architectures, ones that Linux has not had since 5.15, and pseudo names of libseccomp.
	foreign := strings.Fields(`riscv_flush_icache riscv_hwprobe s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr swapcontext
		sync_file_range2 rtas subpage_prot switch_endian spu_create spu_run multiplexer sysmips`)
	for i, s := range profiles.DefaultProfile().Syscalls {
		for _, name := range s.Names {
			known := slices.Contains(foreign, name)
			for _, goarch := range []string{"amd64", "arm64"} {
				for _, a := range architectures(goarch) {
					_, ok := a.number(name)
					known = known || ok
				}
			}
			if !known {
				t.Errorf("rule %d: no table has %q", i+1, name)
			}
		}
	}
}

func TestDefaultProfile(t *testing.T) {
	x64 := func(name string, args ...uint64) call {
		return sys(t, unix.AUDIT_ARCH_X86_64, syscallsAMD64[:], name, args...)
	}
	x86 := func(name string, args ...uint64) call {
		return sys(t, unix.AUDIT_ARCH_I386, syscalls386[:], name, args...)
	}
	const admin = 1 << unix.CAP_SYS_ADMIN
	for _, tc := range []struct {
		c    call
		caps uint64
		want uint32
	}{
		{x64("read"), 0, allow},
		{x64("openat2"), 0, allow},
		{x64("mount"), 0, eperm},
		{x64("mount"), admin, allow},
		{x64("keyctl"), 0, eperm},
		{x64("kexec_load"), ^uint64(0), eperm},
		{x64("clone3"), 0, enosys},
		{x64("clone3"), admin, allow},
		{x64("clone", uint64(unix.SIGCHLD)), 0, allow},
		{x64("clone", unix.CLONE_NEWUSER|uint64(unix.SIGCHLD)), 0, eperm},
		{x64("clone", unix.CLONE_NEWNET), 0, eperm},
		{x64("clone", unix.CLONE_NEWNET), admin, allow},
		{x64("unshare", unix.CLONE_NEWUSER), 0, eperm},
		{x64("socket", unix.AF_INET), 0, allow},
		{x64("socket", unix.AF_VSOCK), 0, eperm},
		{x64("socket", unix.AF_ALG), 0, eperm},
		{x64("socket", 39), 0, allow},
		{x64("socket", 41), 0, allow},
		{x64("socket", 1<<32|unix.AF_VSOCK), 0, allow}, // greater than 40 as a 64-bit number; the kernel cuts it itself
		{x64("personality", 0), 0, allow},
		{x64("personality", 0x0008), 0, allow},
		{x64("personality", 0xffffffff), 0, allow},
		{x64("personality", 0x40000), 0, eperm}, // ADDR_NO_RANDOMIZE
		{x64("personality", 1<<32), 0, eperm},
		{x64("ptrace"), 0, allow}, // since 4.8
		{x64("chroot"), 1 << unix.CAP_SYS_CHROOT, allow},
		{x64("chroot"), 0, eperm},
		{x64("arch_prctl"), 0, allow},
		{x64("bpf"), 1 << unix.CAP_BPF, allow},
		{x64("bpf"), 0, eperm},
		{x86("socketcall"), 0, allow},
		{x86("stat64"), 0, allow},
		{x86("mount"), 0, eperm},
		{x86("clone3"), 0, enosys},
		{x86("arch_prctl"), 0, allow},
		{call{arch: unix.AUDIT_ARCH_X86_64, nr: 1000}, 0, enosys},
		{call{arch: unix.AUDIT_ARCH_I386, nr: 1000}, 0, enosys},
		{call{arch: unix.AUDIT_ARCH_X86_64, nr: x32Bit}, 0, enosys},
		{call{arch: unix.AUDIT_ARCH_X86_64, nr: x32Bit | 1}, 0, enosys},
		{call{arch: unix.AUDIT_ARCH_X86_64, nr: 0xffffffff}, 0, enosys},
		{call{arch: unix.AUDIT_ARCH_AARCH64, nr: 0}, 0, killed},
		{call{arch: 0, nr: 0}, 0, killed},
	} {
		program := mustCompile(t, profiles.DefaultProfile(), amd64Host(tc.caps))
		if got := verdict(t, program, tc.c); got != tc.want {
			t.Errorf("%v with capabilities %#x: %#x, want %#x", tc.c, tc.caps, got, tc.want)
		}
	}
	old := mustCompile(t, profiles.DefaultProfile(), host{"amd64", 0, 4, 7})
	if got := verdict(t, old, x64("ptrace")); got != eperm {
		t.Errorf("ptrace on Linux 4.7: %#x", got)
	}
}

func TestDefaultProfileOnArm64(t *testing.T) {
	program := mustCompile(t, profiles.DefaultProfile(), host{"arm64", 0, 6, 1})
	for _, tc := range []struct {
		c    call
		want uint32
	}{
		{sys(t, unix.AUDIT_ARCH_AARCH64, syscallsARM64[:], "read"), allow},
		{sys(t, unix.AUDIT_ARCH_AARCH64, syscallsARM64[:], "mount"), eperm},
		{sys(t, unix.AUDIT_ARCH_AARCH64, syscallsARM64[:], "clone", unix.CLONE_NEWUSER), eperm},
		{sys(t, unix.AUDIT_ARCH_AARCH64, syscallsARM64[:], "clone3"), enosys},
		{sys(t, unix.AUDIT_ARCH_ARM, syscallsARM[:], "open"), allow},
		{sys(t, unix.AUDIT_ARCH_ARM, syscallsARM[:], "set_tls"), allow},
		{sys(t, unix.AUDIT_ARCH_ARM, syscallsARM[:], "cacheflush"), allow},
		{sys(t, unix.AUDIT_ARCH_ARM, syscallsARM[:], "usr26"), enosys},
		{sys(t, unix.AUDIT_ARCH_ARM, syscallsARM[:], "mount"), eperm},
		{call{arch: unix.AUDIT_ARCH_ARM, nr: 2000}, enosys},
		{call{arch: unix.AUDIT_ARCH_AARCH64, nr: 2000}, enosys},
		{call{arch: unix.AUDIT_ARCH_X86_64, nr: 0}, killed},
	} {
		if got := verdict(t, program, tc.c); got != tc.want {
			t.Errorf("%v: %#x, want %#x", tc.c, got, tc.want)
		}
	}
}

func sys(t testing.TB, arch uint32, table []syscallNumber, name string, args ...uint64) call {
	t.Helper()
	c := call{arch: arch, nr: nr(t, table, name)}
	copy(c.args[:], args)
	return c
}

// oracle decides a call from the profile itself, rule by rule, the slow and obvious way.
func oracle(p *profiles.Seccomp, h host, c call) uint32 {
	def, _ := action(p.DefaultAction, p.DefaultErrnoRet)
	var a architecture
	for _, candidate := range architectures(h.goarch) {
		if candidate.audit == c.arch {
			a = candidate
		}
	}
	var newest uint32
	named, ruled := false, false
	var conditional []uint32
	for _, s := range p.Syscalls {
		if !h.meets(s.Includes) || s.Excludes != nil && h.excluded(s.Excludes) {
			continue
		}
		act, _ := action(s.Action, s.ErrnoRet)
		for _, name := range s.Names {
			n, ok := a.number(name)
			if !ok {
				continue
			}
			if n < firstPrivate {
				named, newest = true, max(newest, n)
			}
			if n != c.nr || act == def {
				continue
			}
			if len(s.Args) == 0 {
				return act
			}
			ruled = true
			if meetsAll(s.Args, c) {
				conditional = append(conditional, act)
			}
		}
	}
	// An unconditional rule further down would have returned above: conditions count after all of them.
	for _, act := range conditional {
		return act
	}
	if a.audit == unix.AUDIT_ARCH_X86_64 && c.nr >= x32Bit || named && !ruled && c.nr > newest && def != allow && def != unix.SECCOMP_RET_LOG {
		return enosys
	}
	return def
}

func meetsAll(args []specs.LinuxSeccompArg, c call) bool {
	perIndex := map[uint]int{}
	for _, a := range args {
		perIndex[a.Index]++
	}
	any, all := false, true
	for _, a := range args {
		v := c.args[a.Index]
		ok := map[specs.LinuxSeccompOperator]bool{
			specs.OpEqualTo: v == a.Value, specs.OpNotEqual: v != a.Value, specs.OpLessThan: v < a.Value, specs.OpLessEqual: v <= a.Value,
			specs.OpGreaterThan: v > a.Value, specs.OpGreaterEqual: v >= a.Value, specs.OpMaskedEqual: v&a.Value == a.ValueTwo,
		}[a.Op]
		any, all = any || ok, all && ok
	}
	for _, n := range perIndex {
		if n > 1 {
			return any
		}
	}
	return all
}

// compare checks a program against the oracle for every system call number and telling arguments.
func compare(t *testing.T, p *profiles.Seccomp, h host, rng *rand.Rand) {
	t.Helper()
	program := mustCompile(t, p, h)
	interesting := []uint64{0, 1, 40, 1 << 32, 0xffffffff, ^uint64(0)}
	for _, s := range p.Syscalls {
		for _, a := range s.Args {
			interesting = append(interesting, a.Value, a.Value-1, a.Value+1, a.ValueTwo, a.Value^1<<40)
		}
	}
	for _, a := range architectures(h.goarch) {
		numbers := []uint32{0xf0001, 0xf0005, 0x3fffffff, x32Bit, x32Bit + 5, 0xffffffff}
		for n := range uint32(520) {
			numbers = append(numbers, n)
		}
		for _, n := range numbers {
			for range 4 {
				c := call{arch: a.audit, nr: n}
				for i := range c.args {
					c.args[i] = interesting[rng.IntN(len(interesting))]
				}
				if got, want := verdict(t, program, c), oracle(p, h, c); got != want {
					t.Fatalf("%v: %v: %#x, want %#x", h, c, got, want)
				}
			}
		}
	}
}

func TestAgainstOracle(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, goarch := range []string{"amd64", "arm64"} {
		for _, caps := range []uint64{0, kernel.DefaultCaps, ^uint64(0)} {
			compare(t, profiles.DefaultProfile(), host{goarch, caps, 6, 18}, rng)
		}
	}
	for i := range 30 {
		p := randomProfile(rng)
		t.Run(fmt.Sprint("random ", i), func(t *testing.T) {
			compare(t, p, amd64Host(0), rng)
			compare(t, p, host{"arm64", 0, 6, 18}, rng)
		})
	}
}

// randomProfile has every action and comparison, several conditions, conditions twice on an argument, rules that meet
// the same system call, and enough of them that jumps get long.
func randomProfile(rng *rand.Rand) *profiles.Seccomp {
	actions := []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActLog, specs.ActTrace, specs.ActTrap}
	ops := []specs.LinuxSeccompOperator{specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpMaskedEqual}
	values := []uint64{0, 1, 7, 40, 1 << 31, 1 << 32, 1<<32 | 5, 0xffffffff, ^uint64(0), 0xf000000010}
	p := &profiles.Seccomp{ArchMap: []profiles.Architecture{
		{Arch: specs.ArchX86_64, SubArches: []specs.Arch{specs.ArchX86}}, {Arch: specs.ArchAARCH64, SubArches: []specs.Arch{specs.ArchARM}},
	}}
	p.DefaultAction = actions[rng.IntN(len(actions))]
	all := slices.Concat(syscallsAMD64[:], syscallsARM[:])
	for range rng.IntN(120) {
		s := &profiles.Syscall{}
		s.Action = actions[rng.IntN(len(actions))]
		if rng.IntN(2) == 0 {
			e := uint(rng.IntN(100))
			s.ErrnoRet = &e
		}
		for range 1 + rng.IntN(4) {
			s.Names = append(s.Names, all[rng.IntN(len(all))].name)
		}
		for range rng.IntN(4) {
			s.Args = append(s.Args, specs.LinuxSeccompArg{
				Index: uint(rng.IntN(6)), Value: values[rng.IntN(len(values))], ValueTwo: values[rng.IntN(len(values))], Op: ops[rng.IntN(len(ops))],
			})
		}
		p.Syscalls = append(p.Syscalls, s)
	}
	if rng.IntN(2) == 0 { // the rest in long ranges, in which the above are exceptions
		rest := &profiles.Syscall{}
		rest.Action = specs.ActAllow
		for _, c := range all {
			rest.Names = append(rest.Names, c.name)
		}
		p.Syscalls = append(p.Syscalls, rest)
	}
	return p
}

// The kernel compiles a filter anew for each process that loads it, and runs through it for each number: both are a
// part of every start and every exec.
func TestDefaultProfileIsShort(t *testing.T) {
	for _, goarch := range []string{"amd64", "arm64"} {
		h := host{goarch, kernel.DefaultCaps, 6, 18}
		program := mustCompile(t, profiles.DefaultProfile(), h)
		if n := len(program) / unix.SizeofSockFilter; n > 220 {
			t.Errorf("%s: %d instructions", goarch, n)
		}
		steps, numbers := 0, uint32(500)
		for _, a := range architectures(goarch) {
			for n := range numbers {
				steps += stepsOf(t, program, call{arch: a.audit, nr: n})
			}
		}
		if mean := steps / (2 * int(numbers)); mean > 14 {
			t.Errorf("%s: %d steps for a number in the mean", goarch, mean)
		}
	}
}

func TestCompileOfProfilesAsUsersWriteThem(t *testing.T) {
	x64 := func(name string, args ...uint64) call {
		return sys(t, unix.AUDIT_ARCH_X86_64, syscallsAMD64[:], name, args...)
	}
	for _, tc := range []struct {
		name, json string
		c          call
		want       uint32
	}{
		{"old name field", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"mkdir","action":"SCMP_ACT_ERRNO"}]}`, x64("mkdir"), eperm},
		{"allowed by default", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"mkdir","action":"SCMP_ACT_ERRNO"}]}`, call{arch: unix.AUDIT_ARCH_X86_64, nr: 2000}, allow},
		{"x32 behind an allowing default", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"mkdir","action":"SCMP_ACT_ERRNO"}]}`, call{arch: unix.AUDIT_ARCH_X86_64, nr: x32Bit | 83}, enosys},
		{"i386 not listed", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"mkdir","action":"SCMP_ACT_ERRNO"}]}`, call{arch: unix.AUDIT_ARCH_I386, nr: 39}, killed},
		{"architectures", `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86"],"syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ALLOW"}]}`, call{arch: unix.AUDIT_ARCH_I386, nr: 39}, allow},
		{"default errno", `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":5,"syscalls":[{"names":["getrandom"],"action":"SCMP_ACT_ALLOW"}]}`, x64("mkdir"), unix.SECCOMP_RET_ERRNO | 5},
		{"rule errno", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO","errnoRet":0}]}`, x64("mkdir"), unix.SECCOMP_RET_ERRNO},
		{"unknown name", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["nosuchcall","mkdir"],"action":"SCMP_ACT_KILL_PROCESS"}]}`, x64("mkdir"), killed},
		{"nothing named", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[]}`, x64("mkdir"), eperm},
		{"unknown fields", `{"defaultAction":"SCMP_ACT_TRAP","x":1,"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","comment":"c","y":{}}]}`, x64("read"), allow},
		{"included capability that is no capability", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_NONE"]}}]}`, x64("read"), eperm},
		{"minKernel of the future", `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"99.0"}}]}`, x64("read"), eperm},
	} {
		p, err := parse([]byte(tc.json))
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if got := verdict(t, mustCompile(t, p, amd64Host(0)), tc.c); got != tc.want {
			t.Errorf("%s: %#x, want %#x", tc.name, got, tc.want)
		}
	}
	for _, empty := range []string{"{}", `{"syscalls":[]}`, "null"} {
		if b, err := Compile([]byte(empty), 0, 6, 1); b != nil || err != nil {
			t.Errorf("%s: %d bytes, %v; want none", empty, len(b), err)
		}
	}
}

func TestRefusals(t *testing.T) {
	rule := func(s string) string { return `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[` + s + `]}` }
	for _, tc := range []struct {
		json  string
		class error
		words string
	}{
		{``, errdefs.ErrInvalidArgument, "decoding the seccomp profile failed"},
		{`{"defaultAction":`, errdefs.ErrInvalidArgument, "byte 17"},
		{`[]`, errdefs.ErrInvalidArgument, "decoding"},
		{`{"defaultAction":"ALLOW"}`, errdefs.ErrInvalidArgument, `default action: unknown action "ALLOW"`},
		{`{"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`, errdefs.ErrInvalidArgument, "default action: the action is missing"},
		{rule(`{"names":["read"],"action":"SCMP_ACT_FOO"}`), errdefs.ErrInvalidArgument, `rule 1: unknown action "SCMP_ACT_FOO"`},
		{rule(`{"names":["read"],"action":"SCMP_ACT_NOTIFY"}`), errdefs.ErrNotImplemented, "SCMP_ACT_NOTIFY"},
		{rule(`null`), errdefs.ErrInvalidArgument, "rule 1 is null"},
		{rule(`{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}`), errdefs.ErrInvalidArgument, "use either"},
		{rule(`{"names":[""],"action":"SCMP_ACT_ALLOW"}`), errdefs.ErrInvalidArgument, "empty"},
		{rule(`{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":6,"op":"SCMP_CMP_EQ"}]}`), errdefs.ErrInvalidArgument, "argument 6"},
		{rule(`{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"op":"EQ"}]}`), errdefs.ErrInvalidArgument, `unknown comparison "EQ"`},
		{rule(`{"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":70000}`), errdefs.ErrInvalidArgument, "70000"},
		{rule(`{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"x"}}`), errdefs.ErrInvalidArgument, "invalid kernel version"},
		{`{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}`, errdefs.ErrInvalidArgument, "'archMap'"},
		{`{"defaultAction":"SCMP_ACT_ERRNO","architectures":["x86"]}`, errdefs.ErrInvalidArgument, `unknown architecture "x86"`},
		{`{"defaultAction":"SCMP_ACT_ERRNO","listenerPath":"/x"}`, errdefs.ErrNotImplemented, "listenerPath"},
		{`{"defaultAction":"SCMP_ACT_ERRNO","flags":["SECCOMP_FILTER_FLAG_LOG"]}`, errdefs.ErrNotImplemented, "SECCOMP_FILTER_FLAG_LOG"},
	} {
		b, err := Compile([]byte(tc.json), 0, 6, 1)
		if err == nil {
			t.Errorf("%s: accepted (%d bytes)", tc.json, len(b))
			continue
		}
		if !errors.Is(err, tc.class) || !strings.Contains(err.Error(), tc.words) {
			t.Errorf("%s: error %q is not %v with %q", tc.json, err, tc.class, tc.words)
		}
	}
}

func TestTooLongProfile(t *testing.T) {
	p := &profiles.Seccomp{}
	p.DefaultAction = specs.ActErrno
	for i := range 3000 {
		s := &profiles.Syscall{}
		s.Names, s.Action = []string{"read"}, specs.ActAllow
		s.Args = []specs.LinuxSeccompArg{{Value: uint64(i), Op: specs.OpEqualTo}}
		p.Syscalls = append(p.Syscalls, s)
	}
	if _, err := compile(p, amd64Host(0)); !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "too long") {
		t.Errorf("error %v", err)
	}
}

// A short text can ask for more rules than there is memory for: each of its names, which may be repeated, has all of its
// conditions.
func TestRepeatedNames(t *testing.T) {
	of := func(names, conditions int) *profiles.Seccomp {
		s := &profiles.Syscall{}
		s.Names, s.Action = slices.Repeat([]string{"read"}, names), specs.ActAllow
		s.Args = slices.Repeat([]specs.LinuxSeccompArg{{Value: 1, Op: specs.OpEqualTo}}, conditions)
		p := &profiles.Seccomp{Syscalls: []*profiles.Syscall{s}}
		p.DefaultAction = specs.ActErrno
		return p
	}
	if s, err := resolve(of(1000, 1000), amd64Host(0)); !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "too long") {
		t.Errorf("a million rules: %v, %v", s != nil, err)
	}
	s, err := resolve(of(maxRules+1, 0), amd64Host(0))
	if err != nil || s.rules != 1 {
		t.Errorf("one rule said often: %v", err)
	}
}

func TestCache(t *testing.T) {
	var c Cache
	a, err := c.Default(5, 6, 18)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := c.Default(5, 6, 18)
	other, _ := c.Default(1<<unix.CAP_SYS_ADMIN, 6, 18)
	if &a[0] != &b[0] {
		t.Error("compiled twice")
	}
	if bytes.Equal(a, other) {
		t.Error("the same program for other capabilities")
	}
	text, _ := json.Marshal(profiles.DefaultProfile())
	d, err := c.Compile(text, 5, 6, 18)
	if err != nil || !bytes.Equal(d, a) {
		t.Errorf("the default profile as JSON makes another program: %v", err)
	}
	if _, err := c.Compile(nil, 5, 6, 18); err == nil {
		t.Error("an empty text passes for the default profile")
	}
	if _, err := c.Compile([]byte("x"), 5, 6, 18); err == nil {
		t.Error("no error")
	}
	for i := range 3 * maxCached {
		if _, err := c.Compile(fmt.Appendf(nil, `{"defaultAction":"SCMP_ACT_ALLOW","comment":"%d"}`, i), 0, 6, 18); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(c.programs[host{runtime.GOARCH, 0, 6, 18}]); n > maxCached {
		t.Errorf("%d programs are kept", n)
	}
	kept := c.size
	if _, err := c.Compile(fmt.Appendf(nil, `{"defaultAction":"SCMP_ACT_ALLOW","comment":"%*d"}`, longestCached, 1), 0, 6, 18); err != nil || c.size != kept {
		t.Errorf("a long profile is kept: %v", err)
	}
}

func FuzzCompile(f *testing.F) {
	text, err := json.Marshal(profiles.DefaultProfile())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text, uint64(0))
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["clone"],"action":"SCMP_ACT_TRACE","args":[{"index":0,"value":1,"valueTwo":1,"op":"SCMP_CMP_MASKED_EQ"},{"index":0,"op":"SCMP_CMP_NE"}],"excludes":{"arches":["arm"]}}]}`), uint64(7))
	f.Fuzz(func(t *testing.T, profile []byte, caps uint64) {
		b, err := Compile(profile, caps, 6, 18)
		if err != nil || b == nil {
			return
		}
		for _, c := range []call{{arch: unix.AUDIT_ARCH_X86_64, nr: 1}, {arch: unix.AUDIT_ARCH_I386, nr: 5}, {arch: 1}, {arch: unix.AUDIT_ARCH_X86_64, nr: 56, args: [6]uint64{caps}}} {
			verdict(t, b, c)
		}
	})
}

func BenchmarkDefault(b *testing.B) {
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			if _, err := Default(kernel.DefaultCaps, 6, 18); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("cached", func(b *testing.B) {
		var c Cache
		for b.Loop() {
			if _, err := c.Default(kernel.DefaultCaps, 6, 18); err != nil {
				b.Fatal(err)
			}
		}
	})
}
