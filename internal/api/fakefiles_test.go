package api_test

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/changes"
	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/image"
	"github.com/cleatlabs/cleat/internal/registryclient"
)

func (f *fake) StatPath(_ context.Context, name, path string) (*container.PathStat, error) {
	f.called("stat path", name, path)
	return nil, missing("stat path")
}

func (f *fake) ArchivePath(_ context.Context, name, path string) (*engine.PathArchive, error) {
	f.called("archive path", name, path)
	return nil, missing("archive path")
}

func (f *fake) ExtractTo(_ context.Context, name, path string, _ io.Reader, _ engine.CopyOptions) error {
	f.called("extract to", name, path)
	return missing("extract to")
}

func (f *fake) Commit(_ context.Context, req engine.CommitRequest) (string, error) {
	f.called("commit", req.Container)
	return "", missing("commit")
}

func (f *fake) Changes(_ context.Context, name string) ([]changes.Change, error) {
	f.called("changes", name)
	return nil, missing("changes")
}

func (f *fake) Export(_ context.Context, name string) (*engine.Export, error) {
	f.called("export", name)
	return nil, missing("export")
}

func (f *fakeImages) Save(_ context.Context, refs, _ []string) (*image.Saving, error) {
	return nil, missing("save")
}

func (f *fakeImages) Import(_ context.Context, req engine.ImportRequest, _ func(string)) (string, error) {
	if f.imported == nil {
		return "", missing("import")
	}
	text, err := io.ReadAll(req.Body)
	f.imported(req, string(text))
	return "sha256:0", err
}

func (f *fake) PruneContainers(context.Context, map[string][]string) (*container.PruneReport, error) {
	f.called("prune containers")
	return nil, missing("prune containers")
}

func (f *fake) PruneImages(context.Context, map[string][]string) (*imagetypes.PruneReport, error) {
	f.called("prune images")
	return nil, missing("prune images")
}

func (f *fake) BuildCachePruned(reclaimed uint64) {
	f.called("pruned", strconv.FormatUint(reclaimed, 10))
}

func (f *fake) DiskUsage(_ context.Context, kinds engine.DiskUsageKinds) (*engine.DiskUsage, error) {
	f.called("disk usage")
	return nil, missing("disk usage")
}

func (f *fake) Login(_ context.Context, auth *registry.AuthConfig) (string, error) {
	f.called("login", auth.ServerAddress)
	return "", missing("login")
}

func (f *fake) Search(_ context.Context, req registryclient.SearchRequest) ([]registry.SearchResult, error) {
	if req.Term == "nothing" {
		return nil, nil
	}
	official := "any"
	if req.Official != nil {
		official = fmt.Sprint(*req.Official)
	}
	return []registry.SearchResult{{Name: req.Term, StarCount: req.Stars, Description: fmt.Sprint(req.Limit, " ", official, " ", req.Automated, " ", req.Auth != nil)}}, nil
}

func (f *fake) Distribution(_ context.Context, ref string, auth *registry.AuthConfig) (*registry.DistributionInspect, error) {
	if auth == nil {
		return nil, failure.New(errdefs.ErrUnauthenticated, "pull access denied for %s", ref)
	}
	return &registry.DistributionInspect{Platforms: []ocispec.Platform{{OS: "linux", Architecture: ref}}}, nil
}
