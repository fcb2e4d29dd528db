package api

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	apibuild "github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/jsonstream"
	networktypes "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	volumetypes "github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/internal/build"
	"github.com/cleatlabs/cleat/internal/changes"
	"github.com/cleatlabs/cleat/internal/classic"
	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/internal/image"
	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/registryclient"
	"github.com/cleatlabs/cleat/internal/stats"
	"github.com/cleatlabs/cleat/internal/volume"
)

// Lifecycle creates containers and changes whether they run.
type Lifecycle interface {
	Create(ctx context.Context, req engine.CreateRequest) (id string, warnings []string, err error)
	Start(ctx context.Context, name string) error
	Stop(ctx context.Context, name string, opts engine.StopOptions) error
	Restart(ctx context.Context, name string, opts engine.StopOptions) error
	Kill(ctx context.Context, name, signal string) error
	Pause(ctx context.Context, name string) error
	Unpause(ctx context.Context, name string) error
}

// Upkeep does what is left to do with a container that exists.
type Upkeep interface {
	Rename(ctx context.Context, name, newName string) error
	Update(ctx context.Context, name string, req container.UpdateConfig) (warnings []string, err error)
	Remove(ctx context.Context, name string, opts engine.RemoveOptions) error
	// Wait has registered the waiter when it returns. The channel gives one
	// result at most, and none once ctx has ended, which it must in the end.
	Wait(ctx context.Context, name string, cond container.WaitCondition) (<-chan engine.WaitResult, error)
	Delivery(name string) func(context.Context)
	Resize(ctx context.Context, name string, rows, cols uint16) error
}

// Queries describe containers. What they return belongs to the caller, who may
// change it, but not what hangs below the endpoint settings.
type Queries interface {
	List(ctx context.Context, opts engine.ListOptions) ([]*container.Summary, error)
	Inspect(ctx context.Context, name string, size bool) (*container.InspectResponse, error)
	Top(ctx context.Context, name, args string) (*container.TopResponse, error)
}

// Statistics measure what containers use. What emit is given is shared and must not
// be changed.
type Statistics interface {
	Stats(ctx context.Context, name string, opts stats.Options, emit func(*container.StatsResponse) error) error
}

// Streams carry a container's input and output.
type Streams interface {
	Attach(ctx context.Context, name string, opts engine.AttachOptions) (*engine.AttachSession, error)
	Logs(ctx context.Context, name string, opts logs.ReadOptions) (*engine.LogSession, error)
}

// Execs run further processes in containers.
type Execs interface {
	ExecCreate(ctx context.Context, name string, req container.ExecCreateRequest) (id string, err error)
	// ExecStart returns nil as session if opts.Detach is set.
	ExecStart(ctx context.Context, id string, opts engine.ExecStartOptions) (*engine.ExecSession, error)
	ExecInspect(ctx context.Context, id string) (*container.ExecInspectResponse, error)
	ExecResize(ctx context.Context, id string, rows, cols uint16) error
}

// Files copies files into and out of containers.
type Files interface {
	StatPath(ctx context.Context, name, path string) (*container.PathStat, error)
	// ArchivePath finds the path; what it returns is packed or closed.
	ArchivePath(ctx context.Context, name, path string) (*engine.PathArchive, error)
	ExtractTo(ctx context.Context, name, path string, r io.Reader, opts engine.CopyOptions) error
}

// Committer makes images and archives of what containers have in their filesystems.
type Committer interface {
	Commit(ctx context.Context, req engine.CommitRequest) (id string, err error)
	Changes(ctx context.Context, name string) ([]changes.Change, error)
	// Export opens the filesystem; what it returns is closed.
	Export(ctx context.Context, name string) (*engine.Export, error)
}

// Pruning removes what is not in use.
type Pruning interface {
	PruneContainers(ctx context.Context, filters map[string][]string) (*container.PruneReport, error)
	PruneImages(ctx context.Context, filters map[string][]string) (*imagetypes.PruneReport, error)
	// BuildCachePruned tells the events' readers of what [Builds.Prune] has freed, in bytes.
	BuildCachePruned(reclaimed uint64)
}

// DiskUsage measures what takes how much of the disk.
type DiskUsage interface {
	DiskUsage(ctx context.Context, kinds engine.DiskUsageKinds) (*engine.DiskUsage, error)
}

// Registries are where images are elsewhere.
type Registries interface {
	// Login returns a token that is to be kept in place of the password, if any.
	Login(ctx context.Context, auth *registry.AuthConfig) (token string, err error)
	Search(ctx context.Context, req registryclient.SearchRequest) ([]registry.SearchResult, error)
	Distribution(ctx context.Context, ref string, auth *registry.AuthConfig) (*registry.DistributionInspect, error)
}

// System describes the engine itself.
type System interface {
	Info(ctx context.Context) (*system.Info, error)
	Version(ctx context.Context) (system.VersionResponse, error)
}

// Events gives what happened and what happens, without gap or double.
type Events interface {
	Subscribe(since, until time.Time, filter func(events.Message) bool) (past []events.Message, live <-chan events.Message, cancel func())
}

// ImageStore knows the images that are here.
type ImageStore interface {
	List(ctx context.Context, req image.ListRequest) ([]imagetypes.Summary, error)
	Inspect(ctx context.Context, ref, platform string) (*imagetypes.InspectResponse, error)
	History(ctx context.Context, ref, platform string) ([]imagetypes.HistoryResponseItem, error)
	Tag(ctx context.Context, src, repo, tag string) error
	Remove(ctx context.Context, ref string, opts image.RemoveOptions) ([]imagetypes.DeleteResponse, error)
}

