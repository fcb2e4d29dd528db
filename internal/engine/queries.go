package engine

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/docker/go-units"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	apinetwork "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"

	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/image"
	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/network"
)

// Queries describe containers. They read snapshots and wait for nobody.
type Queries struct {
	containers *container.Store
	networks   *network.Service
	images     *image.Service
	lives      *lives

	imageSizes sync.Map // chain id → bytes; layers never change
}

// List describes the containers that opts select, newest first. It is never
// nil.
func (q *Queries) List(ctx context.Context, opts ListOptions) ([]*api.Summary, error) {
	f, err := newListFilter(ctx, q, opts.Filters)
	if err != nil {
		return nil, err
	}
	names := &imageNames{images: q.images, ctx: ctx, ids: map[string]string{}}
	now := time.Now()
	out := []*api.Summary{}
	for _, c := range q.containers.All() {
		if opts.Limit > 0 && len(out) >= opts.Limit {
			break
		}
		r := c.Load()
		if !r.State.Running() && !opts.All && opts.Limit <= 0 && !f.impliesAll {
			continue
		}
		if !f.match(r) {
			continue
		}
		s := q.summary(r, names, now)
		if opts.Size {
			if s.SizeRw, s.SizeRootFs, err = q.sizes(ctx, c, r); err != nil {
				return nil, err
			}
		}
		out = append(out, s)
	}
	return out, nil
}

func (q *Queries) summary(r *container.Record, names *imageNames, now time.Time) *api.Summary {
	s := &api.Summary{
		ID: r.ID, Names: []string{"/" + r.Name}, Image: names.of(r), ImageID: r.Image.ID.String(),
		Command: commandText(r), Created: r.Created.Unix(), Ports: portSummary(r), Labels: labelsOf(r),
		State: r.State.Status, Status: statusText(&r.State, now), Health: healthSummary(&r.State),
		NetworkSettings: &api.NetworkSettingsSummary{Networks: q.endpoints(r)}, Mounts: mountPoints(r),
	}
	if r.Image.Manifest.Digest != "" {
		s.ImageManifestDescriptor = &r.Image.Manifest
	}
	s.HostConfig.NetworkMode = string(r.HostConfig.NetworkMode)
	s.HostConfig.Annotations = maps.Clone(r.HostConfig.Annotations)
	return s
}

func labelsOf(r *container.Record) map[string]string {
	if r.Config.Labels == nil {
		return map[string]string{}
	}
	return maps.Clone(r.Config.Labels)
}

// imageNames decides under which name a list shows each container's image. It
// asks for each name once per list.
type imageNames struct {
	images *image.Service
	ctx    context.Context
	ids    map[string]string
}

func (n *imageNames) of(r *container.Record) string {
	ref := r.Config.Image
	id, known := n.ids[ref]
	if !known {
		if img, err := n.images.Resolve(n.ctx, ref, ""); err == nil {
			id = img.ID.String()
		}
		n.ids[ref] = id
	}
	if id == r.Image.ID.String() {
		return ref
	}
	return r.Image.ID.String()
}

func commandText(r *container.Record) string {
	parts := []string{r.Path}
	for _, a := range r.Args {
		if strings.Contains(a, " ") {
			a = "'" + a + "'"
		}
		parts = append(parts, a)
	}
	return strings.Join(parts, " ")
}

// statusText is what ps shows under STATUS.
func statusText(st *container.State, now time.Time) string {
	ago := func(t time.Time) string { return units.HumanDuration(now.Sub(t)) }
	switch st.Status {
	case api.StateRunning:
		return "Up " + ago(st.StartedAt) + healthText(st.Health)
	case api.StatePaused:
		return "Up " + ago(st.StartedAt) + " (Paused)"
	case api.StateRestarting:
		return fmt.Sprintf("Restarting (%d) %s ago", st.ExitCode, ago(st.FinishedAt))
	case api.StateRemoving:
		return "Removal In Progress"
	case api.StateDead:
		return "Dead"
	case api.StateExited:
		return fmt.Sprintf("Exited (%d) %s ago", st.ExitCode, ago(st.FinishedAt))
	}
	return "Created"
}

