package build

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	controlapi "github.com/moby/buildkit/api/services/control"
	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	"github.com/moby/buildkit/util/entitlements"
	"github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/failure"
)

// Request is a build as a client of Docker's API asks for it, in one call.
type Request struct {
	// ID is the client's name for the build, by which it may be cancelled; "" is none.
	ID string
	// Session is the id of a session that the client serves; "" is none.
	Session string
	// Context is a tar archive with the files of the build, for a Remote of "". Compression
	// is recognised.
	Context io.Reader
	// Remote is where the files are instead: a URL of a tar archive, a Dockerfile or a
	// git repository, or [RemoteSession] or [RemoteUpload].
	Remote string

	// Dockerfile is the path of the Dockerfile, Target the stage to build and Platform
	// what it is built for ("linux/arm64", a comma list for several). "" is the default.
	Dockerfile, Target, Platform string
	// Args are the build arguments; those without a value are ignored. Labels are added
	// to the image.
	Args   map[string]*string
	Labels map[string]string
	// CacheFrom names images that carry a cache.
	CacheFrom []string
	// NoCache does every step again, Pull asks the registry for base images that are
	// here.
	NoCache, Pull bool
	// NetworkMode is the network of steps: "" or default, host, none.
	NetworkMode string
	// ExtraHosts are lines for /etc/hosts as NAME:ADDRESS or NAME=ADDRESS.
	ExtraHosts []string
	// Limits hold for each step.
	Limits Limits

	// Tags name the image.
	Tags []string
	// Outputs say what becomes of the result; none is an image here, and there is at
	// most one.
	Outputs []Output
}

// Limits are what a step may use; zero values are no limit. The units are those of
// Docker's API: bytes, shares, microseconds.
type Limits struct {
	Memory, MemorySwap, ShmSize          int64
	CPUShares, CPUPeriod, CPUQuota       int64
	CpusetCpus, CpusetMems, CgroupParent string
	Ulimits                              []*container.Ulimit
}

// Output is an exporter and its attributes.
type Output struct {
	Type  string
	Attrs map[string]string
}

const (
	// RemoteSession says that the files are asked of the client's session.
	RemoteSession = "client-session"
	// RemoteUpload says that the files come in another call, whose ID is RemoteUpload, a
	// colon and the ID of the build.
	RemoteUpload = "upload-request"
	// outputNothing is an output that leaves a cache only.
	outputNothing = "cacheonly"
)

// checkRemote refuses a context that nobody can bring.
func (r *Request) checkRemote() error {
	switch {
	case r.Remote == "":
		return nil
	case r.Remote == RemoteSession && r.Session == "":
		return failure.Invalid("the remote %q needs the parameter session", RemoteSession)
	case r.Remote == RemoteUpload && r.ID == "":
		return failure.Invalid("the remote %q needs the parameter buildid", RemoteUpload)
	case r.Remote == RemoteSession, r.Remote == RemoteUpload:
		return nil
	}
	return CheckURL(r.Remote)
}

// CheckURL refuses what is neither a git repository nor something that HTTP gets.
func CheckURL(remote string) error {
	if strings.HasPrefix(remote, "http://") || strings.HasPrefix(remote, "https://") {
		return nil
	}
	if _, git, _ := dfgitutil.ParseGitRef(remote); git {
		return nil
	}
	return failure.Invalid("remoteURL (%s) could not be recognized as URL: give that of a git repository, an archive or a Dockerfile", remote)
}

