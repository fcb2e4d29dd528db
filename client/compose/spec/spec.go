// Package spec turns what a Compose file says of services, networks and volumes into
// requests of the Engine API, as docker compose does, so that containers which one made
// are those that the other would have made.
//
// It promises:
//   - Pure data in, pure data out: no engine is asked, and no file is read but a seccomp profile.
//   - An attribute that has no effect here is an error that names it, never dropped.
package spec

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/client/compose/label"
)

// Replica is a container of a service that is to be made.
type Replica struct {
	Project *types.Project
	Service types.ServiceConfig
	Number  int    // from 1
	Name    string // of the container
	Image   string // what is run: a reference
	ImageID string // its id, "" if unknown
	// Replaces is the container whose place it takes, nil for none: its anonymous volumes
	// are kept.
	Replaces *container.InspectResponse
	// ImageVolumes are those that the image asks for, by their targets; only with Replaces.
	ImageVolumes map[string]struct{}
	// Others gives the container that a service's namespaces or volumes are shared with.
	Others func(service string) (id string, err error)
	// Linked gives the names of a service's containers.
	Linked func(service string) []string
	// Separator stands between the parts of names, "" is "-".
	Separator string
	// Proxies are variables that containers have unless their service says otherwise.
	Proxies types.MappingWithEquals
	// OneOff marks a container of `run`; Labels are added.
	OneOff bool
	Labels map[string]string
	// Alone leaves out the names by which other containers find the service.
	Alone bool
	// AutoRemove removes the container when it ends.
	AutoRemove bool
	// StdinOnce closes the input when its first client goes.
	StdinOnce bool
	// API is the version of the engine's API: older ones take one network at a create.
	API string
	// OwnFiles says that the engine keeps files for containers, which only Cleat does.
	OwnFiles bool
}

// Request is what makes a container: one create, then connections to further networks.
type Request struct {
	Create  client.ContainerCreateOptions
	Connect []client.NetworkConnectOptions // with the network's name in Container's place
	Later   []string                       // the networks of Connect
}

// ContainerName is the name of a service's container: its own, or by project and number.
func ContainerName(p *types.Project, s types.ServiceConfig, number int, separator string) string {
	if s.ContainerName != "" {
		return s.ContainerName
	}
	return strings.Join([]string{p.Name, s.Name, strconv.Itoa(number)}, separator)
}

// ImageName is what a service runs: its image, or the name under which it is built.
func ImageName(p *types.Project, s types.ServiceConfig, separator string) string {
	if s.Image != "" {
		return s.Image
	}
	return p.Name + separator + s.Name
}

// Request is the one that makes the replica.
func (r *Replica) Request() (*Request, error) {
	if err := refuse(r.Service); err != nil {
		return nil, fmt.Errorf("service %q: %w", r.Service.Name, err)
	}
	resolved, err := Resolve(r.Service, r.Others)
	if err != nil {
		return nil, err
	}
	of := *r
	of.Service = resolved
	request, err := of.request()
	if err != nil {
		return nil, fmt.Errorf("service %q: %w", r.Service.Name, err)
	}
	return request, nil
}

func (r *Replica) request() (*Request, error) {
	config, err := r.config()
	if err != nil {
		return nil, err
	}
	host, err := r.hostConfig()
	if err != nil {
		return nil, err
	}
	if config.ExposedPorts, host.PortBindings, err = ports(r.Service); err != nil {
		return nil, err
	}
	if host.Binds, host.Mounts, err = r.mounts(); err != nil {
		return nil, err
	}
	platform, err := parsePlatform(Platform(r.Project, r.Service.Platform))
	if err != nil {
		return nil, err
	}
	request := &Request{Create: client.ContainerCreateOptions{Config: config, HostConfig: host, Platform: platform, Name: r.Name}}
	return request, r.networks(request)
}

func parsePlatform(text string) (*ocispec.Platform, error) {
	if text == "" {
		return nil, nil
	}
	p, err := platforms.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("platform: %w", err)
	}
	return &p, nil
}

