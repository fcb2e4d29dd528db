package assemble

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/internal/cdi"
	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/internal/systemd"
)

// Config is what the flags say.
type Config struct {
	DataRoot, ExecRoot  string
	Hosts               []string
	Pidfile             string
	Group               string
	Bridge, BIP         string
	CgroupParent        string
	Mirrors             []string
	Insecure            []string
	DNS, DNSOpts        []string
	DNSSearch           []string
	PublishIP           string
	UserlandProxy       bool // serve published ports where the kernel cannot redirect them
	DefaultPublish      string
	AddressPools        []string
	NetworkOpts         []string
	HostGateway         string
	DefaultNetwork      defaultNetwork
	MTU                 int
	LogLevel, LogFormat string
	Debug               bool
	FirewallIntegrate   bool
	PluginDir           string
	CDIDirs             []string
	Validate            bool
	ShutdownTimeout     int
	MetricsAddr         string

	// Warnings are about flags that were accepted without being needed.
	Warnings []string
	// Version and Commit are of this build; BuildTime, in RFC 3339, is the commit's, or "".
	Version, Commit, BuildTime string

	// File is the configuration file; fromFile are the flags that it has set, and the keys it has them under.
	File     string
	fromFile map[string]string
	// builder is what the file says of builds.
	builder *builderSettings

	Labels                           []string // the engine's own, for info
	StopTimeout                      int      // seconds, where nobody says
	MaxDownloads, MaxUploads         int
	MaxAttempts                      int // of a download
	HTTPProxy, HTTPSProxy, NoProxy   string
	TLS, TLSVerify                   bool
	TLSCA, TLSCert, TLSKey           string
	LogDriver, IPCMode, CgroupNSMode string
	ShmSize, SeccompProfile          string
	LogOpts, Ulimits                 []string
	Init, NoNewPrivileges            bool

	// onlyStops is for an engine that does nothing but stop what runs (Shutdown).
	onlyStops bool
	// slice is systemd's, which CgroupParent lies in; "" if in none.
	slice string

	given    *pflag.FlagSet
	defaults engine.ContainerDefaults
}

// Defaults of the flags that other programs know about.
const (
	DefaultDataRoot = "/var/lib/cleat"
	DefaultExecRoot = "/run/cleat"
	DefaultSocket   = "/run/cleat.sock"
	DockerSocket    = "/var/run/docker.sock"
	defaultParent   = "/cleat"
)

