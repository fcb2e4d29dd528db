package container

import (
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	apinetwork "github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/keeper"
	"github.com/cleatlabs/cleat/internal/network"
)

// Layout is the version of the files this engine writes. An engine refuses a
// record of a later layout instead of misreading it.
const Layout = 1

// Record is everything durable about a container. A *Record obtained from
// Load is shared and must not be modified, nor anything it points to.
type Record struct {
	Definition
	State State
	// Damage says why the definition is not at hand, and what to do; it is "" of nearly all. See Whole.
	Damage string
}

// Networks are the requested network attachments as they are now, by network name.
func (r *Record) Networks() map[string]*apinetwork.EndpointSettings {
	if r.State.Endpoints != nil {
		return r.State.Endpoints
	}
	return r.Definition.Endpoints
}

// Definition is what a container is. It changes by Rename and Redefine.
type Definition struct {
	Layout  int
	ID      string
	Name    string // without leading slash
	Created time.Time
	// Image is what the container was made from.
	Image Image
	// Path and Args are the command line, entrypoint and command joined.
	Path string
	Args []string
	// Config is merged with the image's; HostConfig has its defaults filled in.
	Config     *container.Config
	HostConfig *container.HostConfig
	// Endpoints are the requested network attachments, by network name.
	Endpoints map[string]*apinetwork.EndpointSettings
	// Mounts are resolved, sorted so that parents come before children.
	Mounts []Mount
	// LogPath is where its log is kept, whatever the log driver; empty with none.
	LogPath string
	// Project is the quota's of a writable layer of limited size, 0 of one without.
	Project uint32 `json:",omitempty"`
}

// Image identifies a container's image.
type Image struct {
	ID       digest.Digest // of the target descriptor, as the API's image id
	Ref      string        // familiar name at create; empty if created by id
	Platform ocispec.Platform
	Manifest ocispec.Descriptor
	ChainID  digest.Digest
}

// Mount is one resolved mount point. Volumes exist when the record does.
type Mount struct {
	Type        mount.Type
	Name        string `json:",omitempty"` // of a volume
	Source      string `json:",omitempty"` // on the host; a volume's data directory
	Destination string
	Driver      string `json:",omitempty"`
	Mode        string `json:",omitempty"` // as the client wrote it
	ReadOnly    bool   `json:",omitempty"`
	// ReadOnlyNonRecursive leaves submounts writable.
	ReadOnlyNonRecursive bool              `json:",omitempty"`
	NonRecursive         bool              `json:",omitempty"`
	Propagation          mount.Propagation `json:",omitempty"`
	Options              []string          `json:",omitempty"` // of a tmpfs
	Subpath              string            `json:",omitempty"` // below a volume's or an image's root
	CopyUp               bool              `json:",omitempty"` // fill an empty volume from the image
	CreateSource         bool              `json:",omitempty"` // make a missing bind source (Binds only)
	Anonymous            bool              `json:",omitempty"` // removed by rm -v
	IDMap                *IDMap            `json:",omitempty"` // of a bind
	Image                *Image            `json:",omitempty"` // of a mount of type image
}

// IDMap makes the files of a user and a group on the host those of the container's
// own user and group.
type IDMap struct {
	Owner    bool // of the source; else UID and GID
	UID, GID int
}

// Status is a container's place in its life, in Docker's words.
type Status = container.ContainerState

// State is what has happened to a container.
type State struct {
	Status     Status
	ExitCode   int
	Error      string `json:",omitempty"`
	OOMKilled  bool   `json:",omitempty"`
	StartedAt  time.Time
	FinishedAt time.Time
	// Keeper identifies the running process; nil when there is none.
	Keeper *keeper.Record `json:",omitempty"`
	// Sandbox is the network attachment of the running process.
	Sandbox *network.Sandbox `json:",omitempty"`
	// Endpoints take the place of the definition's once a network was connected or
	// disconnected; nil until then.
	Endpoints map[string]*apinetwork.EndpointSettings
	// RestartCount counts restarts by policy since the last start by hand.
	RestartCount int `json:",omitempty"`
	// StoppedByHand is set by stop and kill and cleared by start: it is what
	// tells unless-stopped and always apart after an engine restart.
	StoppedByHand bool `json:",omitempty"`
	// HealthRestart says that the run is being ended because it is unhealthy, to
	// be started again.
	HealthRestart bool `json:",omitempty"`
	// Health is what health checks have found, nil without one. It is replaced,
	// never changed in place. It is not kept here: it changes often, and does not
	// outlive the boot.
	Health *container.Health `json:"-"`
	// AppArmorProfile is what the last start has given the container, and execs get: the default may have been loaded or
	// removed since. It is "" where AppArmor was off.
	AppArmorProfile string `json:",omitempty"`
	// VolumesFilled says that copy-up was done: a volume emptied later stays so.
	VolumesFilled bool `json:",omitempty"`
	// LimitsPending says that the limits of the running control group may not be
	// those of the definition yet.
	LimitsPending bool `json:",omitempty"`
}

// Running says whether the container counts as running. One that waits to be
// restarted by its policy does, as in Docker.
func (s *State) Running() bool {
	return s.Status == container.StateRunning || s.Status == container.StatePaused ||
		s.Status == container.StateRestarting
}

// Alive says whether a process of the container exists.
func (s *State) Alive() bool {
	return s.Status == container.StateRunning || s.Status == container.StatePaused
}
