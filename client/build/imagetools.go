package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/log"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/docker/cli/templates"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/moby/buildkit/util/contentutil"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/build/option"
	"github.com/cleatlabs/cleat/client/dockerconfig"
	"github.com/cleatlabs/cleat/client/term"
	"github.com/cleatlabs/cleat/registrytrust"
)

func (a *app) imagetools() spec {
	return spec{use: "imagetools", short: "Commands to work on images in registry", subs: []spec{a.imagetoolsCreate(), a.imagetoolsInspect()}}
}

// registry reads and writes images where they are, with the user's credentials. The
// engine has no part in it.
func (a *app) registry() remotes.Resolver { return a.registryOver(false) }

// registryOver is registry for one that may be reached without encryption.
func (a *app) registryOver(insecure bool) remotes.Resolver {
	_ = log.SetLevel("error") // what a registry refuses comes as an error anyway
	credentials := func(host string) (string, string, error) {
		key := host
		if host == authprovider.DockerHubRegistryHost {
			key = authprovider.DockerHubConfigfileKey
		}
		ac, err := a.config().GetAuthConfig(key)
		err = dockerconfig.ExplainHelper(a.config(), err)
		if ac.IdentityToken != "" {
			return "", ac.IdentityToken, err
		}
		return ac.Username, ac.Password, err
	}
	plain := docker.MatchLocalhost
	if insecure {
		plain = docker.MatchAllHosts
	}
	return docker.NewResolver(docker.ResolverOptions{Hosts: trusting(registrytrust.Dir, func(client *http.Client) docker.RegistryHosts {
		return docker.ConfigureDefaultRegistries(
			docker.WithClient(client),
			docker.WithAuthorizer(docker.NewDockerAuthorizer(docker.WithAuthCreds(credentials), docker.WithAuthClient(client))),
			docker.WithPlainHTTP(plain),
		)
	})})
}

// maxManifest bounds a manifest, an index or a configuration, bytes.
const maxManifest = 16 << 20

// fetch reads what ref names: a manifest or an index.
func fetch(ctx context.Context, r remotes.Resolver, ref string) ([]byte, ocispec.Descriptor, error) {
	_, desc, err := r.Resolve(ctx, ref)
	if err != nil {
		return nil, desc, err
	}
	data, err := fetchBlob(ctx, r, ref, desc)
	return data, desc, err
}

func fetchBlob(ctx context.Context, r remotes.Resolver, ref string, desc ocispec.Descriptor) ([]byte, error) {
	f, err := r.Fetcher(ctx, ref)
	if err != nil {
		return nil, err
	}
	rc, err := f.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rc.Close() }()
	data, err := io.ReadAll(io.LimitReader(rc, maxManifest+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxManifest {
		return nil, fmt.Errorf("%s of %s is larger than %d MiB", desc.Digest, ref, maxManifest>>20)
	}
	if digest.FromBytes(data) != desc.Digest {
		return nil, fmt.Errorf("%s has sent something else than %s", ref, desc.Digest)
	}
	return data, nil
}

func parseReference(s string) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return nil, fmt.Errorf("invalid reference %q: %w", s, err)
	}
	return reference.TagNameOnly(named), nil
}

func (a *app) imagetoolsInspect() spec {
	return spec{
		use: "inspect [OPTIONS] NAME", short: "Show details of an image in the registry", args: exactly(1),
		setup: func(fs *pflag.FlagSet) action {
			format := fs.String("format", "", "Format the output using the given Go template")
			raw := fs.Bool("raw", false, "Show original, unformatted JSON manifest")
			return func(ctx context.Context, args []string) error {
				if *raw && *format != "" {
					return errors.New("format and raw cannot be used together")
				}
				return a.inspectImage(ctx, args[0], *format, *raw)
			}
		},
	}
}