// BindFlags defines dockerd's flags on fs.
func (c *Config) BindFlags(fs *pflag.FlagSet) {
	c.given = fs
	fs.StringVar(&c.DataRoot, "data-root", DefaultDataRoot, "Root directory of persistent state")
	fs.StringVar(&c.ExecRoot, "exec-root", DefaultExecRoot, "Root directory of state that a reboot may lose (tmpfs)")
	fs.StringArrayVarP(&c.Hosts, "host", "H", nil, "Socket(s) to listen on, as unix:///path (default unix:///run/cleat.sock and, unless another engine serves it, unix:///var/run/docker.sock)")
	fs.StringVarP(&c.Pidfile, "pidfile", "p", "", "Path of the PID file (default <exec-root>/cleatd.pid)")
	fs.StringVarP(&c.Group, "group", "G", "", `Group of the sockets (default "docker" where it exists, else "cleat")`)
	fs.StringVarP(&c.Bridge, "bridge", "b", "", `Bridge of the default network, made when missing (default "cleat0")`)
	fs.StringVar(&c.BIP, "bip", "", "Address of the bridge with the prefix length of its subnet (default: a free one)")
	fs.StringVar(&c.CgroupParent, "cgroup-parent", defaultParent, "Cgroup below which containers lie: a path, or a slice of systemd")
	fs.StringArrayVar(&c.Mirrors, "registry-mirror", nil, "Preferred mirror(s) of Docker Hub, as http[s]://host[:port]")
	fs.StringArrayVar(&c.Insecure, "insecure-registry", nil, "Registries (host[:port] or CIDR) that may be reached without TLS")
	fs.StringArrayVar(&c.DNS, "dns", nil, "DNS server(s) of containers")
	fs.StringArrayVar(&c.DNSOpts, "dns-opt", nil, "DNS option(s) of containers")
	fs.StringArrayVar(&c.DNSSearch, "dns-search", nil, "DNS search domain(s) of containers")
	fs.StringVar(&c.HostGateway, "host-gateway-ip", "", "Address that host-gateway in --add-host stands for (default: the bridge's)")
	fs.IntVar(&c.MTU, "mtu", 0, "MTU of the containers' network (default: the kernel's)")
	fs.StringVarP(&c.LogLevel, "log-level", "l", "info", "Log level: debug, info, warn, error or fatal")
	fs.StringVar(&c.LogFormat, "log-format", "text", "Log format: text or json")
	fs.BoolVarP(&c.Debug, "debug", "D", false, "Log at level debug")
	fs.StringVar(&c.PluginDir, "plugin-dir", "", "The only directory where volume plugins are looked for (default Docker's: /run/docker/plugins, /etc/docker/plugins, /usr/lib/docker/plugins)")
	fs.StringArrayVar(&c.CDIDirs, "cdi-spec-dir", nil, "Directories with descriptions of vendors' devices (default /etc/cdi and /var/run/cdi)")
	fs.BoolVar(&c.FirewallIntegrate, "firewall-integrate", false, "Let containers' traffic through other firewalls' forward chains by one marked rule each")
	fs.BoolVar(&c.Validate, "validate", false, "Check the flags and exit")
	fs.IntVar(&c.ShutdownTimeout, "shutdown-timeout", 15, "Seconds that calls in progress may take at shutdown")
	fs.StringVar(&c.MetricsAddr, "metrics-addr", "", "Address to tell metrics at, for Prometheus, as 127.0.0.1:9323")
	fs.StringVar(&c.File, "config-file", DefaultConfigFile, "File with settings, in the form of Docker's daemon.json")
	c.bindDefaults(fs)
	c.bindNetworks(fs)
	c.bindTLS(fs)
	for _, f := range needless {
		f.bind(fs)
	}
	for name, why := range refusedFlags {
		fs.String(name, "", "Not supported: "+why)
		flag := fs.Lookup(name)
		flag.Hidden, flag.NoOptDefVal = true, "true"
	}
}

// needlessFlag is a flag of dockerd for which Cleat has no part of its own,
// with the values whose effect is there all the same.
type needlessFlag struct {
	name, short string
	values      []string // nil: any
	why         string   // why nothing needs to be done
	bool        bool
}

var needless = []needlessFlag{
	{name: "containerd", why: "there is no containerd process: its library is built in"},
	{name: "containerd-namespace", why: "there is no containerd process: its library is built in"},
	{name: "containerd-plugins-namespace", why: "there is no containerd process: its library is built in"},
	{name: "userland-proxy-path", why: "the engine is its own proxy"},
	{name: "live-restore", bool: true, values: []string{"true"}, why: "containers always outlive the engine"},
	{name: "storage-driver", short: "s", values: []string{"overlay2", "overlayfs", "overlay"}, why: "overlayfs is what is used"},
	{name: "iptables", bool: true, values: []string{"true"}, why: "the firewall is managed through nftables"},
	{name: "ip6tables", bool: true, values: []string{"true"}, why: "the firewall is managed through nftables"},
	{name: "ip-forward-no-drop", bool: true, values: []string{"true"}, why: "the policy of the host's own firewall is never changed"},
	{name: "firewall-backend", values: []string{"nftables"}, why: "nftables is what is used"},
	{name: "default-runtime", values: []string{"cleat", "runc"}, why: "processes are started without an outside runtime"},
	{name: "init-path", why: "the init process of --init is built in"},
	{name: "experimental", bool: true, values: []string{"false"}, why: "nothing is behind that switch"},
	{name: "selinux-enabled", bool: true, values: []string{"false"}, why: "SELinux labels are not set"},
	{name: "rootless", bool: true, values: []string{"false"}, why: "the engine runs as root"},
	{name: "exec-opt", values: []string{"native.cgroupdriver=cgroupfs"}, why: "control groups are managed without systemd"},
	{name: "storage-opt", values: []string{"overlay2.override_kernel_check=true", "overlay2.override_kernel_check=false"}, why: "the kernel is checked by what it can do"},
	{name: "feature", values: []string{"buildkit=true", "containerd-snapshotter=true", "cdi=true"}, why: "buildkit, containerd-snapshotter and cdi are always on, and there is no other"},
	{name: "raw-logs", bool: true, why: "the engine's log is never coloured"},
}

