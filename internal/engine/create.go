package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	api "github.com/moby/moby/api/types/container"
	apievents "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	apivolume "github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/health"
	"github.com/cleatlabs/cleat/internal/image"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/internal/record"
	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/internal/volume"
)

// Names of what lies in a container's directory.
const (
	upperDir = "upper"
	workDir  = "work"
)

// Creator makes containers.
type Creator struct {
	containers *container.Store
	images     *image.Service
	volumes    *volume.Service
	files      *filesystems
	networks   *network.Service
	lives      *lives
	say        *announcer
	features   kernel.Features
	specs      *specBuilder
	dirs       *directories
	cgroupV2   bool
	limits     cgroup.Support
	layers     *layerQuota
	heads      *headStarts
}

// Create makes a container that is ready to start and returns its id. A
// failure leaves nothing behind.
func (cr *Creator) Create(ctx context.Context, req CreateRequest) (id string, warnings []string, err error) {
	if req.Config == nil {
		return "", nil, failure.Invalid("config cannot be empty in order to create a container")
	}
	id = container.NewID()
	// What was asked for is copied, so that the caller keeps his structs.
	cfg, host := *req.Config, api.HostConfig{}
	if req.HostConfig != nil {
		host = *req.HostConfig
	}
	def := container.Definition{ID: id, Created: time.Now().UTC(), Config: &cfg, HostConfig: &host}
	warnings, err = cr.check(&def, req)
	if err != nil {
		return "", nil, err
	}
	img, release, err := cr.take(ctx, &cfg, req.Platform)
	if err != nil {
		return "", nil, err
	}
	defer release()
	imageWarnings, err := cr.takeImage(&def, img, req.Platform)
	if err != nil {
		return "", nil, err
	}
	warnings = append(warnings, imageWarnings...)

	inherited, err := cr.volumesFrom(ctx, host.VolumesFrom)
	if err != nil {
		return "", nil, err
	}
	plan, err := planMounts(&cfg, &host, inherited)
	if err != nil {
		return "", nil, err
	}
	for i := range plan.mounts {
		release, err := cr.takeMounted(ctx, &plan.mounts[i], req.Platform)
		if err != nil {
			return "", nil, err
		}
		defer release()
	}
	if req.ShallowReadOnly {
		plan.shallow()
	}
	plan.propagate(cr.specs.settings.DataRoot)
	if err := placeFiles(&cr.specs.settings, id, cr.containers.DirOf(id), plan.mounts); err != nil {
		return "", nil, err
	}
	if err := cr.make(ctx, &def, req.Name, plan); err != nil {
		return "", nil, err
	}
	if warnings == nil {
		warnings = []string{}
	}
	return id, warnings, nil
}

// takeMounted finds the image of a mount and keeps it until release.
func (cr *Creator) takeMounted(ctx context.Context, m *container.Mount, platform string) (release func(), err error) {
	if m.Type != mount.TypeImage {
		return func() {}, nil
	}
	if m.Image != nil { // from another container, whose image it stays
		return cr.images.Hold(m.Image.ID), nil
	}
	img, release, err := cr.images.Take(ctx, m.Source, platform)
	if err != nil {
		return nil, notTheImage(err)
	}
	m.Image = &container.Image{ID: img.ID, Ref: img.Ref, Platform: img.Platform, Manifest: img.Manifest, ChainID: img.ChainID}
	return release, nil
}

