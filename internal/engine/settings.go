package engine

import (
	"maps"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/logs"
)

// ContainerDefaults are what containers get that do not choose themselves. The
// zero value is Docker's defaults.
type ContainerDefaults struct {
	LogDriver       string // "" is json-file
	LogOpts         map[string]string
	Ulimits         []*container.Ulimit
	Init            bool
	NoNewPrivileges bool
	IPCMode         container.IpcMode // "" is private
	ShmSize         int64             // bytes; 0 is 64 MiB
	CgroupNSMode    container.CgroupnsMode
	Seccomp         []byte // a profile; nil is the built-in one
	Unconfined      bool   // no seccomp filter
}

// CheckUlimits says what is wrong with limits as a request would bring them.
func CheckUlimits(u []*container.Ulimit) error {
	_, err := rlimits(u)
	return err
}

// logConfig is Docker's rule: the default options belong to the default driver, but for
// those of the local file.
func (d *ContainerDefaults) logConfig(l *container.LogConfig) {
	driver := d.LogDriver
	if driver == "" {
		driver = defaultLogDriver
	}
	if l.Type == "" {
		l.Type = driver
	}
	opts := map[string]string{}
	if l.Type == driver {
		maps.Copy(opts, d.LogOpts)
	}
	for _, name := range logs.InheritedOptions() {
		if v, ok := d.LogOpts[name]; ok {
			opts[name] = v
		}
	}
	maps.Copy(opts, l.Config)
	l.Config = opts
}

// ulimits adds the default limits to those of a container.
func (d *ContainerDefaults) ulimits(own []*container.Ulimit) []*container.Ulimit {
	if len(d.Ulimits) == 0 {
		return own
	}
	named := map[string]bool{}
	for _, u := range own {
		named[u.Name] = true
	}
	for _, u := range d.Ulimits {
		if !named[u.Name] {
			own = append(own[:len(own):len(own)], u)
		}
	}
	return own
}

func (d *ContainerDefaults) init(own *bool) bool {
	if own != nil {
		return *own
	}
	return d.Init
}

// security completes the decoded --security-opt values. A privileged container
// has a filter only if it asks for one.
func (d *ContainerDefaults) security(s securityOpts, privileged bool) securityOpts {
	if !s.noNewPrivsGiven {
		s.noNewPrivs = d.NoNewPrivileges
	}
	if !s.seccompGiven && !privileged {
		s.profile, s.unconfined = d.Seccomp, d.Unconfined
	}
	return s
}

// Adjustable are the settings that change while the engine runs.
type Adjustable struct {
	Debug bool
	// Labels of the engine, as key=value.
	Labels []string
	// StopTimeout is what stop waits for when neither request nor container say;
	// negative is for ever.
	StopTimeout time.Duration
	// Registry settings, for info.
	Mirrors            []string
	InsecureRegistries []string
	// Warnings are sentences for info about flags and the host.
	Warnings []string
}

// adjustable is shared by the verbs that act on it.
type adjustable = atomic.Pointer[Adjustable]

// Adjust puts new settings in force, for what begins from now on.
func (s *System) Adjust(a Adjustable) { s.adjustable.Store(&a) }