// ImageAttestations tells what is attested about images.
type ImageAttestations interface {
	Attestations(ctx context.Context, ref string, req image.AttestationsRequest) ([]imagetypes.AttestationStatement, error)
}

// ImageTransfer brings images here and sends them away. progress may be called by several
// goroutines at once, and not after the call has returned.
type ImageTransfer interface {
	Pull(ctx context.Context, req image.PullRequest, progress func(jsonstream.Message)) error
	Push(ctx context.Context, req image.PushRequest, progress func(jsonstream.Message)) error
	Load(ctx context.Context, r io.Reader, opts image.LoadOptions, progress func(jsonstream.Message)) error
	// Save finds the images; what it returns is closed.
	Save(ctx context.Context, refs, platforms []string) (*image.Saving, error)
	Import(ctx context.Context, req engine.ImportRequest, status func(string)) (id string, err error)
}

// Volumes are the named and anonymous volumes.
type Volumes interface {
	Create(ctx context.Context, r volume.Request) (*volumetypes.Volume, error)
	List(ctx context.Context, filters map[string][]string) (list []*volumetypes.Volume, warnings []string, err error)
	Inspect(ctx context.Context, name string) (*volumetypes.Volume, error)
	Remove(ctx context.Context, name string, force bool) error
	Prune(ctx context.Context, filters map[string][]string) (*volumetypes.PruneReport, error)
}

// VolumeCopies is what this engine does with volumes and Docker does not.
type VolumeCopies interface {
	Clone(ctx context.Context, r volume.CloneRequest) (*volumetypes.Volume, volume.Copying, error)
	Rename(ctx context.Context, old, name string) (*volumetypes.Volume, error)
	Snapshot(ctx context.Context, name, snapshot string) (volume.Snapshot, volume.Copying, error)
	Snapshots(ctx context.Context, name string) ([]volume.Snapshot, error)
	RemoveSnapshot(ctx context.Context, name, snapshot string) error
	Restore(ctx context.Context, name, snapshot string) (volume.Copying, error)
	Export(ctx context.Context, name, snapshot string) (*volume.Export, error)
	Import(ctx context.Context, name string, labels map[string]string, r io.Reader) (*volumetypes.Volume, error)
}

// OwnFiles gives content to the files that the engine keeps for containers, which Docker's does not.
type OwnFiles interface {
	FillFiles(ctx context.Context, name string, r io.Reader) error
}

// Networks are the networks that exist.
type Networks interface {
	List(ctx context.Context, filters map[string][]string) ([]networktypes.Summary, error)
	Inspect(ctx context.Context, nameOrID string) (networktypes.Inspect, error)
	Create(ctx context.Context, req networktypes.CreateRequest) (id string, warnings []string, err error)
	Remove(ctx context.Context, nameOrID string) error
	Prune(ctx context.Context, filters map[string][]string) (removed []string, err error)
}

// Connections connect containers to networks.
type Connections interface {
	// Connect takes what is wished of the endpoint; nil wishes nothing.
	Connect(ctx context.Context, network, container string, endpoint *networktypes.EndpointSettings) error
	Disconnect(ctx context.Context, network, container string, force bool) error
}

// Builds builds images with BuildKit.
type Builds interface {
	// ServeConn and ServeHTTP serve BuildKit's own API; where the builder cannot be opened, they answer calls with why.
	ServeConn(ctx context.Context, conn net.Conn) error
	ServeHTTP(w http.ResponseWriter, r *http.Request)
	// ServeSession returns when the client closes its session.
	ServeSession(ctx context.Context, conn net.Conn, header http.Header) error
	HasSession(id string) bool
	// Build builds in one call and reports to progress until it returns.
	Build(ctx context.Context, req build.Request, progress build.Progress) error
	Cancel(id string)
	Prune(ctx context.Context, req build.PruneRequest) (*apibuild.CachePruneReport, error)
}

// ClassicBuilds builds images for clients that do not speak BuildKit. An error that is a
// [*jsonstream.Error] is one of a build that has begun.
type ClassicBuilds interface {
	Build(ctx context.Context, req classic.Request, emit func(jsonstream.Message)) error
}

// Deps is everything that the door opens to. All interfaces must be set.
type Deps struct {
	Lifecycle   Lifecycle
	Upkeep      Upkeep
	Queries     Queries
	Stats       Statistics
	Streams     Streams
	Execs       Execs
	System      System
	Files       Files
	Committer   Committer
	Pruning     Pruning
	DiskUsage   DiskUsage
	Registries  Registries
	Events      Events
	Images      ImageStore
	Transfer    ImageTransfer
	Attested    ImageAttestations
	Volumes     Volumes
	Networks    Networks
	Connections Connections

	// DataRoot is where the engine keeps what it has; of that filesystem full disks are told. Absolute.
	DataRoot string

	// Builds is BuildKit, ClassicBuilds an older interface to it.
	Builds        Builds
	ClassicBuilds ClassicBuilds

	// NetworkChecks look at what stands in a container's way.
	NetworkChecks NetworkChecks

	// VolumeCopies is the same service as Volumes.
	VolumeCopies VolumeCopies
	// OwnFiles fills mounts of type file.
	OwnFiles OwnFiles

	// ServerVersion is the Docker-shaped version that the Server header of each
	// answer names.
	ServerVersion string
	// CgroupV1 tells that containers live in cgroup v1 hierarchies: clients below
	// 1.41 then expect the host's cgroup namespace.
	CgroupV1 bool
	// Log takes what went wrong inside the engine. Nil discards it.
	Log *slog.Logger
}
