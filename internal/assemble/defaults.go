package assemble

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/registryclient"
)

// maxSeccompProfile bounds the file of --seccomp-profile, in bytes.
const maxSeccompProfile = 1 << 20

// bindDefaults defines the flags of what containers get that do not choose themselves.
func (c *Config) bindDefaults(fs *pflag.FlagSet) {
	fs.StringArrayVar(&c.Labels, "label", nil, "Label(s) of the engine, as key=value")
	fs.IntVar(&c.StopTimeout, "default-stop-timeout", int(defaultStopTimeout.Seconds()), "Seconds that stop waits before it kills; -1 waits for ever")
	fs.IntVar(&c.MaxDownloads, "max-concurrent-downloads", 3, "Layers that are downloaded at the same time")
	fs.IntVar(&c.MaxAttempts, "max-download-attempts", 5, "How often the download of a layer is tried")
	fs.IntVar(&c.MaxUploads, "max-concurrent-uploads", 5, "Layers that are uploaded at the same time")
	fs.StringVar(&c.HTTPProxy, "http-proxy", "", "Proxy for registries reached by HTTP (default: HTTP_PROXY)")
	fs.StringVar(&c.HTTPSProxy, "https-proxy", "", "Proxy for registries reached by HTTPS (default: HTTPS_PROXY)")
	fs.StringVar(&c.NoProxy, "no-proxy", "", "Hosts that are reached without a proxy (default: NO_PROXY)")
	fs.StringVar(&c.LogDriver, "log-driver", "json-file", "Log driver of containers: fluentd, gelf, journald, json-file, local, none or syslog")
	fs.StringArrayVar(&c.LogOpts, "log-opt", nil, "Options of the log driver, as key=value")
	fs.StringArrayVar(&c.Ulimits, "default-ulimit", nil, "Ulimits of containers, as name=soft[:hard]")
	fs.BoolVar(&c.Init, "init", false, "Run an init process in containers")
	fs.BoolVar(&c.NoNewPrivileges, "no-new-privileges", false, "Set no-new-privileges for containers")
	fs.StringVar(&c.IPCMode, "default-ipc-mode", "private", "IPC mode of containers: private or shareable")
	fs.StringVar(&c.ShmSize, "default-shm-size", "64MiB", "Size of /dev/shm in containers")
	fs.StringVar(&c.CgroupNSMode, "default-cgroupns-mode", "", "Cgroup namespace of containers: host or private (default: private with control groups version 2, else host)")
	fs.StringVar(&c.SeccompProfile, "seccomp-profile", "", `File of the seccomp profile of containers, "builtin" or "unconfined"`)
}

func (c *Config) checkDefaults() error {
	// What the start would refuse is refused by --validate, too.
	if err := new(registryclient.Client).SetRules(c.Mirrors, nil); err != nil {
		return fmt.Errorf("%s: %w", c.spell("registry-mirror"), err)
	}
	if err := new(registryclient.Client).SetRules(nil, c.Insecure); err != nil {
		return fmt.Errorf("%s: %w", c.spell("insecure-registry"), err)
	}
	if c.MaxDownloads < 1 {
		return fmt.Errorf("%s: %d is not a number of downloads", c.spell("max-concurrent-downloads"), c.MaxDownloads)
	}
	if c.MaxAttempts < 1 {
		return fmt.Errorf("%s: %d is not a number of attempts", c.spell("max-download-attempts"), c.MaxAttempts)
	}
	if c.MaxUploads < 1 {
		return fmt.Errorf("%s: %d is not a number of uploads", c.spell("max-concurrent-uploads"), c.MaxUploads)
	}
	if c.ShutdownTimeout < 0 {
		return fmt.Errorf("%s: %d is not a number of seconds", c.spell("shutdown-timeout"), c.ShutdownTimeout)
	}
	if c.StopTimeout < -1 {
		return fmt.Errorf("%s: %d is neither a number of seconds nor -1", c.spell("default-stop-timeout"), c.StopTimeout)
	}
	seen := map[string]string{}
	for _, l := range c.Labels {
		key, value, ok := strings.Cut(l, "=")
		if !ok || key == "" {
			return fmt.Errorf("%s: %q is not key=value", c.spell("label"), l)
		}
		if prior, twice := seen[key]; twice && prior != value {
			return fmt.Errorf("%s: conflict labels for %s=%s and %s=%s", c.spell("label"), key, value, key, prior)
		}
		seen[key] = value
	}
	for _, p := range []struct{ flag, value string }{{"http-proxy", c.HTTPProxy}, {"https-proxy", c.HTTPSProxy}} {
		if u, err := url.Parse(p.value); err != nil || (p.value != "" && u.Host == "") {
			return fmt.Errorf("%s: it is not a URL such as http://proxy.example:3128", c.spell(p.flag)) // it may hold a password
		}
	}
	d, err := c.containerDefaults()
	c.defaults = d
	return err
}

