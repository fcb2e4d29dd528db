// Package health decides how a container does by the probes that its health check asks for: when the next one is due,
// what its result means, and what is to be done with a container that turns unhealthy.
//
// It promises that a container which waits for its next probe costs a timer and no goroutine, that what was found
// survives the engine without a write to a disk, that nothing is noted once a run's monitor was stopped, and that a
// container is not taken for ill because it stood still. How a probe is run and how a container is ended is for who
// watches over it to say (Run).
package health

import (
	"slices"
	"strings"
	"time"

	api "github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
)

// Docker's numbers.
const (
	defaultInterval      = 30 * time.Second
	defaultTimeout       = 30 * time.Second
	defaultStartInterval = 5 * time.Second
	defaultRetries       = 3
	keptProbes           = 5
	keptOutput           = 4096 // bytes of each
)

// Check is a container's health check with the defaults filled in.
type Check struct {
	Cmd                                           []string
	Interval, Timeout, StartPeriod, StartInterval time.Duration
	Retries                                       int
	OnFailure                                     Action
}

// Of returns the health check of a container, nil for one without.
func Of(r *container.Record) *Check {
	h := r.Config.Healthcheck
	cmd, err := command(r.Config)
	if err != nil || len(cmd) == 0 {
		return nil
	}
	or := func(d, otherwise time.Duration) time.Duration {
		if d == 0 {
			return otherwise
		}
		return d
	}
	out := &Check{
		Cmd: cmd, Interval: or(h.Interval, defaultInterval), Timeout: or(h.Timeout, defaultTimeout), StartPeriod: h.StartPeriod,
		StartInterval: or(h.StartInterval, defaultStartInterval), Retries: h.Retries, OnFailure: Action(r.HostConfig.Annotations[actionKey]),
	}
	if out.Retries == 0 {
		out.Retries = defaultRetries
	}
	return out
}

// command is the command line of a merged config's health check, nil
// without one.
func command(c *api.Config) ([]string, error) {
	h := c.Healthcheck
	if h == nil || len(h.Test) == 0 {
		return nil, nil
	}
	args := h.Test[1:]
	switch h.Test[0] {
	case "NONE":
		return nil, nil
	case "CMD":
	case "CMD-SHELL":
		shell := c.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		if len(args) > 0 {
			args = slices.Concat(shell, args)
		}
	default:
		return nil, failure.Invalid("Unknown healthcheck type '%s' (expected 'NONE', 'CMD' or 'CMD-SHELL')", h.Test[0])
	}
	if len(args) == 0 || args[0] == "" {
		return nil, failure.Invalid("Healthcheck has no command after %q", h.Test[0])
	}
	return args, nil
}

// Action is what is done with a container that turns unhealthy.
type Action string

// actionKey is the annotation that carries the action through an API that
// has no field for it: every client can set annotations, and only who makes the
// container can.
const actionKey = "cleat.health-on-failure"

const (
	None    Action = "none"
	Restart Action = "restart"
	Stop    Action = "stop"
	Kill    Action = "kill"
)

// CheckAction looks at the annotation, before the image is known.
func CheckAction(h *api.HostConfig) error {
	v, given := h.Annotations[actionKey]
	switch Action(v) {
	case None, Restart, Stop, Kill:
		return nil
	case "":
		if !given {
			return nil
		}
	}
	return failure.Invalid("invalid action %q on health check failure (--health-on-failure, annotation %s): want none, restart, stop or kill", v, actionKey)
}

// CheckMerged looks at check and action together, after the image is merged in.
func CheckMerged(c *api.Config, h *api.HostConfig) error {
	if v := h.Annotations[actionKey]; v != "" && v != string(None) && !asked(c) {
		return failure.Invalid("cannot %s the container on health check failure (--health-on-failure): neither --health-cmd nor the image gives it a health check", v)
	}
	return nil
}

// asked says whether the merged config asks for probes to be run.
func asked(c *api.Config) bool {
	return c.Healthcheck != nil && len(c.Healthcheck.Test) > 0 && c.Healthcheck.Test[0] != "NONE"
}

// CheckConfig looks at what a client says of the check; what is not given may come from the image.
func CheckConfig(h *api.HealthConfig) error {
	if h == nil {
		return nil
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"Interval", h.Interval}, {"Timeout", h.Timeout}, {"StartPeriod", h.StartPeriod}, {"StartInterval", h.StartInterval},
	} {
		if d.value != 0 && d.value < api.MinimumDuration {
			return failure.Invalid("%s in Healthcheck cannot be less than %s", d.name, api.MinimumDuration)
		}
	}
	if h.Retries < 0 {
		return failure.Invalid("Retries in Healthcheck cannot be negative")
	}
	for _, s := range h.Test {
		if strings.ContainsRune(s, 0) {
			return failure.Invalid("invalid Healthcheck: %q holds a zero byte", s)
		}
	}
	_, err := command(&api.Config{Healthcheck: h})
	return err
}