// healthText is what ps shows of a running container's health.
func healthText(h *api.Health) string {
	switch {
	case h == nil:
		return ""
	case h.Status == api.Starting:
		return " (health: starting)"
	}
	return " (" + string(h.Status) + ")"
}

func healthSummary(st *container.State) *api.HealthSummary {
	if st.Health == nil {
		return &api.HealthSummary{Status: api.NoHealthcheck}
	}
	return &api.HealthSummary{Status: st.Health.Status, FailingStreak: st.Health.FailingStreak}
}

// portSummary lists published ports, and exposed ones without a public port.
func portSummary(r *container.Record) []api.PortSummary {
	out := []api.PortSummary{}
	if r.State.Sandbox == nil {
		return out
	}
	for port, bindings := range r.State.Sandbox.Ports {
		private := uint16(port.Num())
		if len(bindings) == 0 {
			out = append(out, api.PortSummary{PrivatePort: private, Type: string(port.Proto())})
		}
		for _, b := range bindings {
			p := api.PortSummary{PrivatePort: private, Type: string(port.Proto()), IP: b.HostIP}
			_, _ = fmt.Sscanf(b.HostPort, "%d", &p.PublicPort)
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b api.PortSummary) int {
		if c := int(a.PrivatePort) - int(b.PrivatePort); c != 0 {
			return c
		}
		if c := strings.Compare(a.Type, b.Type); c != 0 {
			return c
		}
		if c := int(a.PublicPort) - int(b.PublicPort); c != 0 {
			return c
		}
		return a.IP.Compare(b.IP)
	})
	return out
}

// endpoints describes a container's networks.
func (q *Queries) endpoints(r *container.Record) map[string]*apinetwork.EndpointSettings {
	return endpointSettings(r, q.networks.Find)
}

// mountPoints lists mounts by destination. Those of HostConfig.Tmpfs are not
// among them, as in Docker.
func mountPoints(r *container.Record) []api.MountPoint {
	out := []api.MountPoint{}
	for i := range r.Mounts {
		m := &r.Mounts[i]
		if m.Type == mount.TypeTmpfs && isHostConfigTmpfs(r, m.Destination) {
			continue
		}
		out = append(out, api.MountPoint{
			Type: m.Type, Name: m.Name, Source: m.Source, Destination: m.Destination, Driver: m.Driver, Mode: m.Mode,
			RW: !m.ReadOnly, Propagation: m.Propagation,
		})
	}
	return out
}

func isHostConfigTmpfs(r *container.Record, dst string) bool {
	for t := range r.HostConfig.Tmpfs {
		if filepath.Clean(t) == dst {
			return true
		}
	}
	return false
}

// sizes are the bytes of the writable layer, and of it with the image's.
func (q *Queries) sizes(ctx context.Context, c *container.Container, r *container.Record) (rw, rootfs int64, err error) {
	rw = diskUsage(c.Path(upperDir))
	if r.Damage != "" {
		return rw, rw, nil // of which image nobody knows
	}
	key := r.Image.ChainID.String()
	if size, ok := q.imageSizes.Load(key); ok {
		return rw, rw + size.(int64), nil
	}
	lower, err := q.images.Lower(ctx, imageOf(r))
	if err != nil {
		return 0, 0, err
	}
	var size int64
	for _, dir := range lower {
		size += diskUsage(dir)
	}
	q.imageSizes.Store(key, size)
	return rw, rw + size, nil
}

// diskUsage adds up the sizes of the files below dir, hard links once.
func diskUsage(dir string) (sum int64) {
	seen := map[uint64]struct{}{}
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil // it may be changing under us
		}
		info, err := e.Info()
		if err != nil {
			return nil
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
			if _, double := seen[st.Ino]; double {
				return nil
			}
			seen[st.Ino] = struct{}{}
		}
		sum += info.Size()
		return nil
	})
	return sum
}

