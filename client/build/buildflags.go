package build

import (
	"fmt"
	"os"

	"github.com/docker/cli/opts"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/cleatlabs/cleat/client/build/option"
	"github.com/cleatlabs/cleat/client/build/solve"
)

// buildFlags are the flags of build.
type buildFlags struct {
	hosts, allow, annotations, args, cacheFrom, cacheTo, contexts, labels []string
	noCacheFilter, outputs, platforms, secrets, ssh, tags, attests        []string
	resources, oldResources                                               []string

	cgroupParent, file, iidFile, network, target, sbom, provenance, call, invoke string

	shm     opts.MemBytes
	ulimits *opts.UlimitOpt

	load, push, quiet, check bool
	shared                   sharedFlags
}

// sharedFlags are those that build and bake have in common.
type sharedFlags struct {
	progress, metadataFile string
	noCache, pull          bool
}

func (s *sharedFlags) install(fs *pflag.FlagSet) {
	fs.BoolVar(&s.noCache, "no-cache", false, "Do not use cache when building the image")
	fs.StringVar(&s.progress, "progress", "auto", `Set type of progress output ("auto", "none", "plain", "quiet", "rawjson", "tty"). Use plain to show container output`)
	fs.BoolVar(&s.pull, "pull", false, "Always attempt to pull all referenced images")
	fs.StringVar(&s.metadataFile, "metadata-file", "", "Write build result metadata to a file")
}

func (f *buildFlags) install(fs *pflag.FlagSet) {
	var platforms []string
	if env := os.Getenv("DOCKER_DEFAULT_PLATFORM"); env != "" {
		platforms = []string{env}
	}
	fs.StringSliceVar(&f.hosts, "add-host", nil, `Add a custom host-to-IP mapping (format: "host:ip")`)
	fs.StringArrayVar(&f.allow, "allow", nil, `Allow extra privileged entitlement (e.g., "network.host", "security.insecure", "buildx.local.delete")`)
	fs.StringArrayVar(&f.annotations, "annotation", nil, "Add annotation to the image")
	fs.StringArrayVar(&f.attests, "attest", nil, `Attestation parameters (format: "type=sbom,generator=image")`)
	fs.StringArrayVar(&f.args, "build-arg", nil, "Set build-time variables")
	fs.StringArrayVar(&f.contexts, "build-context", nil, "Additional build contexts (e.g., name=path)")
	fs.StringArrayVar(&f.cacheFrom, "cache-from", nil, `External cache sources (e.g., "user/app:cache", "type=local,src=path/to/dir")`)
	fs.StringArrayVar(&f.cacheTo, "cache-to", nil, `Cache export destinations (e.g., "user/app:cache", "type=local,dest=path/to/dir")`)
	fs.StringVar(&f.call, "call", "build", `Set method for evaluating build ("check", "outline", "targets")`)
	fs.StringVar(&f.cgroupParent, "cgroup-parent", "", `Set the parent cgroup for the "RUN" instructions during build`)
	fs.BoolVar(&f.check, "check", false, `Shorthand for "--call=check"`)
	fs.StringVarP(&f.file, "file", "f", "", `Name of the Dockerfile (default: "PATH/Dockerfile")`)
	fs.StringVar(&f.iidFile, "iidfile", "", "Write the image ID to a file")
	fs.StringVar(&f.invoke, "invoke", "", `Run a shell in the container of the step that fails ("on-error"), or a command in the result or that container`)
	fs.StringArrayVar(&f.labels, "label", nil, "Set metadata for an image")
	fs.BoolVar(&f.load, "load", false, `Shorthand for "--output=type=docker"`)
	fs.StringVar(&f.network, "network", "default", `Set the networking mode for the "RUN" instructions during build`)
	fs.StringArrayVar(&f.noCacheFilter, "no-cache-filter", nil, "Do not cache specified stages")
	fs.StringArrayVarP(&f.outputs, "output", "o", nil, `Output destination (format: "type=local,dest=path")`)
	fs.StringArrayVar(&f.platforms, "platform", platforms, "Set target platform for build")
	fs.StringVar(&f.provenance, "provenance", "", `Shorthand for "--attest=type=provenance"`)
	fs.BoolVar(&f.push, "push", false, `Shorthand for "--output=type=registry,unpack=false"`)
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "Suppress the build output and print image ID on success")
	fs.StringArrayVar(&f.resources, "resource", nil, `Resource limits for build containers (format: "memory=2g", "cpu-quota=50000")`)
	fs.StringVar(&f.sbom, "sbom", "", `Shorthand for "--attest=type=sbom"`)
	fs.StringArrayVar(&f.secrets, "secret", nil, `Secret to expose to the build (format: "id=mysecret[,src=/local/secret]")`)
	fs.Var(&f.shm, "shm-size", "Shared memory size for build containers")
	fs.StringArrayVar(&f.ssh, "ssh", nil, `SSH agent socket or keys to expose to the build (format: "default|<id>[=<socket>|<key>[,<key>]]")`)
	fs.StringArrayVarP(&f.tags, "tag", "t", nil, `Image identifier (format: "[registry/]repository[:tag]")`)
	fs.StringVar(&f.target, "target", "", "Set the target build stage to build")
	f.ulimits = opts.NewUlimitOpt(nil)
	fs.Var(f.ulimits, "ulimit", "Ulimit options")
	f.shared.install(fs)
	f.installOld(fs)
}

// oldLimit is a flag of the builder before BuildKit that --resource has taken the place of.
// Its list is another one: the first --resource would empty it.
type oldLimit struct {
	key  string
	list *[]string
}

