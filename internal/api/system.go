package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/moby/moby/api/types/system"
)

// builderVersion tells the client which builder to use: BuildKit, which /session and
// /grpc serve.
const builderVersion = builderBuildKit

func (h *Handler) ping(_ context.Context, w http.ResponseWriter, q *request) error {
	header := w.Header()
	header.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	header.Set("Pragma", "no-cache")
	header.Set("Builder-Version", builderVersion)
	header.Set("Swarm", "inactive")
	header.Set("Content-Type", mediaPlain)
	if q.Method == http.MethodHead {
		header.Set("Content-Length", "0")
		w.WriteHeader(http.StatusOK)
		return nil
	}
	header.Set("Content-Length", "2")
	// A client that has gone needs no answer.
	_, _ = w.Write([]byte("OK"))
	return nil
}

func (h *Handler) systemVersion(ctx context.Context, w http.ResponseWriter, q *request) error {
	version, err := h.deps.System.Version(ctx)
	if err != nil {
		return err
	}
	if newest, known := outgrown(q.Header.Get("User-Agent")); known {
		version.APIVersion = newest.String()
	}
	return writeJSON(w, http.StatusOK, version)
}

// outgrown is the version that a User-Agent is told to be the newest, as its program asks for the newest and reads what
// is gone from later ones. docker-compose 1, as Debian 12 has it, looks for the volumes in an image's ContainerConfig,
// which is there below 1.45, before it makes a container anew. Docker's Python SDK and Ansible's copy know nothing newer
// than 1.44 themselves, but hand answers over as they are to scripts, which read a container's address in
// NetworkSettings, below 1.52.
func outgrown(agent string) (newest version, known bool) {
	switch {
	case strings.HasPrefix(agent, "docker-compose/1."):
		return v(44), true
	case pythonSDK(agent):
		return v(51), true
	default:
		return version{}, false
	}
}

func (h *Handler) systemInfo(ctx context.Context, w http.ResponseWriter, q *request) error {
	info, err := h.deps.System.Info(ctx)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, infoFor(info, q.version))
}

// infoFor gives info the shape of an API version.
func infoFor(info *system.Info, asked version) any {
	out := *info
	out.Labels = list(out.Labels)
	out.SecurityOptions = list(out.SecurityOptions)
	out.DriverStatus = list(out.DriverStatus)
	if asked.below(44) {
		runtimes := make(map[string]system.RuntimeWithStatus, len(out.Runtimes))
		for name, rt := range out.Runtimes {
			runtimes[name] = system.RuntimeWithStatus{Runtime: rt.Runtime}
		}
		out.Runtimes = runtimes
		out.CDISpecDirs = nil
	} else {
		out.CDISpecDirs = list(out.CDISpecDirs)
	}
	if asked.below(46) {
		out.Containerd = nil
	}
	if asked.below(53) {
		out.NRI = nil
	}
	if asked.from(50) {
		return &out
	}
	out.DiscoveredDevices = nil
	if asked.from(49) {
		return &infoBelow150{Info: &out}
	}
	out.FirewallBackend = nil
	return &infoBelow149{
		infoBelow150:     infoBelow150{Info: &out},
		ContainerdCommit: legacyCommit{out.ContainerdCommit.ID, out.ContainerdCommit.ID},
		RuncCommit:       legacyCommit{out.RuncCommit.ID, out.RuncCommit.ID},
		InitCommit:       legacyCommit{out.InitCommit.ID, out.InitCommit.ID},
	}
}

// infoBelow150 has the fields that told of the br_netfilter module, always
// false since it is loaded on demand.
type infoBelow150 struct {
	*system.Info
	BridgeNfIptables  bool
	BridgeNfIp6tables bool
}

// infoBelow149 has the commits in the form that names an expected one.
type infoBelow149 struct {
	infoBelow150
	ContainerdCommit legacyCommit
	RuncCommit       legacyCommit
	InitCommit       legacyCommit
}

type legacyCommit struct {
	ID       string
	Expected string
}
