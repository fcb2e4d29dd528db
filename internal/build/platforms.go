package build

import (
	"slices"
	"sync"
	"time"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/worker"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	archvariant "github.com/tonistiigi/go-archvariant"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/kernel"
)

// platformsAge is how long the list of platforms is believed: registrations of emulators
// change while the engine runs.
const platformsAge = 10 * time.Second

// machine knows what this machine can run. BuildKit would find out, every time that it is
// asked, by running a program for each architecture.
type machine struct {
	mu   sync.Mutex
	list []ocispec.Platform
	read time.Time
}

// platforms lists what can be built for, the machine's own first.
func (m *machine) platforms() []ocispec.Platform {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.list == nil || time.Since(m.read) > platformsAge {
		m.list, m.read = supportedPlatforms(kernel.Emulated()), time.Now()
	}
	return m.list
}

func supportedPlatforms(emulated []string) []ocispec.Platform {
	own := nativePlatform()
	list := []ocispec.Platform{own}
	add := func(p ocispec.Platform) {
		list = append(list, ocispec.Platform{OS: "linux", Architecture: p.Architecture, Variant: p.Variant})
	}
	if own.Architecture == "amd64" {
		for _, level := range amd64Levels(archvariant.AMD64Variant()) {
			add(ocispec.Platform{Architecture: "amd64", Variant: level})
		}
		add(ocispec.Platform{Architecture: "386"})
	}
	for _, arch := range emulated {
		switch arch {
		case own.Architecture:
		case "386":
			if own.Architecture != "amd64" {
				add(ocispec.Platform{Architecture: arch})
			}
		case "arm":
			add(ocispec.Platform{Architecture: arch, Variant: "v7"})
			add(ocispec.Platform{Architecture: arch, Variant: "v6"})
		default:
			add(ocispec.Platform{Architecture: arch})
		}
	}
	return list
}

// nativePlatform is the machine's, in the form that images have.
func nativePlatform() ocispec.Platform {
	p := platforms.Normalize(platforms.DefaultSpec())
	p.OSVersion, p.OSFeatures = "", nil
	return p
}

// amd64Levels are the levels of the architecture below and at the machine's own.
func amd64Levels(own string) []string {
	switch own {
	case "v2":
		return []string{"v2"}
	case "v3":
		return []string{"v2", "v3"}
	case "v4":
		return []string{"v2", "v3", "v4"}
	}
	return nil
}

// Platforms lists what can be built for.
func (w *imageWorker) Platforms(bool) []ocispec.Platform { return w.machine.platforms() }

// ResolveOp makes the step of a vertex. A step for a platform whose programs do not run
// here is refused: they would fail with "exec format error", which tells nobody what to
// do.
func (w *imageWorker) ResolveOp(v solver.Vertex, bridge frontend.FrontendLLBBridge, sessions *session.Manager, proxy worker.ProxyOpt) (solver.Op, error) {
	if op, ok := v.Sys().(*pb.Op); ok && op.GetExec() != nil && op.Platform != nil {
		asked := ocispec.Platform{OS: op.Platform.OS, Architecture: op.Platform.Architecture, Variant: op.Platform.Variant}
		if !w.machine.runs(asked) {
			return nil, failure.Invalid("no step can be run for the platform %s on this machine: register an emulator for it with the kernel "+
				"(Debian: the packages qemu-user-static and binfmt-support)", platforms.Format(asked))
		}
	}
	return w.Worker.ResolveOp(v, bridge, sessions, proxy)
}

// runs reports whether programs for a platform run here. For a variant of an architecture
// that is there, the program itself finds out.
func (m *machine) runs(asked ocispec.Platform) bool {
	asked = platforms.Normalize(asked)
	return slices.ContainsFunc(m.platforms(), func(p ocispec.Platform) bool {
		return p.OS == asked.OS && p.Architecture == asked.Architecture
	})
}