// check validates the request as far as it does not need the image.
func (cr *Creator) check(def *container.Definition, req CreateRequest) (warnings []string, err error) {
	cfg, host := def.Config, def.HostConfig
	if err := checkConfig(cfg); err != nil {
		return nil, err
	}
	if cfg.NetworkDisabled {
		host.NetworkMode = network.ModeNone
	}
	if err := cr.specs.settings.Containers.fill(host, cr.cgroupV2); err != nil {
		return nil, err
	}
	if err := cr.checkNetwork(def, req); err != nil {
		return nil, err
	}
	if err := refuseUnsupported(cfg, host, def.Endpoints); err != nil {
		return nil, err
	}
	warnings, err = checkHostConfig(host, cr.features)
	if err != nil {
		return nil, err
	}
	if err := checkSlice(host.CgroupParent, &cr.specs.settings); err != nil {
		return nil, err
	}
	if err := cgroup.CheckPath(cr.specs.cgroupPath(&container.Record{Definition: *def})); err != nil {
		return nil, err
	}
	if _, err := cr.layers.size(host.StorageOpt); err != nil {
		return nil, err
	}
	discarded, err := adaptLimits(&host.Resources, cr.limits)
	if err != nil {
		return nil, err
	}
	warnings = append(warnings, discarded...)
	if err := nameJoined(cr.containers, host); err != nil {
		return nil, err
	}
	if err := checkHostname(cfg, host); err != nil {
		return nil, err
	}
	// A profile that cannot be compiled must not wait for the start to say so.
	if err := cr.specs.confine(&runtime.Spec{}, host); err != nil {
		return nil, err
	}
	switch {
	case cfg.Hostname != "":
	case host.NetworkMode.IsHost() || host.UTSMode.IsHost():
		if cfg.Hostname, err = os.Hostname(); err != nil {
			return nil, fmt.Errorf("host name: %w", err)
		}
	default:
		cfg.Hostname = def.ID[:12]
	}
	return append(warnings, cr.unpublished(def)...), nil
}

// unpublished warns of ports that the container's networks do not publish.
func (cr *Creator) unpublished(def *container.Definition) []string {
	host := def.HostConfig
	switch {
	case len(host.PortBindings) == 0 && !host.PublishAllPorts:
		return nil
	case host.NetworkMode.IsNone():
		return []string{"Published ports are discarded without a network"}
	case host.NetworkMode.IsHost():
		return []string{"Published ports are discarded when using host network mode"}
	}
	why := ""
	for name := range def.Endpoints {
		rec, err := cr.networks.Find(name)
		if err != nil || rec.Publishes() || !api.NetworkMode(name).IsUserDefined() {
			return nil
		}
		why = "network " + name + " is internal"
		if !rec.Internal {
			why = "containers of " + rec.Driver + " network " + name + " are reached at their own addresses"
		}
	}
	if why == "" {
		return nil
	}
	return []string{"Published ports are discarded: " + why}
}

// checkNetwork validates what the request says about networks.
func (cr *Creator) checkNetwork(def *container.Definition, req CreateRequest) (err error) {
	cfg, host := def.Config, def.HostConfig
	if err := checkSharedNetwork(cfg, host); err != nil {
		return err
	}
	if err := network.CheckPorts(host.PortBindings); err != nil {
		return err
	}
	if host.NetworkMode.IsContainer() {
		other, err := cr.containers.Find(host.NetworkMode.ConnectedContainer())
		if err != nil {
			return notTheImage(err)
		}
		host.NetworkMode = api.NetworkMode(containerMode + other.ID())
		cfg.Hostname, cfg.Domainname = other.Load().Config.Hostname, other.Load().Config.Domainname
	}
	if host.NetworkMode.IsUserDefined() {
		if rec, err := cr.networks.Find(string(host.NetworkMode)); err == nil {
			host.NetworkMode = modeOf(rec, host.NetworkMode)
		}
	}
	if def.Endpoints, err = checkEndpoints(host.NetworkMode, req.NetworkingConfig, cr.networks.Find); err != nil {
		return err
	}
	return cr.checkLinks(def)
}

// modeOf is how a container tells the network of its mode, found by what was said: by the name or the id, whichever that
// was, as programs that compare (Terraform, Ansible) take another for a change. Predefined networks have their names.
func modeOf(rec *network.Record, said api.NetworkMode) api.NetworkMode {
	if name := api.NetworkMode(rec.Name); said == name || !name.IsUserDefined() {
		return name
	}
	return api.NetworkMode(rec.ID)
}