// solveRequest makes BuildKit's form of the request, without the attribute context.
func (b *Builder) solveRequest(r *Request, ref string) (*controlapi.SolveRequest, error) {
	attrs, err := b.Attributes(r)
	if err != nil {
		return nil, err
	}
	req := &controlapi.SolveRequest{
		Ref: ref, Session: r.Session, Frontend: "dockerfile.v0", FrontendAttrs: attrs, Cache: &controlapi.CacheOptions{},
	}
	if on := r.Args["BUILDKIT_INLINE_CACHE"]; on != nil {
		if wanted, err := strconv.ParseBool(*on); err == nil && wanted {
			req.Cache.Exports = append(req.Cache.Exports, &controlapi.CacheOptionsEntry{Type: "inline"})
		}
	}
	if r.NetworkMode == "host" {
		req.Entitlements = append(req.Entitlements, entitlements.EntitlementNetworkHost.String())
	}
	out := Output{Type: ExporterMoby}
	switch len(r.Outputs) {
	case 0:
	case 1:
		out = r.Outputs[0]
	default:
		return nil, failure.Invalid("multiple outputs not supported")
	}
	if out.Type == outputNothing {
		return req, nil
	}
	exporter := &controlapi.Exporter{Type: out.Type, Attrs: map[string]string{}}
	for k, v := range out.Attrs {
		exporter.Attrs[k] = v
	}
	if makesImage(out.Type) && len(r.Tags) > 0 {
		exporter.Attrs["name"] = strings.Join(r.Tags, ",")
	}
	req.Exporters = []*controlapi.Exporter{exporter}
	return req, nil
}

func makesImage(exporter string) bool {
	return exporter == ExporterMoby || exporter == bkclient.ExporterImage
}

// Attributes are what the Dockerfile frontend is told of a request, but for the context.
// Its errors are errdefs.ErrInvalidArgument.
func (b *Builder) Attributes(r *Request) (map[string]string, error) {
	attrs := map[string]string{"image-resolve-mode": "local"}
	if r.Pull {
		attrs["image-resolve-mode"] = "pull"
	}
	if r.NoCache {
		attrs["no-cache"] = ""
	}
	if r.Dockerfile != "" && r.Dockerfile != "." {
		attrs["filename"] = r.Dockerfile
	}
	for key, value := range map[string]string{
		"target": r.Target, "platform": r.Platform, "cache-from": strings.Join(r.CacheFrom, ","),
		"cgroup-parent": r.Limits.CgroupParent, "cpusetcpus": r.Limits.CpusetCpus, "cpusetmems": r.Limits.CpusetMems,
	} {
		if value != "" {
			attrs[key] = value
		}
	}
	for key, value := range map[string]int64{
		"memory": r.Limits.Memory, "memswap": r.Limits.MemorySwap, "shm-size": r.Limits.ShmSize,
		"cpushares": r.Limits.CPUShares, "cpuperiod": r.Limits.CPUPeriod, "cpuquota": r.Limits.CPUQuota,
	} {
		if value != 0 {
			attrs[key] = strconv.FormatInt(value, 10)
		}
	}
	for name, value := range r.Args {
		if value != nil {
			attrs["build-arg:"+name] = *value
		}
	}
	for name, value := range r.Labels {
		attrs["label:"+name] = value
	}
	switch r.NetworkMode {
	case "", "default":
	case "host", "none":
		attrs["force-network-mode"] = r.NetworkMode
	default:
		return nil, failure.Invalid("network mode %q not supported by buildkit: choose default, host or none", r.NetworkMode)
	}
	hosts, err := b.extraHosts(r.ExtraHosts)
	if err != nil {
		return nil, err
	}
	if hosts != "" {
		attrs["add-hosts"] = hosts
	}
	if len(r.Limits.Ulimits) > 0 {
		var list []string
		for _, u := range r.Limits.Ulimits {
			list = append(list, fmt.Sprintf("%s=%d:%d", u.Name, u.Soft, u.Hard))
		}
		attrs["ulimit"] = strings.Join(list, ",")
	}
	return attrs, nil
}

// hostGateway stands for the host's address as seen from a step.
const hostGateway = "host-gateway"

// extraHosts writes lines for /etc/hosts as the frontend reads them.
func (b *Builder) extraHosts(given []string) (string, error) {
	var out []string
	for _, h := range given {
		name, address, found := strings.Cut(h, "=")
		if !found {
			name, address, found = strings.Cut(h, ":")
		}
		address = strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
		if !found || name == "" {
			return "", failure.Invalid("invalid host %q: write NAME:ADDRESS", h)
		}
		if address == hostGateway {
			if !b.cfg.HostGateway.IsValid() {
				return "", failure.Invalid("unable to derive the IP value for %s", hostGateway)
			}
			address = b.cfg.HostGateway.String()
		}
		if net.ParseIP(address) == nil {
			return "", failure.Invalid("invalid host %q: %q is not an address", h, address)
		}
		out = append(out, name+"="+address)
	}
	return strings.Join(out, ","), nil
}
