package engine

import (
	"fmt"
	"os"
	"regexp"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/health"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/runtime"
)

const (
	minMemory      = 6 << 20
	minNanoCPUs    = 1e7 // the kernel takes no quota of less than a millisecond in each tenth of a second
	defaultShmSize = 64 << 20
	maxHostname    = 64
)

var (
	validName       = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)
	validVolumeName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)
)

// checkName returns a requested container name without its leading slash.
func checkName(name string) (string, error) {
	bare := strings.TrimPrefix(name, "/")
	if len(bare) == 1 && validName.MatchString(bare+"_") {
		return "", failure.Invalid("Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, and two characters at least", name)
	}
	if !validName.MatchString(bare) {
		return "", failure.Invalid("Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	return bare, nil
}

// mostArguments is how much the kernel gives a program for its arguments and environment, bytes: three quarters of 8 MiB,
// where the limit of its stack is no lower.
const mostArguments = 6 << 20

// checkArguments refuses what no program can be started with, before it is kept and copied.
func checkArguments(lists ...[]string) error {
	size := 0
	for _, l := range lists {
		for _, s := range l {
			size += len(s) + 1 + 8 // its end, and a pointer to it
		}
	}
	if size > mostArguments {
		return failure.Invalid("the command and the environment variables take %d MiB, more than the %d MiB that Linux gives a program for them: "+
			"put what is large into a file", (size+1<<20-1)>>20, mostArguments>>20)
	}
	return nil
}

// checkConfig validates what does not depend on the image.
func checkConfig(c *container.Config) error {
	if c.WorkingDir != "" && !strings.HasPrefix(c.WorkingDir, "/") {
		return failure.Invalid("the working directory '%s' is invalid, it needs to be an absolute path", c.WorkingDir)
	}
	if strings.ContainsRune(c.WorkingDir, 0) {
		return failure.Invalid("the working directory %q is invalid: it holds a zero byte", c.WorkingDir)
	}
	if err := checkArguments(c.Env, c.Entrypoint, c.Cmd); err != nil {
		return err
	}
	for _, e := range c.Env {
		if name, _, _ := strings.Cut(e, "="); name == "" {
			return failure.Invalid("invalid environment variable: %s", e)
		}
		if strings.ContainsRune(e, 0) {
			return failure.Invalid("invalid environment variable: %q holds a zero byte", e)
		}
	}
	for _, a := range slices.Concat(c.Entrypoint, c.Cmd) {
		if strings.ContainsRune(a, 0) {
			return failure.Invalid("invalid command: the argument %q holds a zero byte", a)
		}
	}
	if c.StopSignal != "" {
		if _, err := parseSignal(c.StopSignal); err != nil {
			return err
		}
	}
	if len(c.Hostname) > maxHostname || strings.ContainsFunc(c.Hostname, notInHostname) {
		return failure.Invalid("invalid hostname %q: at most %d characters, no blanks or slashes", c.Hostname, maxHostname)
	}
	if len(c.Domainname) > maxHostname || strings.ContainsFunc(c.Domainname, notInHostname) {
		return failure.Invalid("invalid domain name %q: at most %d characters, no blanks or slashes", c.Domainname, maxHostname)
	}
	return health.CheckConfig(c.Healthcheck)
}

// notInHostname says what would make another name, or another line, in files of hosts.
func notInHostname(r rune) bool { return r == '/' || unicode.IsSpace(r) || unicode.IsControl(r) }

// checkHostConfig validates h, with its defaults filled in, and the network
// request. warnings are for the create answer.
func checkHostConfig(h *container.HostConfig, f kernel.Features) (warnings []string, err error) {
	if err := container.ValidateRestartPolicy(h.RestartPolicy); err != nil {
		return nil, failure.Wrap(errdefs.ErrInvalidArgument, err)
	}
	if h.AutoRemove && !h.RestartPolicy.IsNone() {
		return nil, failure.Invalid("can't create 'AutoRemove' container with restart policy %s: leave out one of --rm and --restart", h.RestartPolicy.Name)
	}
	if _, ok := h.Annotations[""]; ok {
		return nil, failure.Invalid("invalid Annotations: the empty string is not permitted as an annotation key")
	}
	if err := health.CheckAction(h); err != nil {
		return nil, err
	}
	if err := checkNamespaces(h); err != nil {
		return nil, err
	}
	if _, err := kernel.EffectiveCaps(h.CapAdd, h.CapDrop, h.Privileged, f.LastCap); err != nil {
		return nil, failure.Wrap(errdefs.ErrInvalidArgument, err)
	}
	if _, err := parseSecurityOpts(h.SecurityOpt, f); err != nil {
		return nil, err
	}
	if err := logs.Validate(h.LogConfig.Type, h.LogConfig.Config); err != nil {
		return nil, err
	}
	if err := checkExtraHosts(h.ExtraHosts); err != nil {
		return nil, err
	}
	for _, word := range slices.Concat(h.DNSSearch, h.DNSOptions) {
		if strings.ContainsFunc(word, unicode.IsControl) { // a line of its own in resolv.conf
			return nil, failure.Invalid("invalid DNS search domain or option %q: it holds a control character", word)
		}
	}
	if err := checkSysctls(h); err != nil {
		return nil, err
	}
	if h.Umask != nil && *h.Umask > 0o777 {
		return nil, failure.Invalid("invalid Umask %d: a umask is at most 511, which is 0777", *h.Umask)
	}
	for _, g := range h.GroupAdd {
		if g == "" {
			return nil, failure.Invalid("invalid GroupAdd: the empty string is not a group")
		}
	}
	if _, err := rlimits(h.Ulimits); err != nil {
		return nil, err
	}
	for _, u := range h.Ulimits { // not in rlimits: what an earlier engine made is started with them
		if u.Soft < -1 || u.Hard < -1 {
			return nil, failure.Invalid("invalid ulimit %s: %d:%d: a limit is a number from 0 on, or -1 for none", u.Name, u.Soft, u.Hard)
		}
	}
	if _, err := hostDevices(h, false); err != nil {
		return nil, err
	}
	if _, err := deviceCgroupRules(h.DeviceCgroupRules); err != nil {
		return nil, err
	}
	for _, p := range slices.Concat(h.MaskedPaths, h.ReadonlyPaths) {
		if !strings.HasPrefix(p, "/") || strings.ContainsRune(p, 0) {
			return nil, failure.Invalid("invalid masked or read-only path %q: it must be absolute, and without a zero byte", p)
		}
	}
	return checkResources(h)
}

func checkNamespaces(h *container.HostConfig) error {
	switch {
	case !h.Isolation.IsDefault():
		return failure.Invalid("invalid isolation '%s' on linux", h.Isolation)
	case !h.IpcMode.Valid():
		return failure.Invalid("invalid IPC mode: %v", h.IpcMode)
	case !h.PidMode.Valid():
		return failure.Invalid("invalid PID mode: %v", h.PidMode)
	case !h.UTSMode.Valid():
		return failure.Invalid("invalid UTS mode: %v", h.UTSMode)
	case !h.UsernsMode.Valid():
		return failure.Invalid("invalid userns mode: %v", h.UsernsMode)
	case !h.CgroupnsMode.Valid():
		return failure.Invalid("invalid cgroup namespace mode: %v", h.CgroupnsMode)
	}
	switch h.Runtime {
	case "", "runc", "io.containerd.runc.v2", runtimeName:
	default:
		return failure.Invalid("unknown or invalid runtime name: %s", h.Runtime)
	}
	return nil
}

// checkHostname refuses names that a container in the host's UTS namespace
// cannot have. The host's own name is what inspect reported of such a one.
func checkHostname(c *container.Config, h *container.HostConfig) error {
	if !h.UTSMode.IsHost() {
		return nil
	}
	if c.Domainname != "" {
		return failure.Invalid("conflicting options: domainname and the UTS mode")
	}
	if c.Hostname == "" {
		return nil
	}
	own, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	if c.Hostname != own {
		return failure.Invalid("conflicting options: hostname and the UTS mode")
	}
	return nil
}

func checkExtraHosts(hosts []string) error {
	for _, e := range hosts {
		name, addr, ok := strings.Cut(e, "=")
		if !ok {
			name, addr, ok = strings.Cut(e, ":")
		}
		if !ok || name == "" || strings.ContainsFunc(name, unicode.IsControl) {
			return failure.Invalid("bad format for add-host: %q", e)
		}
		if addr == "host-gateway" {
			continue
		}
		if !isIP(strings.Trim(addr, "[]")) {
			return failure.Invalid("invalid IP address in add-host: %q", addr)
		}
	}
	return nil
}

// checkSysctls refuses at the create what the start would.
func checkSysctls(h *container.HostConfig) error {
	for k, v := range h.Sysctls {
		if strings.ContainsRune(k+v, 0) {
			return failure.Invalid("invalid sysctl %q: it holds a zero byte", k+"="+v)
		}
		if err := runtime.CheckSysctl(k, h.NetworkMode.IsHost(), h.IpcMode.IsHost()); err != nil {
			return err
		}
	}
	return nil
}

func checkResources(h *container.HostConfig) (warnings []string, err error) {
	r := &h.Resources
	bad := func(format string, args ...any) ([]string, error) { return nil, failure.Invalid(format, args...) }
	switch {
	case r.Memory < 0 || (r.Memory > 0 && r.Memory < minMemory):
		return bad("Minimum memory limit allowed is 6MB")
	case r.Memory > 0 && r.MemorySwap > 0 && r.MemorySwap < r.Memory:
		return bad("Minimum memoryswap limit should be larger than memory limit, see usage")
	case r.MemorySwap < -1:
		return bad("invalid memory+swap limit %d: it must be positive, or -1 for no limit", r.MemorySwap)
	case r.Memory == 0 && r.MemorySwap > 0:
		return bad("You should always set the Memory limit when using Memoryswap limit, see usage")
	case r.MemorySwappiness != nil && (*r.MemorySwappiness < 0 || *r.MemorySwappiness > 100):
		return bad("Invalid value: %v, valid memory swappiness range is 0-100", *r.MemorySwappiness)
	case r.MemoryReservation < 0 || (r.MemoryReservation > 0 && r.MemoryReservation < minMemory):
		return bad("Minimum memory reservation allowed is 6MB")
	case r.Memory > 0 && r.MemoryReservation > 0 && r.Memory < r.MemoryReservation:
		return bad("Minimum memory limit can not be less than memory reservation limit, see usage")
	case h.ShmSize < 0:
		return bad("SHM size can not be less than 0")
	case h.OomScoreAdj < -1000 || h.OomScoreAdj > 1000:
		return bad("Invalid value %d, range for oom score adj is [-1000, 1000]", h.OomScoreAdj)
	case r.NanoCPUs > 0 && r.CPUPeriod > 0:
		return bad("Conflicting options: Nano CPUs and CPU Period cannot both be set.")
	case r.NanoCPUs > 0 && r.CPUQuota > 0:
		return bad("Conflicting options: Nano CPUs and CPU Quota cannot both be set.")
	case r.NanoCPUs < 0 || r.NanoCPUs > 0 && r.NanoCPUs < minNanoCPUs || r.NanoCPUs > int64(goruntime.NumCPU())*1e9:
		return bad("Range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", goruntime.NumCPU(), goruntime.NumCPU())
	case r.CPUShares < 0:
		return bad("invalid CPU shares (%d): value must be a positive integer", r.CPUShares)
	case r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1000000):
		return bad("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case r.CPUQuota > 0 && r.CPUQuota < 1000:
		return bad("CPU cfs quota can not be less than 1ms (i.e. 1000)")
	case r.BlkioWeight > 0 && (r.BlkioWeight < 10 || r.BlkioWeight > 1000):
		return bad("Range of blkio weight is from 10 to 1000")
	case slices.Contains(r.BlkioWeightDevice, nil):
		return bad("invalid BlkioWeightDevice: null is no device")
	case slices.ContainsFunc([][]*blkiodev.ThrottleDevice{r.BlkioDeviceReadBps, r.BlkioDeviceWriteBps, r.BlkioDeviceReadIOps, r.BlkioDeviceWriteIOps},
		func(list []*blkiodev.ThrottleDevice) bool { return slices.Contains(list, nil) }):
		return bad("invalid rates of block devices: null is no device")
	}
	for _, set := range []struct{ value, word string }{{r.CpusetCpus, "cpus"}, {r.CpusetMems, "mems"}} {
		if _, err := parseCPUSet(set.value); err != nil {
			return bad("Invalid value %s for cpuset %s", set.value, set.word)
		}
	}
	if err := checkExist("CPUs", r.CpusetCpus, "/sys/devices/system/cpu/online"); err != nil {
		return nil, err
	}
	if err := checkExist("memory nodes", r.CpusetMems, "/sys/devices/system/node/online"); err != nil {
		return nil, err
	}
	if r.OomKillDisable != nil && *r.OomKillDisable && r.Memory == 0 {
		warnings = append(warnings, "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.")
	}
	return warnings, nil
}

// checkExist compares a set with the one that a file of the kernel lists.
func checkExist(what, set, file string) error {
	if set == "" {
		return nil
	}
	available := readLine(file)
	have, err := parseCPUSet(available)
	if err != nil || len(have) == 0 {
		return nil // nothing to compare with: the kernel decides at start
	}
	want, _ := parseCPUSet(set)
	for n := range want {
		if _, ok := have[n]; !ok {
			return failure.Invalid("Requested %s are not available - requested %s, available: %s", what, set, available)
		}
	}
	return nil
}

// parseCPUSet reads the kernel's list format, as in "0-2,7".
func parseCPUSet(s string) (map[int]struct{}, error) {
	const maxCPU = 8192 // the kernel's own limit
	set := map[int]struct{}{}
	if s == "" {
		return set, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		first, last, ranged := strings.Cut(part, "-")
		lo, err := strconv.ParseUint(first, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", part, err)
		}
		hi := lo
		if ranged {
			if hi, err = strconv.ParseUint(last, 10, 16); err != nil {
				return nil, fmt.Errorf("%q: %w", part, err)
			}
		}
		if hi < lo || hi >= maxCPU {
			return nil, fmt.Errorf("%q is not a range", part)
		}
		for i := lo; i <= hi; i++ {
			set[int(i)] = struct{}{}
		}
	}
	return set, nil
}
