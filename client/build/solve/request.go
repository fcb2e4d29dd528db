package solve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/bklog"
	"github.com/moby/buildkit/util/entitlements"
	"github.com/moby/buildkit/util/gitutil"
	"github.com/tonistiigi/fsutil"

	"github.com/cleatlabs/cleat/client/build/option"
)

// defaultProvenance is what is attested of an image that leaves this engine: where it came
// from. One that stays is not attested unless that is asked for: what is attested has the
// time of the build, so that a build that changes nothing would make another image.
const defaultProvenance = "mode=min,inline-only=true"

// request is what the engine is asked for, and what is served to it meanwhile.
func (t *Target) request(ctx context.Context, e *Engine) (*bkclient.SolveOpt, error) {
	if t.NoCache && len(t.NoCacheFilter) > 0 {
		return nil, errors.New("--no-cache and --no-cache-filter cannot currently be used together")
	}
	so := &bkclient.SolveOpt{
		Ref: identity.NewID(), Frontend: "dockerfile.v0", FrontendAttrs: map[string]string{}, LocalMounts: map[string]fsutil.FS{},
		SourcePolicy: t.SourcePolicy, Internal: t.Call != nil,
	}
	if err := t.addAttrs(ctx, e, so); err != nil {
		return nil, err
	}
	if err := t.addOutputs(so); err != nil {
		return nil, err
	}
	if err := t.addCaches(so); err != nil {
		return nil, err
	}
	if err := t.addInputs(so); err != nil {
		return nil, err
	}
	if err := t.addRepository(so); err != nil {
		return nil, err
	}
	return so, t.addSession(e, so)
}

// addAttrs tells the frontend what the flags say.
func (t *Target) addAttrs(ctx context.Context, e *Engine, so *bkclient.SolveOpt) error {
	a := so.FrontendAttrs
	for k, v := range t.Proxies {
		a["build-arg:"+k] = v
	}
	for k, v := range t.Args {
		for p := range t.Proxies {
			if strings.EqualFold(p, k) {
				delete(a, "build-arg:"+p)
			}
		}
		a["build-arg:"+k] = v
	}
	for k, v := range t.Labels {
		a["label:"+k] = v
	}
	if err := t.addSyntax(so); err != nil {
		return err
	}
	t.addAttests(a)
	set(a, "target", t.Stage)
	set(a, "cgroup-parent", t.CgroupParent)
	set(a, "platform", strings.Join(t.Platforms, ","))
	set(a, "no-cache", strings.Join(t.NoCacheFilter, ","))
	set(a, "ulimit", strings.Join(t.Ulimits, ","))
	if t.NoCache {
		a["no-cache"] = ""
	}
	if on, _ := strconv.ParseBool(t.Args["BUILDKIT_MULTI_PLATFORM"]); on {
		a["multi-platform"] = "true"
	}
	if t.ShmSize > 0 {
		a["shm-size"] = strconv.FormatInt(t.ShmSize, 10)
	}
	maps.Copy(a, t.Resources)
	a["image-resolve-mode"] = pb.AttrImageResolveModePreferLocal
	if t.Pull {
		a["image-resolve-mode"] = pb.AttrImageResolveModeForcePull
	}
	hosts, err := option.Hosts(t.Hosts, func() (string, error) { return e.HostGateway(ctx) })
	if err != nil {
		return err
	}
	set(a, "add-hosts", hosts)
	return t.addRights(so)
}

// addRights adds the network of steps, and what else they may do.
func (t *Target) addRights(so *bkclient.SolveOpt) error {
	switch t.Network {
	case "", "default":
	case "host":
		so.FrontendAttrs["force-network-mode"] = t.Network
		so.AllowedEntitlements = append(so.AllowedEntitlements, entitlements.EntitlementNetworkHost.String())
	case "none":
		so.FrontendAttrs["force-network-mode"] = t.Network
	default:
		return fmt.Errorf("network mode %q not supported by buildkit: choose default, host or none", t.Network)
	}
	for _, right := range t.Allow {
		if right == "" || right == AllowLocalDelete {
			continue
		}
		if _, _, err := entitlements.Parse(right); err != nil {
			return fmt.Errorf("invalid --allow %q: %w", right, err)
		}
		so.AllowedEntitlements = append(so.AllowedEntitlements, right)
	}
	return nil
}

// addSyntax lets a build argument choose another frontend.
func (t *Target) addSyntax(so *bkclient.SolveOpt) error {
	line, ok := t.Args["BUILDKIT_SYNTAX"]
	if !ok {
		return nil
	}
	image, _, _ := strings.Cut(strings.TrimSpace(line), " ")
	if image == "" {
		return errors.New("empty BUILDKIT_SYNTAX build-arg is invalid, use --build-arg BUILDKIT_SYNTAX without '=' for optional behavior")
	}
	so.Frontend = "gateway.v0"
	so.FrontendAttrs["source"], so.FrontendAttrs["cmdline"] = image, line
	return nil
}