func (a *app) inspectImage(ctx context.Context, name, format string, raw bool) error {
	ref, err := parseReference(name)
	if err != nil {
		return err
	}
	r := a.registry()
	data, desc, err := fetch(ctx, r, ref.String())
	if err != nil {
		return err
	}
	if raw {
		_, err := a.stdout.Write(data) // without a newline, so that its digest is the image's
		return err
	}
	if format != "" {
		return a.inspectByTemplate(ctx, r, ref, data, desc, format)
	}
	t := term.NewTable(a.stdout, 0, 1)
	_, _ = fmt.Fprintf(t, "Name:\t%s\nMediaType:\t%s\nDigest:\t%s\n", ref, desc.MediaType, desc.Digest)
	if err := t.Flush(); err != nil || !images.IsIndexType(desc.MediaType) {
		return err
	}
	var idx ocispec.Index
	if err := json.Unmarshal(data, &idx); err != nil {
		return fmt.Errorf("the index of %s cannot be read: %w", ref, err)
	}
	_, _ = fmt.Fprintln(a.stdout, "\nManifests:")
	for _, m := range idx.Manifests {
		_, _ = fmt.Fprintln(a.stdout)
		t := term.NewTable(a.stdout, 0, 1)
		_, _ = fmt.Fprintf(t, "  Name:\t%s@%s\n  MediaType:\t%s\n", ref, m.Digest, m.MediaType)
		if m.Platform != nil {
			_, _ = fmt.Fprintf(t, "  Platform:\t%s\n", platforms.FormatAll(*m.Platform))
		}
		for k, v := range m.Annotations {
			_, _ = fmt.Fprintf(t, "  %s:\t%s\n", k, v)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// inspectByTemplate shows a template the image's name, its manifest or index, and its
// configuration: by platform if there are several.
func (a *app) inspectByTemplate(ctx context.Context, r remotes.Resolver, ref reference.Named, data []byte, desc ocispec.Descriptor, format string) error {
	tmpl, err := templates.Parse(format)
	if err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	view := map[string]any{"Name": ref.String()}
	configs := map[string]any{}
	manifests := []ocispec.Descriptor{desc}
	if images.IsIndexType(desc.MediaType) {
		var idx ocispec.Index
		if err := json.Unmarshal(data, &idx); err != nil {
			return err
		}
		manifests = idx.Manifests
		view["Manifest"] = map[string]any{"schemaVersion": 2, "mediaType": desc.MediaType, "digest": desc.Digest, "size": desc.Size, "manifests": idx.Manifests}
	} else {
		view["Manifest"] = desc
	}
	for _, m := range manifests {
		if !isImage(m) {
			continue
		}
		config, err := imageConfig(ctx, r, ref, m)
		if err != nil {
			return err
		}
		configs[platforms.FormatAll(platforms.Normalize(config.Platform))] = config
	}
	view["Image"] = configs
	if len(configs) == 1 {
		for _, c := range configs {
			view["Image"] = c
		}
	}
	if err := tmpl.Option("missingkey=error").Execute(a.stdout, view); err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	_, err = fmt.Fprintln(a.stdout)
	return err
}

// isImage is false for what an index has beside images, such as attestations.
func isImage(m ocispec.Descriptor) bool {
	return images.IsManifestType(m.MediaType) && (m.Platform == nil || m.Platform.OS != "unknown")
}

func imageConfig(ctx context.Context, r remotes.Resolver, ref reference.Named, m ocispec.Descriptor) (*ocispec.Image, error) {
	data, err := fetchBlob(ctx, r, ref.String(), m)
	if err != nil {
		return nil, err
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(data, &manifest); err != nil {
		return nil, fmt.Errorf("the manifest %s of %s cannot be read: %w", m.Digest, ref, err)
	}
	if data, err = fetchBlob(ctx, r, ref.String(), manifest.Config); err != nil {
		return nil, err
	}
	var img ocispec.Image
	if err := json.Unmarshal(data, &img); err != nil {
		return nil, fmt.Errorf("the configuration %s of %s cannot be read: %w", manifest.Config.Digest, ref, err)
	}
	return &img, nil
}

type createFlags struct {
	files, tags, annotations, platforms []string
	add, dryRun, preferIndex            bool
	progress, metadataFile              string
}

func (a *app) imagetoolsCreate() spec {
	return spec{
		use: "create [OPTIONS] [SOURCE...]", short: "Create a new image based on source images",
		setup: func(fs *pflag.FlagSet) action {
			var f createFlags
			fs.StringArrayVar(&f.annotations, "annotation", nil, "Add annotation to the image")
			fs.BoolVar(&f.add, "append", false, "Append to existing manifest")
			fs.BoolVar(&f.dryRun, "dry-run", false, "Show final image instead of pushing")
			fs.StringArrayVarP(&f.files, "file", "f", nil, "Read source descriptor from file")
			fs.StringVar(&f.metadataFile, "metadata-file", "", "Write create result metadata to a file")
			fs.StringArrayVarP(&f.platforms, "platform", "p", nil, "Filter specified platforms of target image")
			fs.BoolVar(&f.preferIndex, "prefer-index", true, "When only a single source is specified, prefer outputting an image index or manifest list instead of performing a carbon copy")
			fs.StringVar(&f.progress, "progress", "auto", `Set type of progress output ("auto", "none",  "plain", "rawjson", "tty"). Use plain to show container output`)
			fs.StringArrayVarP(&f.tags, "tag", "t", nil, "Set reference for new image")
			return func(ctx context.Context, args []string) error { return a.createImage(ctx, &f, args) }
		},
	}
}

// part is an image, or what an index has of one, and where it comes from.
type part struct {
	ref  reference.Named
	desc ocispec.Descriptor
}

func (a *app) createImage(ctx context.Context, f *createFlags, args []string) error {
	var descriptors []string
	for _, path := range f.files {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		descriptors = append(descriptors, string(data))
	}
	args = slices.Concat(descriptors, args)
	if len(args) == 0 {
		return errors.New("no sources specified")
	}
	if !f.dryRun && len(f.tags) == 0 {
		return errors.New("can't push with no tags specified, please set --tag or --dry-run")
	}
	tags := make([]reference.Named, 0, len(f.tags))
	for _, t := range f.tags {
		ref, err := parseReference(t)
		if err != nil {
			return err
		}
		tags = append(tags, ref)
	}
	if f.add && len(f.tags) > 0 {
		args = append([]string{f.tags[0]}, args...)
	}
	mode, err := displayMode(f.progress, false)
	if err != nil {
		return err
	}
	r := a.registry()
	data, desc, parts, err := combine(ctx, r, f, args, tags)
	if err != nil {
		return err
	}
	if f.dryRun {
		_, err := fmt.Fprintf(a.stdout, "%s\n", data)
		return err
	}
	for _, tag := range tags {
		// A resolver pushes nothing twice, and the same index may get several tags.
		if err := push(ctx, a.registry(), tag, data, desc, parts); err != nil {
			return fmt.Errorf("pushing %s: %w", tag, err)
		}
		if mode != progressui.QuietMode && mode != progressui.RawJSONMode {
			_, _ = fmt.Fprintf(a.stderr, "pushed %s@%s\n", tag, desc.Digest)
		}
	}
	if f.metadataFile != "" {
		return writeMetadata(f.metadataFile, map[string]any{exptypes.ExporterImageDescriptorKey: desc, "image.name": strings.Join(f.tags, ",")})
	}
	return nil
}

// combine makes an index of the sources, or takes the only one as it is.
func combine(ctx context.Context, r remotes.Resolver, f *createFlags, args []string, tags []reference.Named) ([]byte, ocispec.Descriptor, []part, error) {
	var none ocispec.Descriptor
	annotations, err := option.Annotations(f.annotations)
	if err != nil {
		return nil, none, nil, err
	}
	wanted, err := option.Platforms(f.platforms)
	if err != nil {
		return nil, none, nil, err
	}
	sources, err := parseSources(args, tags)
	if err != nil {
		return nil, none, nil, err
	}
	var parts []part
	for _, s := range sources {
		ref := s.ref
		data, desc, err := fetch(ctx, r, ref.String())
		if err == nil {
			desc, err = s.describe(desc)
		}
		if err != nil {
			return nil, none, nil, err
		}
		plain := len(args) == 1 && len(annotations) == 0 && len(wanted) == 0
		if plain && (images.IsIndexType(desc.MediaType) || !f.preferIndex) {
			return data, desc, []part{{ref, desc}}, nil
		}
		more, err := partsOf(ctx, r, ref, data, desc)
		if err != nil {
			return nil, none, nil, err
		}
		parts = append(parts, more...)
	}
	if len(wanted) > 0 {
		parts = slices.DeleteFunc(parts, func(p part) bool {
			return p.desc.Platform == nil || !slices.Contains(wanted, platforms.FormatAll(platforms.Normalize(*p.desc.Platform)))
		})
		if len(parts) == 0 {
			return nil, none, nil, fmt.Errorf("no source is for %s", strings.Join(wanted, ", "))
		}
	}
	return marshalIndex(parts, annotations)
}

func marshalIndex(parts []part, annotations map[string]string) ([]byte, ocispec.Descriptor, []part, error) {
	idx := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	at := map[digest.Digest]int{}
	var kept []part
	for _, p := range parts {
		if i, ok := at[p.desc.Digest]; ok { // what is said last of an image holds
			m := &idx.Manifests[i]
			if p.desc.Platform != nil {
				m.Platform = p.desc.Platform
			}
			if len(p.desc.Annotations) > 0 {
				m.Annotations = maps.Clone(m.Annotations)
				if m.Annotations == nil {
					m.Annotations = map[string]string{}
				}
				maps.Copy(m.Annotations, p.desc.Annotations)
			}
			continue
		}
		at[p.desc.Digest] = len(kept)
		kept = append(kept, p)
		idx.Manifests = append(idx.Manifests, p.desc)
	}
	for k, v := range annotations {
		key, _, err := exptypes.ParseAnnotationKey(k)
		if err != nil {
			return nil, ocispec.Descriptor{}, nil, err
		}
		if key.Type != exptypes.AnnotationIndex {
			return nil, ocispec.Descriptor{}, nil, fmt.Errorf("annotation %q: here only annotations of the index can be given, write index:%s=%s", key.Key, key.Key, v)
		}
		if idx.Annotations == nil {
			idx.Annotations = map[string]string{}
		}
		idx.Annotations[key.Key] = v
	}
	data, err := json.MarshalIndent(idx, "", "  ")
	return data, ocispec.Descriptor{MediaType: idx.MediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}, kept, err
}

// partsOf is what an index holds, or the image itself with its platform.
func partsOf(ctx context.Context, r remotes.Resolver, ref reference.Named, data []byte, desc ocispec.Descriptor) ([]part, error) {
	if images.IsIndexType(desc.MediaType) {
		var idx ocispec.Index
		if err := json.Unmarshal(data, &idx); err != nil {
			return nil, fmt.Errorf("the index of %s cannot be read: %w", ref, err)
		}
		var out []part
		for _, m := range idx.Manifests {
			out = append(out, part{ref, m})
		}
		return out, nil
	}
	config, err := imageConfig(ctx, r, ref, desc)
	if err != nil {
		return nil, err
	}
	p := platforms.Normalize(config.Platform)
	if said := desc.Platform; said != nil {
		p = withSaid(p, *said)
	}
	desc.Platform = &p
	return []part{{ref, desc}}, nil
}

// push makes data the image tag, after everything that it names is in the repository.
func push(ctx context.Context, r remotes.Resolver, tag reference.Named, data []byte, desc ocispec.Descriptor, parts []part) error {
	for _, p := range parts {
		if p.ref.Name() == tag.Name() {
			continue // it is there
		}
		f, err := r.Fetcher(ctx, p.ref.String())
		if err != nil {
			return err
		}
		pusher, err := r.Pusher(ctx, tag.Name()+"@"+p.desc.Digest.String())
		if err != nil {
			return err
		}
		if err := contentutil.CopyChain(ctx, contentutil.FromPusher(pusher), contentutil.FromFetcher(f), p.desc); err != nil {
			return fmt.Errorf("copying %s@%s: %w", p.ref, p.desc.Digest, err)
		}
	}
	pusher, err := r.Pusher(ctx, tag.String())
	if err != nil {
		return err
	}
	return contentutil.Copy(ctx, contentutil.FromPusher(pusher), contentutil.FromFetcher(bytesFetcher(data)), desc, "", nil)
}

// bytesFetcher has one thing.
type bytesFetcher []byte

// Fetch returns it, whatever is asked for.
func (b bytesFetcher) Fetch(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(string(b))), nil
}