func (o oldLimit) String() string { return "" }
func (o oldLimit) Type() string   { return "string" }
func (o oldLimit) Set(s string) error {
	*o.list = append(*o.list, o.key+"="+s)
	return nil
}

// refusedFlags are those of the builder before BuildKit that nothing would come of.
var refusedFlags = map[string]string{
	"squash":       "with BuildKit layers are not squashed; copy what you want to keep into a last stage of a multi-stage Dockerfile",
	"isolation":    "it is for containers of Windows",
	"security-opt": `a step that needs more rights says so: RUN --security=insecure, with --allow security.insecure`,
}

// installOld adds the flags of the builder before BuildKit: those with a meaning keep it,
// those that say what is always so (rm, force-rm, compress) are taken, others refused.
func (f *buildFlags) installOld(fs *pflag.FlagSet) {
	for key, short := range map[string]string{"memory": "m", "memory-swap": "", "cpu-shares": "c", "cpu-period": "", "cpu-quota": "", "cpuset-cpus": "", "cpuset-mems": ""} {
		fs.VarP(oldLimit{key, &f.oldResources}, key, short, "Limit of build containers")
		_ = fs.MarkHidden(key)
	}
	fs.Bool("squash", false, "Squash newly built layers into a single new layer")
	fs.String("isolation", "", "Container isolation technology")
	fs.StringSlice("security-opt", nil, "Security options")
	fs.Bool("rm", true, "Remove intermediate containers after a successful build")
	fs.Bool("force-rm", false, "Always remove intermediate containers")
	fs.Bool("compress", false, "Compress the build context using gzip")
	for _, name := range []string{"squash", "isolation", "security-opt", "rm", "force-rm", "compress"} {
		_ = fs.MarkHidden(name)
	}
}

// refuse finds a flag that was given and that nothing would come of.
func refuse(fs *pflag.FlagSet) error {
	var err error
	fs.Visit(func(f *pflag.Flag) {
		why, refused := refusedFlags[f.Name]
		off := f.Value.String() == "false" || f.Value.String() == "" || f.Value.String() == "default"
		if refused && !off {
			err = fmt.Errorf("--%s is not supported: %s", f.Name, why)
		}
	})
	return err
}

// describe is what the flags and the context describe.
func (f *buildFlags) describe(context string) (*solve.Target, error) {
	t := &solve.Target{
		Context: context, Dockerfile: f.file, Stage: f.target, Tags: f.tags, NoCache: f.shared.noCache, NoCacheFilter: f.noCacheFilter, Pull: f.shared.pull,
		Push: f.push, Load: f.load, Network: f.network, Hosts: f.hosts, CgroupParent: f.cgroupParent, ShmSize: f.shm.Value(), Allow: f.allow,
	}
	for _, u := range f.ulimits.GetList() {
		t.Ulimits = append(t.Ulimits, u.String())
	}
	var err error
	try := func(what func() error) {
		if err == nil {
			err = what()
		}
	}
	try(func() (e error) { t.Args, e = option.KeyValues(f.args, os.LookupEnv); return })
	try(func() (e error) { t.Labels, e = option.KeyValues(f.labels, nil); return })
	try(func() (e error) { t.Contexts, e = option.Contexts(f.contexts); return })
	try(func() (e error) { t.Platforms, e = option.Platforms(f.platforms); return })
	try(func() (e error) { t.Outputs, e = option.Outputs(f.outputs); return })
	try(func() (e error) { t.CacheFrom, e = option.Caches(f.cacheFrom); return })
	try(func() (e error) { t.CacheTo, e = option.Caches(f.cacheTo); return })
	try(func() (e error) { t.Secrets, e = option.Secrets(f.secrets); return })
	try(func() (e error) { t.SSH, e = option.SSHs(f.ssh); return })
	try(func() (e error) { t.Attests, e = option.Attests(f.attests, f.provenance, f.sbom); return })
	try(func() (e error) { t.Annotations, e = option.Annotations(f.annotations); return })
	try(func() (e error) { t.Resources, e = option.Resources(append(f.oldResources, f.resources...)); return })
	try(func() (e error) { t.Call, e = option.Calls(f.callMethod()); return })
	try(func() (e error) { t.SourcePolicy, e = sourcePolicy(); return })
	if err != nil {
		return nil, err
	}
	const epoch = "SOURCE_DATE_EPOCH"
	if env := os.Getenv(epoch); env != "" {
		if _, given := t.Args[epoch]; !given {
			t.Args[epoch] = env
		}
	}
	return t, f.agree(t)
}

func (f *buildFlags) callMethod() string {
	if f.check {
		return "check"
	}
	return f.call
}

// agree finds flags that cannot both be meant.
func (f *buildFlags) agree(t *solve.Target) error {
	for _, o := range t.Outputs {
		if f.iidFile != "" && (o.Type == "local" || o.Type == "tar") {
			return fmt.Errorf("--iidfile: an output of type %s has no image ID", o.Type)
		}
	}
	return nil
}

// sourcePolicy reads the rules for sources that the environment names a file of.
func sourcePolicy() (*spb.Policy, error) {
	path := os.Getenv("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY")
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("failed to read the source policy: %w", err)
	}
	var p spb.Policy
	if err := protojson.Unmarshal(data, &p); err != nil && proto.Unmarshal(data, &p) != nil {
		return nil, fmt.Errorf("failed to parse the source policy %s: %w", path, err)
	}
	return &p, nil
}