func (f needlessFlag) bind(fs *pflag.FlagSet) {
	fs.VarP(&givenValues{}, f.name, f.short, "Accepted: "+f.why)
	flag := fs.Lookup(f.name)
	flag.Hidden = true
	if f.bool {
		flag.NoOptDefVal = "true"
	}
}

// givenValues are a flag's values as they were given.
type givenValues []string

func (v *givenValues) Set(s string) error { *v = append(*v, s); return nil }
func (v *givenValues) String() string     { return strings.Join(*v, ",") }
func (v *givenValues) Type() string       { return "string" }

// check returns a warning that says why nothing is done about value; name is the flag as the user knows it, with the
// flag with its value.
func (f needlessFlag) check(name, with, value string) (warning string, err error) {
	given := value
	if f.bool {
		b, err := strconv.ParseBool(value)
		if err != nil {
			return "", fmt.Errorf("%s: %q is not a truth value", name, value)
		}
		given = strconv.FormatBool(b)
	}
	if f.values != nil && !slices.Contains(f.values, given) {
		return "", fmt.Errorf("%s is not supported: %s; leave it out", with, f.why)
	}
	return fmt.Sprintf("%s is not needed: %s", name, f.why), nil
}

// refusedFlags are dockerd's flags whose effect is not there, and why.
var refusedFlags = map[string]string{
	"add-runtime":                  "processes are started without an outside runtime",
	"authorization-plugin":         "requests are authorized by who may open the socket, or has a certificate (--tlsverify)",
	"cpu-rt-period":                "there are no budgets of real-time scheduling",
	"cpu-rt-runtime":               "there are no budgets of real-time scheduling",
	"cri-containerd":               "there is no containerd process that could serve Kubernetes",
	"network-control-plane-mtu":    "there are no networks over several hosts",
	"node-generic-resource":        "there is no swarm",
	"nri-opts":                     "there are no plugins of the runtime",
	"swarm-default-advertise-addr": "there is no swarm",
	"userns-remap":                 "containers share the host's user ids; volumes can map them (-v SRC:DST:idmap)",
}

// spell is a flag as the user has given it: in the configuration file or on the command line.
func (c *Config) spell(flag string) string {
	if key, ok := c.fromFile[flag]; ok {
		return fmt.Sprintf("%q in %s", key, c.File)
	}
	return "--" + flag
}

// spellValue is a flag with its value, as the user has given it.
func (c *Config) spellValue(flag, value string) string {
	if key, ok := c.fromFile[flag]; ok {
		return fmt.Sprintf("%q: %s in %s", key, value, c.File)
	}
	return "--" + flag + "=" + value
}

// Check reads the configuration file, validates the flags and completes the config. Call it once, after parsing.
func (c *Config) Check() error {
	if err := c.load(); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(refusedFlags)) {
		if c.given != nil && c.given.Changed(name) {
			return fmt.Errorf("%s is not supported by this engine: %s; leave it out", c.spell(name), refusedFlags[name])
		}
	}
	for _, f := range needless {
		if c.given == nil || !c.given.Changed(f.name) {
			continue
		}
		for _, value := range *c.given.Lookup(f.name).Value.(*givenValues) {
			warning, err := f.check(c.spell(f.name), c.spellValue(f.name, value), value)
			if err != nil {
				return err
			}
			c.Warnings = append(c.Warnings, warning)
		}
	}
	for _, p := range []struct {
		flag string
		path *string
	}{{"data-root", &c.DataRoot}, {"exec-root", &c.ExecRoot}} {
		if !filepath.IsAbs(*p.path) {
			return fmt.Errorf("%s: %q must be an absolute path", c.spell(p.flag), *p.path)
		}
		*p.path = filepath.Clean(*p.path)
	}
	if c.Pidfile == "" {
		c.Pidfile = filepath.Join(c.ExecRoot, "cleatd.pid")
	}
	if len(c.CDIDirs) == 0 {
		c.CDIDirs = cdi.DefaultDirs()
	}
	if err := c.checkHosts(); err != nil {
		return err
	}
	if err := c.checkNetworks(); err != nil {
		return err
	}
	if err := c.checkDefaults(); err != nil {
		return err
	}
	if err := c.checkCgroupParent(); err != nil {
		return err
	}
	return c.checkValues()
}

