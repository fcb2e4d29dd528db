package solve

import (
	"io"

	"github.com/moby/buildkit/client/llb"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	spb "github.com/moby/buildkit/sourcepolicy/pb"

	"github.com/cleatlabs/cleat/client/build/option"
)

// Target is one thing to build, as a command line or a bake file describes it.
type Target struct {
	Name string // shown before its steps if several are built

	Context          string    // a directory, URL, or "-"
	Stdin            io.Reader // what "-" stands for
	Dockerfile       string    // a path, relative to the working directory; "-", an URL, or empty
	DockerfileInline string    // its text, instead
	Contexts         map[string]string

	Args    map[string]string
	Labels  map[string]string
	Tags    []string
	Stage   string // the stage to build, the last by default
	Proxies map[string]string

	Platforms     []string
	NoCache       bool
	NoCacheFilter []string
	Pull          bool
	Outputs       []option.Output
	Push, Load    bool
	CacheFrom     []option.Cache
	CacheTo       []option.Cache
	Secrets       []option.Secret
	SSH           []option.SSH
	Attests       map[string]*string
	Annotations   map[string]string

	Network      string
	Hosts        []string
	CgroupParent string
	ShmSize      int64 // bytes
	Ulimits      []string
	Resources    map[string]string
	Allow        []string // entitlements

	Call         *option.Call // a question instead of a build
	Invoke       *Invoke      // where the build stops
	SourcePolicy *spb.Policy
	NoOutput     bool // where no output was asked for, keep the result in the cache only

	// Links are other targets whose results are contexts of this one, by the contexts' names.
	Links map[string]string
	// Inputs are those results.
	Inputs map[string]Input

	hold func(*gateway.Result) // keeps the result while others use it
}

// Input is what a target takes from another one.
type Input struct {
	States   map[string]llb.State // by platform; one under the empty name if there is only one
	Metadata map[string]string    // by the same, as the frontend wants it
}