func (t *Target) addAttests(attrs map[string]string) {
	for kind, value := range t.Attests {
		if value != nil {
			attrs["attest:"+kind] = *value
		}
	}
	if _, said := t.Attests["provenance"]; said || !t.leaves() {
		return
	}
	if off, _ := strconv.ParseBool(os.Getenv("BUILDX_NO_DEFAULT_ATTESTATIONS")); !off {
		attrs["attest:provenance"] = defaultProvenance
	}
}

// addCaches adds where cached steps come from and go to. Places of cloud services that
// have nothing to work with here are left out, as their users expect outside of CI.
func (t *Target) addCaches(so *bkclient.SolveOpt) error {
	for _, c := range t.CacheFrom {
		if dir := c.Attrs["src"]; c.Type == "local" && dir != "" {
			if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) { // the library would make it
				bklog.L.Warningf("local cache import at %s skipped: there is no such directory", dir)
				continue
			}
		}
		so.CacheImports = append(so.CacheImports, bkclient.CacheOptionsEntry{Type: c.Type, Attrs: maps.Clone(c.Attrs)})
	}
	for _, c := range t.CacheTo {
		so.CacheExports = append(so.CacheExports, bkclient.CacheOptionsEntry{Type: c.Type, Attrs: maps.Clone(c.Attrs)})
	}
	if on, _ := strconv.ParseBool(t.Args["BUILDKIT_INLINE_CACHE"]); on {
		so.CacheExports = append(so.CacheExports, bkclient.CacheOptionsEntry{Type: "inline", Attrs: map[string]string{}})
	}
	for _, list := range [][]bkclient.CacheOptionsEntry{so.CacheImports, so.CacheExports} {
		for _, c := range list {
			switch c.Type {
			case "registry", "local", "inline":
			case "gha", "s3", "azblob":
				return fmt.Errorf("cache type %q is not supported by this engine: choose registry, local or inline", c.Type)
			default:
				return fmt.Errorf("unknown cache type %q: choose registry, local or inline", c.Type)
			}
		}
	}
	return nil
}

// addSession adds what the engine can ask this side for, beside files.
func (t *Target) addSession(e *Engine, so *bkclient.SolveOpt) error {
	so.Session = append(so.Session, authprovider.NewDockerAuthProvider(authprovider.DockerAuthProviderConfig{
		AuthConfigProvider: authprovider.LoadAuthConfig(e.Config),
	}))
	if len(t.Secrets) > 0 {
		secrets, err := t.secrets()
		if err != nil {
			return err
		}
		so.Session = append(so.Session, secrets)
	}
	agents := make([]sshprovider.AgentConfig, 0, len(t.SSH))
	for _, s := range t.SSH {
		agents = append(agents, sshprovider.AgentConfig{ID: s.ID, Paths: s.Paths})
	}
	if len(agents) == 0 && isGitSSH(t.Context) {
		agents = append(agents, sshprovider.AgentConfig{ID: "default"})
	}
	if len(agents) == 0 {
		return nil
	}
	ssh, err := sshprovider.NewSSHAgentProvider(agents)
	if err != nil {
		return fmt.Errorf("--ssh: %w", err)
	}
	so.Session = append(so.Session, ssh)
	return nil
}

func (t *Target) secrets() (session.Attachable, error) {
	sources := make([]secretsprovider.Source, 0, len(t.Secrets))
	for _, s := range t.Secrets {
		if s.Env != "" {
			if _, ok := os.LookupEnv(s.Env); !ok {
				return nil, fmt.Errorf("secret %s: the environment has no variable %s", s.ID, s.Env)
			}
		}
		sources = append(sources, secretsprovider.Source{ID: s.ID, FilePath: s.File, Env: s.Env})
	}
	store, err := secretsprovider.NewStore(sources)
	if err != nil {
		return nil, fmt.Errorf("--secret: %w", err)
	}
	return secretsprovider.NewSecretProvider(store), nil
}

func isGitSSH(where string) bool {
	u, err := gitutil.ParseURL(where)
	return err == nil && u.Scheme == gitutil.SSHProtocol
}

// names are the tags in the form that the exporters want.
func (t *Target) names() (string, error) {
	list := make([]string, 0, len(t.Tags))
	for _, tag := range t.Tags {
		named, err := reference.ParseNormalizedNamed(tag)
		if err != nil {
			return "", fmt.Errorf("invalid tag %q: %w", tag, err)
		}
		list = append(list, reference.TagNameOnly(named).String())
	}
	return strings.Join(list, ","), nil
}

func set(m map[string]string, key, value string) {
	if value != "" {
		m[key] = value
	}
}