// take finds the image and keeps it until release.
func (cr *Creator) take(ctx context.Context, cfg *api.Config, platform string) (img *image.Image, release func(), err error) {
	if cfg.Image == "" {
		return nil, nil, failure.Invalid("no image specified: Config.Image must name one")
	}
	return cr.images.Take(ctx, cfg.Image, platform)
}

// takeImage merges the image into the definition.
func (cr *Creator) takeImage(def *container.Definition, img *image.Image, platform string) (warnings []string, err error) {
	if err := mergeImageConfig(def.Config, &img.Config.Config); err != nil {
		return nil, err
	}
	// The image is as little to be trusted as the request.
	if err := checkConfig(def.Config); err != nil {
		return nil, err
	}
	if err := health.CheckMerged(def.Config, def.HostConfig); err != nil {
		return nil, err
	}
	if def.Path, def.Args, err = commandLine(def.Config); err != nil {
		return nil, err
	}
	def.Image = container.Image{ID: img.ID, Ref: img.Ref, Platform: img.Platform, Manifest: img.Manifest, ChainID: img.ChainID}
	if platform == "" && !platforms.Default().Match(img.Platform) {
		warnings = append(warnings, fmt.Sprintf("The requested image's platform (%s) does not match the detected host platform (%s) and no specific platform was requested",
			platforms.FormatAll(img.Platform), platforms.FormatAll(platforms.DefaultSpec())))
	}
	return warnings, nil
}

// volumesFrom gives the mounts of other containers, as name[:ro|rw]. Their volumes hold what their images have, whether
// they were ever started or not, and get nothing of the image of who takes them.
func (cr *Creator) volumesFrom(ctx context.Context, specs []string) ([]container.Mount, error) {
	var out []container.Mount
	for _, spec := range specs {
		name, mode, _ := strings.Cut(spec, ":")
		modes, err := parseModes(mode)
		if err != nil || name == "" || modes.noCopy || modes.propagation != "" || modes.idMap != nil {
			return nil, failure.Invalid("invalid volumes-from specification: %q", spec)
		}
		from, err := cr.containers.Find(name)
		if err != nil {
			return nil, notTheImage(err)
		}
		if err := from.Load().Whole(); err != nil {
			return nil, fmt.Errorf("the volumes of %s are not known: %w", name, err)
		}
		if err := cr.files.fill(ctx, from); err != nil {
			return nil, notTheImage(err)
		}
		for _, m := range from.Load().Mounts {
			if m.Type == mount.TypeTmpfs || m.Type == typeFile {
				continue
			}
			if mode != "" {
				m.Mode, m.ReadOnly = mode, m.ReadOnly || modes.readOnly
			}
			m.CopyUp = false
			m.Anonymous = false // it goes with the container that made it
			out = append(out, m)
		}
	}
	return out, nil
}

// notTheImage makes a missing object other than the image an invalid request:
// to a client, 404 from a create is a missing image, which it pulls.
func notTheImage(err error) error {
	if errdefs.IsNotFound(err) {
		return failure.Wrap(errdefs.ErrInvalidArgument, err)
	}
	return err
}

// reserveName takes a name for the container id, one of its own choice where none is asked for.
func (cr *Creator) reserveName(name, id string) (string, error) {
	if name == "" {
		return cr.containers.ReserveGeneratedName(id)
	}
	name, err := checkName(name)
	if err != nil {
		return "", err
	}
	return name, cr.containers.ReserveName(name, id)
}