// checkCgroupParent finds out where the parent lies, if it is a slice.
func (c *Config) checkCgroupParent() (err error) {
	parent := c.CgroupParent
	switch {
	case !systemd.IsSlice(parent):
		c.CgroupParent = filepath.Join("/", parent)
	case !systemd.Booted():
		return fmt.Errorf("%s: %q is a slice, and systemd does not run here: a path such as /cleat is needed", c.spell("cgroup-parent"), parent)
	default:
		c.slice = parent
		if c.CgroupParent, err = systemd.GroupOfSlice(parent); err != nil {
			return fmt.Errorf("%s: %w", c.spell("cgroup-parent"), err)
		}
	}
	if c.CgroupParent == "/" || strings.HasSuffix(c.CgroupParent, ".slice") { // a slice is asked for by its name alone
		return fmt.Errorf("%s: %q is neither a path such as /cleat nor a slice such as cleat.slice", c.spell("cgroup-parent"), parent)
	}
	return nil
}

func (c *Config) checkValues() error {
	if _, err := c.level(); err != nil {
		return err
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return fmt.Errorf("%s: %q is neither text nor json", c.spell("log-format"), c.LogFormat)
	}
	if c.BIP != "" {
		if _, err := netip.ParsePrefix(c.BIP); err != nil {
			return fmt.Errorf("%s: %q is not an address with a prefix length, such as 172.17.0.1/16", c.spell("bip"), c.BIP)
		}
	}
	for _, a := range []struct{ flag, value string }{{"ip", c.PublishIP}, {"host-gateway-ip", c.HostGateway}} {
		if a.value == "" {
			continue
		}
		if _, err := netip.ParseAddr(a.value); err != nil {
			return fmt.Errorf("%s: %q is not an IP address", c.spell(a.flag), a.value)
		}
	}
	if c.MetricsAddr != "" {
		if _, err := netip.ParseAddrPort(c.MetricsAddr); err != nil {
			return fmt.Errorf("%s: %q is not an address with a port, such as 127.0.0.1:9323", c.spell("metrics-addr"), c.MetricsAddr)
		}
	}
	for _, d := range c.DNS {
		if _, err := netip.ParseAddr(d); err != nil {
			return fmt.Errorf("%s: %q is not an IP address", c.spell("dns"), d)
		}
	}
	if c.MTU < 0 || (c.MTU > 0 && c.MTU < 68) {
		return fmt.Errorf("%s: %d is not an MTU", c.spell("mtu"), c.MTU)
	}
	if c.Bridge == "none" {
		return fmt.Errorf("%s is not supported: containers choose with --network none", c.spellValue("bridge", "none"))
	}
	if len(c.Bridge) > 15 || strings.ContainsAny(c.Bridge, "/ \t\n") {
		return fmt.Errorf("%s: %q is not the name of a network link (at most 15 characters)", c.spell("bridge"), c.Bridge)
	}
	return nil
}

// level is the log level; fatal, which dockerd has, shows errors only.
func (c *Config) level() (slog.Level, error) {
	if c.Debug {
		return slog.LevelDebug, nil
	}
	switch c.LogLevel {
	case "debug", "trace":
		return slog.LevelDebug, nil
	case "info", "":
		return slog.LevelInfo, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error", "fatal", "panic":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("%s: %q is not one of debug, info, warn, error, fatal", c.spell("log-level"), c.LogLevel)
}