// containerDefaults are the values of the flags of bindDefaults; the error names the flag at fault.
func (c *Config) containerDefaults() (d engine.ContainerDefaults, err error) {
	bad := func(flag string, err error) (engine.ContainerDefaults, error) {
		return engine.ContainerDefaults{}, fmt.Errorf("%s: %w", c.spell(flag), err)
	}
	d = engine.ContainerDefaults{LogDriver: c.LogDriver, Init: c.Init, NoNewPrivileges: c.NoNewPrivileges}
	if d.LogOpts, err = keyValues(c.LogOpts); err != nil {
		return bad("log-opt", err)
	}
	if err := logs.Validate(d.LogDriver, d.LogOpts); err != nil {
		return bad("log-driver", err)
	}
	for _, text := range c.Ulimits {
		u, err := units.ParseUlimit(text)
		if err != nil {
			return bad("default-ulimit", err)
		}
		d.Ulimits = append(d.Ulimits, u)
	}
	if err := engine.CheckUlimits(d.Ulimits); err != nil {
		return bad("default-ulimit", err)
	}
	switch d.IPCMode = container.IpcMode(c.IPCMode); d.IPCMode {
	case container.IPCModePrivate, container.IPCModeShareable:
	case "":
		d.IPCMode = container.IPCModePrivate
	default:
		return bad("default-ipc-mode", fmt.Errorf("%q is neither private nor shareable", c.IPCMode))
	}
	if c.ShmSize != "" {
		if d.ShmSize, err = units.RAMInBytes(c.ShmSize); err != nil || d.ShmSize <= 0 {
			return bad("default-shm-size", fmt.Errorf("%q is not a size such as 64M", c.ShmSize))
		}
	}
	d.CgroupNSMode = container.CgroupnsMode(c.CgroupNSMode)
	if !d.CgroupNSMode.Valid() {
		return bad("default-cgroupns-mode", fmt.Errorf("%q is neither host nor private", c.CgroupNSMode))
	}
	if d.Seccomp, d.Unconfined, err = seccompProfile(c.SeccompProfile); err != nil {
		return bad("seccomp-profile", err)
	}
	return d, nil
}

func seccompProfile(value string) (profile []byte, unconfined bool, err error) {
	switch value {
	case "", "builtin":
		return nil, false, nil
	case "unconfined":
		return nil, true, nil
	}
	info, err := os.Stat(value)
	if err == nil && info.Size() > maxSeccompProfile {
		err = fmt.Errorf("%s is larger than %d bytes", value, maxSeccompProfile)
	}
	if err == nil {
		profile, err = os.ReadFile(value)
	}
	if err == nil && len(profile) == 0 {
		err = errors.New(value + " is empty")
	}
	return profile, false, err
}

func keyValues(list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, s := range list {
		key, value, ok := strings.Cut(s, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("%q is not key=value", s)
		}
		out[key] = value
	}
	return out, nil
}