// config is what is the container's own.
func (r *Replica) config() (*container.Config, error) {
	s := r.Service
	labels, err := r.labels()
	if err != nil {
		return nil, err
	}
	c := &container.Config{
		Image: r.Image, Hostname: s.Hostname, Domainname: s.DomainName, User: s.User, WorkingDir: s.WorkingDir,
		Tty: s.Tty, OpenStdin: s.StdinOpen, StdinOnce: r.StdinOnce && s.StdinOpen, AttachStdout: true, AttachStderr: true, AttachStdin: r.StdinOnce && s.StdinOpen,
		Env: Environment(r.environment()), Labels: labels, StopSignal: s.StopSignal,
		NetworkDisabled: s.NetworkMode == "disabled", Healthcheck: healthCheck(s.HealthCheck),
	}
	// Set and empty clears what the image has; absent keeps it.
	if s.Command != nil {
		c.Cmd = []string(s.Command)
	}
	if s.Entrypoint != nil {
		c.Entrypoint = []string(s.Entrypoint)
		if len(c.Entrypoint) == 0 {
			c.Entrypoint = []string{""}
		}
	}
	if s.StopGracePeriod != nil {
		seconds := int((time.Duration(*s.StopGracePeriod) + time.Second - 1) / time.Second)
		c.StopTimeout = &seconds
	}
	return c, nil
}

// labels are the service's own, and those by which the container is found again.
func (r *Replica) labels() (map[string]string, error) {
	s := r.Service
	hash, err := Hash(s)
	if err != nil {
		return nil, err
	}
	labels := map[string]string{}
	maps.Copy(labels, s.Labels)
	maps.Copy(labels, s.CustomLabels)
	labels[label.ConfigHash] = hash
	if !r.OneOff {
		labels[label.Number] = strconv.Itoa(r.Number)
	}
	labels[label.DependsOn] = label.Dependencies(s.DependsOn)
	if r.ImageID != "" {
		labels[label.Image] = r.ImageID
	}
	if r.OneOff {
		labels[label.OneOff] = "True"
	}
	if r.Replaces != nil {
		labels[label.Replace] = cmp.Or(s.ContainerName, s.Name+r.separator()+strconv.Itoa(r.Number))
	}
	maps.Copy(labels, r.Labels)
	return labels, nil
}

// environment is the service's, and the proxies.
func (r *Replica) environment() types.MappingWithEquals {
	all := types.MappingWithEquals{}
	maps.Copy(all, r.Proxies)
	maps.Copy(all, r.Service.Environment)
	return all
}

// Environment is a list in a stable order. A variable without a value is one that the
// container does not have, though its image may.
func Environment(m types.MappingWithEquals) []string {
	list := make([]string, 0, len(m))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if value := m[key]; value != nil {
			key += "=" + *value
		}
		list = append(list, key)
	}
	return list
}

func healthCheck(h *types.HealthCheckConfig) *container.HealthConfig {
	if h == nil {
		return nil
	}
	c := &container.HealthConfig{Test: h.Test}
	if h.Disable {
		c.Test = []string{"NONE"}
	}
	for _, d := range []struct {
		from *types.Duration
		to   *time.Duration
	}{{h.Interval, &c.Interval}, {h.Timeout, &c.Timeout}, {h.StartPeriod, &c.StartPeriod}, {h.StartInterval, &c.StartInterval}} {
		if d.from != nil {
			*d.to = time.Duration(*d.from)
		}
	}
	if h.Retries != nil {
		c.Retries = int(*h.Retries)
	}
	return c
}

// refuse names what one engine on one machine does not do.
func refuse(s types.ServiceConfig) error {
	switch {
	case s.CredentialSpec != nil:
		return unsupported("credential_spec")
	case len(s.Models) > 0:
		return unsupported("models")
	case s.Isolation != "" && s.Isolation != "default":
		return unsupported("isolation: " + s.Isolation)
	case s.CPUCount != 0:
		return unsupported("cpu_count")
	case s.CPUPercent != 0:
		return unsupported("cpu_percent")
	case s.Umask != nil:
		return unsupported("umask")
	case s.Build != nil && s.Build.Isolation != "" && s.Build.Isolation != "default":
		return unsupported("build.isolation: " + s.Build.Isolation)
	case s.Deploy != nil && s.Deploy.Resources.Reservations != nil && len(s.Deploy.Resources.Reservations.GenericResources) > 0:
		return unsupported("deploy.resources.reservations.generic_resources")
	}
	return nil
}

func unsupported(attribute string) error {
	return fmt.Errorf("the attribute %s is not supported: remove it, or keep it in a file that only other engines read", attribute)
}

// from says whether the engine's API is at least of a version.
func (r *Replica) from(version string) bool {
	return r.API == "" || versions.GreaterThanOrEqualTo(r.API, version)
}