// Inspect describes one container in full; with size also by how many bytes its files take, which have to be counted.
func (q *Queries) Inspect(ctx context.Context, name string, size bool) (*api.InspectResponse, error) {
	c, err := q.containers.Find(name)
	if err != nil {
		return nil, err
	}
	r := c.Load()
	config, host := *r.Config, *r.HostConfig
	host.Links = shownLinks(r, &host)
	res := &api.InspectResponse{
		ID: r.ID, Created: r.Created.UTC().Format(time.RFC3339Nano), Path: r.Path, Args: append([]string{}, r.Args...),
		State: stateOf(&r.State), Image: r.Image.ID.String(),
		ResolvConfPath: c.Path("resolv.conf"), HostnamePath: c.Path("hostname"), HostsPath: c.Path("hosts"),
		LogPath: shownLog(r), Name: "/" + r.Name, RestartCount: r.State.RestartCount, Driver: storageDriver, Platform: "linux",
		AppArmorProfile: r.State.AppArmorProfile, ExecIDs: q.execIDs(c), HostConfig: &host, Config: &config, Mounts: mountPoints(r),
		GraphDriver:     graphDriver(c, r),
		NetworkSettings: q.networkSettings(r),
	}
	if r.Damage != "" {
		res.State.Error = r.Damage
	}
	if r.Image.Manifest.Digest != "" {
		res.ImageManifestDescriptor = &r.Image.Manifest
	}
	if size {
		rw, rootfs, err := q.sizes(ctx, c, r)
		if err != nil {
			return nil, err
		}
		res.SizeRw, res.SizeRootFs = &rw, &rootfs
	}
	return res, nil
}

// graphDriver says where a container's files are. Its root is mounted in its own namespace only, so what leads to all of
// them, for programs of the host that look for MergedDir, is the kernel's way to there; it is there while the container runs.
func graphDriver(c *container.Container, r *container.Record) *storage.DriverData {
	data := map[string]string{"UpperDir": c.Path(upperDir), "WorkDir": c.Path(workDir)}
	if pid := stateOf(&r.State).Pid; pid > 0 {
		data["MergedDir"] = fmt.Sprintf("/proc/%d/root", pid)
	}
	return &storage.DriverData{Name: storageDriver, Data: data}
}

func stateOf(st *container.State) *api.State {
	out := &api.State{
		Status: st.Status, Running: st.Running(), Paused: st.Status == api.StatePaused, Restarting: st.Status == api.StateRestarting,
		OOMKilled: st.OOMKilled, Dead: st.Status == api.StateDead, ExitCode: st.ExitCode, Error: st.Error,
		StartedAt: st.StartedAt.UTC().Format(time.RFC3339Nano), FinishedAt: st.FinishedAt.UTC().Format(time.RFC3339Nano),
		Health: st.Health,
	}
	if st.Keeper != nil {
		out.Pid = st.Keeper.PID
	}
	return out
}

func (q *Queries) networkSettings(r *container.Record) *api.NetworkSettings {
	s := &api.NetworkSettings{Networks: q.endpoints(r), Ports: apinetwork.PortMap{}}
	if sb := r.State.Sandbox; sb != nil {
		s.SandboxID = r.ID
		if r.State.Keeper != nil {
			s.SandboxKey = fmt.Sprintf("/proc/%d/ns/net", r.State.Keeper.PID)
		}
		for p, b := range sb.Ports {
			s.Ports[p] = normalBindings(b)
		}
	}
	return s
}

// normalBindings shows an unpublished port as null.
func normalBindings(bs []apinetwork.PortBinding) []apinetwork.PortBinding {
	if len(bs) == 0 {
		return nil
	}
	out := slices.Clone(bs)
	for i := range out {
		if !out[i].HostIP.IsValid() {
			out[i].HostIP = netip.IPv4Unspecified()
		}
	}
	return out
}

// shownLog is where the container's log lies, for those who read the file itself:
// Docker tells it of json-file only.
func shownLog(r *container.Record) string {
	if logs.Private(r.HostConfig.LogConfig.Type) {
		return ""
	}
	return r.LogPath
}

func (q *Queries) execIDs(c *container.Container) []string {
	r := q.lives.of(c).live()
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.execs) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(r.execs))
}
