package engine

import (
	"maps"
	"slices"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/failure"
)

// mergeImageConfig fills in what the request left to the image: on equal keys
// the request wins. The image's config is hostile input and only read. Its
// triggers (OnBuild) are for who builds on it, not for a commit of its container.
func mergeImageConfig(c *container.Config, img *dockerspec.DockerOCIImageConfig) error {
	if c.User == "" {
		c.User = img.User
	}
	exposed, err := ExposedPorts(img.ExposedPorts)
	if err != nil {
		return failure.Invalid("the image exposes what is not a port: %w", err)
	}
	if len(exposed) > 0 {
		maps.Copy(exposed, c.ExposedPorts)
		c.ExposedPorts = exposed
	}
	c.Env = appendMissingEnv(c.Env, img.Env)
	if len(img.Labels) > 0 {
		labels := maps.Clone(img.Labels)
		maps.Copy(labels, c.Labels)
		c.Labels = labels
	}
	mergeCommand(c, img)
	if c.WorkingDir == "" {
		c.WorkingDir = img.WorkingDir
	}
	for v := range img.Volumes {
		if c.Volumes == nil {
			c.Volumes = map[string]struct{}{}
		}
		c.Volumes[v] = struct{}{}
	}
	if _, err := parseSignal(img.StopSignal); c.StopSignal == "" && err == nil {
		c.StopSignal = img.StopSignal // one that nobody knows is passed over, as by dockerd
	}
	if len(c.Shell) == 0 {
		c.Shell = slices.Clone(img.Shell)
	}
	mergeHealthcheck(c, img.Healthcheck)
	return nil
}

// mergeCommand applies Docker's rules: a nil entrypoint takes the image's; an
// empty list means none and keeps the image's command; a list that holds
// anything drops the image's command, even [""], which then means none.
func mergeCommand(c *container.Config, img *dockerspec.DockerOCIImageConfig) {
	if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd = slices.Clone(img.Cmd)
			c.ArgsEscaped = img.ArgsEscaped
		}
		if c.Entrypoint == nil {
			c.Entrypoint = slices.Clone(img.Entrypoint)
		}
	}
	if len(c.Entrypoint) == 1 && c.Entrypoint[0] == "" {
		c.Entrypoint = nil
	}
}

// commandLine splits the merged config into the program and its arguments.
func commandLine(c *container.Config) (path string, args []string, err error) {
	line := append(slices.Clone(c.Entrypoint), c.Cmd...)
	if len(line) == 0 {
		return "", nil, failure.Invalid("no command specified: the image names none with CMD or ENTRYPOINT, so give one")
	}
	return line[0], line[1:], nil
}

// appendMissingEnv appends to env the variables of more whose names env does
// not have.
func appendMissingEnv(env, more []string) []string {
	have := make(map[string]struct{}, len(env))
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		have[name] = struct{}{}
	}
	out := slices.Clip(env)
	for _, e := range more {
		name, _, _ := strings.Cut(e, "=")
		if _, ok := have[name]; !ok {
			out = append(out, e)
		}
	}
	return out
}

func mergeHealthcheck(c *container.Config, img *dockerspec.HealthcheckConfig) {
	if img == nil {
		return
	}
	if c.Healthcheck == nil {
		clone := *img
		c.Healthcheck = &clone
		return
	}
	h := *c.Healthcheck
	if len(h.Test) == 0 {
		h.Test = img.Test
	}
	for _, d := range []struct{ to, from *time.Duration }{
		{&h.Interval, &img.Interval}, {&h.Timeout, &img.Timeout},
		{&h.StartPeriod, &img.StartPeriod}, {&h.StartInterval, &img.StartInterval},
	} {
		if *d.to == 0 {
			*d.to = *d.from
		}
	}
	if h.Retries == 0 {
		h.Retries = img.Retries
	}
	c.Healthcheck = &h
}