// make reserves the name and writes the container down, or undoes it all.
func (cr *Creator) make(ctx context.Context, def *container.Definition, name string, plan *mountPlan) (err error) {
	if def.Name, err = cr.reserveName(name, def.ID); err != nil {
		return err
	}
	var made []string // anonymous volumes
	dir := cr.containers.DirOf(def.ID)
	defer func() {
		if err == nil {
			return
		}
		cr.containers.FreeName(def.Name, def.ID)
		for _, m := range plan.mounts {
			if m.Name != "" {
				cr.volumes.Release(m.Name, def.ID)
			}
		}
		for _, v := range made {
			err = errors.Join(err, cr.volumes.Remove(context.WithoutCancel(ctx), v, true))
		}
		err = errors.Join(err, os.RemoveAll(dir), cr.layers.release(def.Project))
	}()
	record.Failpoint("engine.create.after-name")
	if err := cr.dirs.make(dir); err != nil {
		return err
	}
	if def.Project, err = cr.layers.claim(dir, def.HostConfig.StorageOpt); err != nil {
		return err
	}
	record.Failpoint("engine.create.after-dirs")
	if err := cr.nameVolumes(def.ID, plan); err != nil {
		return err
	}
	if made, err = cr.makeVolumes(ctx, def, plan); err != nil {
		return err
	}
	record.Failpoint("engine.create.after-volumes")
	sortMounts(plan.mounts)
	def.Mounts = plan.mounts
	if logs.Stores(def.HostConfig.LogConfig.Type) {
		def.LogPath = filepath.Join(dir, def.ID+container.LogSuffix)
	}
	c := cr.containers.Draft(&container.Record{Definition: *def, State: container.State{Status: api.StateCreated}})
	cr.heads.begin(c)
	record.Failpoint("engine.create.after-group")
	if err = cr.containers.Add(c, !def.HostConfig.AutoRemove); err != nil {
		cr.heads.drop(def.ID)
		return err
	}
	cr.networks.Expect(def.ID, endpointRequests(def.HostConfig.NetworkMode, def.Endpoints))
	cr.lives.of(c)
	cr.say.container(c, apievents.ActionCreate)
	return nil
}

// nameVolumes gives the plan's anonymous volumes their names and writes these
// down, so that an engine that dies before the container is complete leaves no
// volume that nobody knows.
func (cr *Creator) nameVolumes(id string, plan *mountPlan) error {
	var names []string
	for i := range plan.mounts {
		m := &plan.mounts[i]
		if _, own := plan.volumes[i]; own && m.Type == mount.TypeVolume && m.Name == "" {
			m.Name = container.NewID()
			names = append(names, m.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return cr.containers.Intend(id, names)
}

// makeVolumes makes the plan's volumes and notes the container as their user.
func (cr *Creator) makeVolumes(ctx context.Context, def *container.Definition, plan *mountPlan) (made []string, err error) {
	for i := range plan.mounts {
		m := &plan.mounts[i]
		if m.Type != mount.TypeVolume {
			continue
		}
		spec, own := plan.volumes[i]
		if own {
			v, isNew, verr := cr.makeVolume(ctx, def, m, spec)
			if verr != nil {
				return made, notTheImage(verr)
			}
			m.Name, m.Driver = v.Name, v.Driver
			if m.Anonymous {
				made = append(made, m.Name)
			}
			if isNew {
				cr.say.volume(v, apievents.ActionCreate)
			}
		}
		if m.Source, err = cr.volumes.Acquire(m.Name, def.ID); err != nil {
			return made, err
		}
	}
	return made, nil
}

func (cr *Creator) makeVolume(ctx context.Context, def *container.Definition, m *container.Mount, spec volumeSpec) (*apivolume.Volume, bool, error) {
	r := volume.Request{Name: m.Name, Driver: spec.driver, Options: spec.opts, Labels: spec.labels, User: def.ID}
	if m.Anonymous {
		r.Ephemeral = def.HostConfig.AutoRemove && spec.driver == "" && len(spec.opts) == 0
		r.Labels = maps.Clone(spec.labels)
		if r.Labels == nil {
			r.Labels = map[string]string{}
		}
		r.Labels[volume.AnonymousLabel] = ""
	}
	return cr.volumes.Create(ctx, r)
}
