package cli

import (
	"errors"
	"net"
	"os"
	"strings"
	"time"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

// containerFlags are the flags that `run` and `create` share.
type containerFlags struct {
	fs *pflag.FlagSet

	attach, env, envFile, labels, labelFile, groupAdd, capAdd, capDrop, securityOpt []string
	volumes, volumesFrom, tmpfs, devices, deviceRules, publish, expose              []string
	dns, dnsOptions, dnsSearch, extraHosts, links, aliases, linkLocal               []string
	logOpts, storageOpts                                                            []string

	entrypoint, hostname, domainname, user, workdir, restart, stopSignal               string
	userns, cgroupns, pid, ipc, uts, cgroupParent, runtime, isolation, volumeDriver    string
	logDriver, macAddress, cidFile, cpusetCPUs, cpusetMems, healthCmd, healthOnFailure string
	ip, ip6                                                                            net.IP
	name, platform, pull                                                               string

	interactive, tty, privileged, readOnly, publishAll, rm, init, oomKillDisable, noHealthcheck bool
	quiet, useAPISocket                                                                         bool
	untrusted                                                                                   *bool

	stopTimeout, oomScoreAdj, healthRetries                                                   int
	cpuCount, cpuPercent, cpuPeriod, cpuQuota, cpuRTPeriod, cpuRTRuntime, cpuShares, pidLimit int64
	swappiness                                                                                int64
	blkioWeight                                                                               uint16
	ioMaxIOps                                                                                 uint64
	healthInterval, healthTimeout, healthStartPeriod, healthStartInterval                     time.Duration

	memory, memoryReservation, shmSize, ioMaxBandwidth, kernelMemory opts.MemBytes
	memorySwap                                                       opts.MemSwapBytes
	cpus                                                             opts.NanoCPUs
	mounts                                                           mountFlag
	network                                                          opts.NetworkOpt
	gpus                                                             opts.GpuOpts
	umask                                                            opts.UmaskOpt
	ulimits                                                          *opts.UlimitOpt
	sysctls, annotations                                             *opts.MapOpts
	weightDevices                                                    opts.WeightdeviceOpt
	deviceReadBps, deviceWriteBps, deviceReadIOps, deviceWriteIOps   opts.ThrottledeviceOpt
}

func newContainerFlags(fs *pflag.FlagSet, verb string) *containerFlags {
	f := &containerFlags{
		fs:             fs,
		ulimits:        opts.NewUlimitOpt(nil),
		sysctls:        opts.NewMapOpts(nil, opts.ValidateSysctl),
		annotations:    opts.NewMapOpts(nil, nil),
		weightDevices:  opts.NewWeightdeviceOpt(opts.ValidateWeightDevice),
		deviceReadBps:  opts.NewThrottledeviceOpt(opts.ValidateThrottleBpsDevice),
		deviceWriteBps: opts.NewThrottledeviceOpt(opts.ValidateThrottleBpsDevice),

		deviceReadIOps:  opts.NewThrottledeviceOpt(opts.ValidateThrottleIOpsDevice),
		deviceWriteIOps: opts.NewThrottledeviceOpt(opts.ValidateThrottleIOpsDevice),
	}
	fs.SetInterspersed(false)
	f.installGeneral(verb)
	f.installNetwork()
	f.installStorage()
	f.installHealth()
	f.installResources()
	f.installNamespaces()
	return f
}

// list adds a flag that may be given several times.
func (f *containerFlags) list(p *[]string, name, short, help string, validate opts.ValidatorFctType) {
	f.fs.VarP(opts.NewListOptsRef(p, validate), name, short, help)
}

func (f *containerFlags) hidden(name string) { _ = f.fs.MarkHidden(name) }

func (f *containerFlags) installGeneral(verb string) {
	fs := f.fs
	fs.StringVar(&f.name, "name", "", "Assign a name to the container")
	fs.StringVar(&f.pull, "pull", pullMissing, `Pull image before `+verb+` ("always", "missing", "never")`)
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "Suppress the pull output")
	fs.BoolVar(&f.useAPISocket, "use-api-socket", false, "Bind mount Docker API socket and required auth")
	fs.StringVar(&f.platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), "Set platform if server is multi-platform capable")
	f.untrusted = newTrustFlag(fs)
	f.list(&f.attach, "attach", "a", "Attach to STDIN, STDOUT or STDERR", validateAttach)
	f.list(&f.env, "env", "e", "Set environment variables", opts.ValidateEnv)
	f.list(&f.envFile, "env-file", "", "Read in a file of environment variables", nil)
	fs.StringVar(&f.entrypoint, "entrypoint", "", "Overwrite the default ENTRYPOINT of the image")
	f.list(&f.groupAdd, "group-add", "", "Add additional groups to join", nil)
	fs.StringVarP(&f.hostname, "hostname", "h", "", "Container host name")
	fs.StringVar(&f.domainname, "domainname", "", "Container NIS domain name")
	fs.BoolVarP(&f.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	f.list(&f.labels, "label", "l", "Set meta data on a container", opts.ValidateLabel)
	f.list(&f.labelFile, "label-file", "", "Read in a line delimited file of labels", nil)
	fs.BoolVar(&f.readOnly, "read-only", false, "Mount the container's root filesystem as read only")
	fs.StringVar(&f.restart, "restart", "no", "Restart policy to apply when a container exits")
	fs.StringVar(&f.stopSignal, "stop-signal", "", "Signal to stop the container")
	fs.IntVar(&f.stopTimeout, "stop-timeout", 0, "Timeout (in seconds) to stop a container")
	fs.Var(f.sysctls, "sysctl", "Sysctl options")
	fs.BoolVarP(&f.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	fs.Var(f.ulimits, "ulimit", "Ulimit options")
	fs.StringVarP(&f.user, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	fs.StringVarP(&f.workdir, "workdir", "w", "", "Working directory inside the container")
	fs.BoolVar(&f.rm, "rm", false, "Automatically remove the container and its associated anonymous volumes when it exits")
	fs.BoolVar(&f.init, "init", false, "Run an init inside the container that forwards signals and reaps processes")
	fs.StringVar(&f.cidFile, "cidfile", "", "Write the container ID to the file")
	fs.Var(f.annotations, "annotation", "Add an annotation to the container (passed through to the OCI runtime)")
}

func (f *containerFlags) installNetwork() {
	fs := f.fs
	f.list(&f.extraHosts, "add-host", "", "Add a custom host-to-IP mapping (host:ip)", opts.ValidateExtraHost)
	f.list(&f.dns, "dns", "", "Set custom DNS servers", opts.ValidateIPAddress)
	f.list(&f.dnsOptions, "dns-opt", "", "Set DNS options", nil)
	f.hidden("dns-opt")
	f.list(&f.dnsOptions, "dns-option", "", "Set DNS options", nil)
	f.list(&f.dnsSearch, "dns-search", "", "Set custom DNS search domains", opts.ValidateDNSSearch)
	f.list(&f.expose, "expose", "", "Expose a port or a range of ports", nil)
	fs.IPVar(&f.ip, "ip", nil, "IPv4 address (e.g., 172.30.100.104)")
	fs.IPVar(&f.ip6, "ip6", nil, "IPv6 address (e.g., 2001:db8::33)")
	f.list(&f.links, "link", "", "Add link to another container", opts.ValidateLink)
	f.list(&f.linkLocal, "link-local-ip", "", "Container IPv4/IPv6 link-local addresses", opts.ValidateIPAddress)
	fs.StringVar(&f.macAddress, "mac-address", "", "Container MAC address (e.g., 92:d0:c6:0a:29:33)")
	f.list(&f.publish, "publish", "p", "Publish a container's port(s) to the host", nil)
	fs.BoolVarP(&f.publishAll, "publish-all", "P", false, "Publish all exposed ports to random ports")
	fs.Var(&f.network, "net", "Connect a container to a network")
	f.hidden("net")
	fs.Var(&f.network, "network", "Connect a container to a network")
	f.list(&f.aliases, "net-alias", "", "Add network-scoped alias for the container", nil)
	f.hidden("net-alias")
	f.list(&f.aliases, "network-alias", "", "Add network-scoped alias for the container", nil)
}

func (f *containerFlags) installStorage() {
	fs := f.fs
	fs.StringVar(&f.logDriver, "log-driver", "", "Logging driver for the container")
	f.list(&f.logOpts, "log-opt", "", "Log driver options", nil)
	f.list(&f.storageOpts, "storage-opt", "", "Storage driver options for the container", nil)
	f.list(&f.tmpfs, "tmpfs", "", "Mount a tmpfs directory", nil)
	f.list(&f.volumes, "volume", "v", "Bind mount a volume", nil)
	fs.StringVar(&f.volumeDriver, "volume-driver", "", "Optional volume driver for the container")
	f.list(&f.volumesFrom, "volumes-from", "", "Mount volumes from the specified container(s)", nil)
	fs.Var(&f.mounts, "mount", "Attach a filesystem mount to the container")
	f.list(&f.devices, "device", "", "Add a host device to the container", nil)
	f.list(&f.deviceRules, "device-cgroup-rule", "", "Add a rule to the cgroup allowed devices list", validDeviceRule)
	fs.Var(&f.gpus, "gpus", "GPU devices to add to the container ('all' to pass all GPUs)")
}

func (f *containerFlags) installHealth() {
	fs := f.fs
	fs.StringVar(&f.healthCmd, "health-cmd", "", "Command to run to check health")
	fs.DurationVar(&f.healthInterval, "health-interval", 0, "Time between running the check (ms|s|m|h) (default 0s)")
	fs.IntVar(&f.healthRetries, "health-retries", 0, "Consecutive failures needed to report unhealthy")
	fs.DurationVar(&f.healthTimeout, "health-timeout", 0, "Maximum time to allow one check to run (ms|s|m|h) (default 0s)")
	fs.DurationVar(&f.healthStartPeriod, "health-start-period", 0, "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)")
	fs.DurationVar(&f.healthStartInterval, "health-start-interval", 0, "Time between running the check during the start period (ms|s|m|h) (default 0s)")
	fs.StringVar(&f.healthOnFailure, "health-on-failure", "", `What to do when the container turns unhealthy ("none", "restart", "stop", "kill")`)
	fs.BoolVar(&f.noHealthcheck, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK")
}

func (f *containerFlags) installResources() {
	fs := f.fs
	fs.Uint16Var(&f.blkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)")
	fs.Var(&f.weightDevices, "blkio-weight-device", "Block IO weight (relative device weight)")
	fs.StringVar(&f.cpusetCPUs, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	fs.StringVar(&f.cpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	fs.Int64Var(&f.cpuCount, "cpu-count", 0, "CPU count (Windows only)")
	fs.Int64Var(&f.cpuPercent, "cpu-percent", 0, "CPU percent (Windows only)")
	fs.Int64Var(&f.cpuPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	fs.Int64Var(&f.cpuQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	fs.Int64Var(&f.cpuRTPeriod, "cpu-rt-period", 0, "Limit CPU real-time period in microseconds")
	fs.Int64Var(&f.cpuRTRuntime, "cpu-rt-runtime", 0, "Limit CPU real-time runtime in microseconds")
	fs.Int64VarP(&f.cpuShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	fs.Var(&f.cpus, "cpus", "Number of CPUs")
	fs.Var(&f.deviceReadBps, "device-read-bps", "Limit read rate (bytes per second) from a device")
	fs.Var(&f.deviceReadIOps, "device-read-iops", "Limit read rate (IO per second) from a device")
	fs.Var(&f.deviceWriteBps, "device-write-bps", "Limit write rate (bytes per second) to a device")
	fs.Var(&f.deviceWriteIOps, "device-write-iops", "Limit write rate (IO per second) to a device")
	fs.Var(&f.ioMaxBandwidth, "io-maxbandwidth", "Maximum IO bandwidth limit for the system drive (Windows only)")
	fs.Uint64Var(&f.ioMaxIOps, "io-maxiops", 0, "Maximum IOps limit for the system drive (Windows only)")
	fs.Var(&f.kernelMemory, "kernel-memory", "Kernel memory limit")
	f.hidden("kernel-memory")
	fs.VarP(&f.memory, "memory", "m", "Memory limit")
	fs.Var(&f.memoryReservation, "memory-reservation", "Memory soft limit")
	fs.Var(&f.memorySwap, "memory-swap", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap")
	fs.Int64Var(&f.swappiness, "memory-swappiness", -1, "Tune container memory swappiness (0 to 100)")
	fs.BoolVar(&f.oomKillDisable, "oom-kill-disable", false, "Disable OOM Killer")
	fs.IntVar(&f.oomScoreAdj, "oom-score-adj", 0, "Tune host's OOM preferences (-1000 to 1000)")
	fs.Int64Var(&f.pidLimit, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
}

func (f *containerFlags) installNamespaces() {
	fs := f.fs
	f.list(&f.capAdd, "cap-add", "", "Add Linux capabilities", nil)
	f.list(&f.capDrop, "cap-drop", "", "Drop Linux capabilities", nil)
	fs.BoolVar(&f.privileged, "privileged", false, "Give extended privileges to this container")
	f.list(&f.securityOpt, "security-opt", "", "Security Options", nil)
	fs.StringVar(&f.userns, "userns", "", "User namespace to use")
	fs.StringVar(&f.cgroupns, "cgroupns", "", `Cgroup namespace to use (host|private)
'host':    Run the container in the Docker host's cgroup namespace
'private': Run the container in its own private cgroup namespace
'':        Use the cgroup namespace as configured by the
           default-cgroupns-mode option on the daemon (default)`)
	fs.StringVar(&f.cgroupParent, "cgroup-parent", "", "Optional parent cgroup for the container")
	fs.StringVar(&f.ipc, "ipc", "", "IPC mode to use")
	fs.StringVar(&f.isolation, "isolation", "", "Container isolation technology")
	fs.StringVar(&f.pid, "pid", "", "PID namespace to use")
	fs.Var(&f.shmSize, "shm-size", "Size of /dev/shm")
	fs.StringVar(&f.uts, "uts", "", "UTS namespace to use")
	fs.StringVar(&f.runtime, "runtime", "", "Runtime to use for this container")
	fs.Var(&f.umask, "umask", "Set umask for the container")
}

// refuse names a flag that has no effect here, so that no one relies on it.
func (f *containerFlags) refuse() error {
	if !*f.untrusted {
		return errNoTrust
	}
	for _, name := range []string{"cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops"} {
		if f.fs.Changed(name) {
			return errors.New("--" + name + " is for Windows containers and has no effect on Linux")
		}
	}
	if f.isolation != "" && f.isolation != "default" {
		return errors.New("--isolation is for Windows containers: only 'default' is possible on Linux")
	}
	for _, refused := range [][2]string{
		{"kernel-memory", "is not supported: the kernel has dropped that limit, use --memory"},
		{"use-api-socket", "is not supported yet: mount the engine's socket with -v /run/cleat.sock:/var/run/docker.sock"},
	} {
		if f.fs.Changed(refused[0]) {
			return errors.New("--" + refused[0] + " " + refused[1])
		}
	}
	return nil
}

func validateAttach(val string) (string, error) {
	switch s := strings.ToLower(val); s {
	case "stdin", "stdout", "stderr":
		return s, nil
	}
	return val, errors.New("valid streams are STDIN, STDOUT and STDERR")
}

// healthOnFailureKey is the annotation that tells the engine of --health-on-failure,
// for which Docker's API has no field.
const healthOnFailureKey = "cleat.health-on-failure"

func (f *containerFlags) allAnnotations() map[string]string {
	all := f.annotations.GetAll()
	if f.fs.Changed("health-on-failure") {
		all[healthOnFailureKey] = f.healthOnFailure
	}
	return all
}

// healthConfig is what the --health-* flags ask for, nil if none is given.
func (f *containerFlags) healthConfig() (*container.HealthConfig, error) {
	given := f.healthCmd != "" || f.healthInterval != 0 || f.healthTimeout != 0 || f.healthStartPeriod != 0 || f.healthRetries != 0 || f.healthStartInterval != 0
	if f.noHealthcheck {
		if given {
			return nil, errors.New("--no-healthcheck conflicts with --health-* options")
		}
		return &container.HealthConfig{Test: []string{"NONE"}}, nil
	}
	if !given {
		return nil, nil
	}
	for _, d := range []struct {
		name string
		v    int64
	}{
		{"interval", int64(f.healthInterval)}, {"timeout", int64(f.healthTimeout)}, {"retries", int64(f.healthRetries)},
		{"start-period", int64(f.healthStartPeriod)}, {"start-interval", int64(f.healthStartInterval)},
	} {
		if d.v < 0 {
			return nil, errors.New("--health-" + d.name + " cannot be negative")
		}
	}
	var test []string
	if f.healthCmd != "" {
		test = []string{"CMD-SHELL", f.healthCmd}
	}
	return &container.HealthConfig{
		Test: test, Interval: f.healthInterval, Timeout: f.healthTimeout, Retries: f.healthRetries,
		StartPeriod: f.healthStartPeriod, StartInterval: f.healthStartInterval,
	}, nil
}
