package image

import (
	"context"
	"slices"
	"time"

	"github.com/moby/moby/api/types/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Inspect describes one image in the newest shape of the API. platform "" is the
// engine's own, or else the only one that is there.
func (s *Service) Inspect(ctx context.Context, ref, platform string) (*image.InspectResponse, error) {
	c, err := s.catalog(ctx)
	if err != nil {
		return nil, err
	}
	m, v, err := s.pick(ctx, c, ref, platform)
	if err != nil {
		return nil, err
	}
	size, err := s.sizeOf(ctx, c, v)
	if err != nil {
		return nil, err
	}
	variants, err := s.variantsOf(ctx, c, m.target.Target)
	if err != nil {
		return nil, err
	}
	tags, digests := repoTagsAndDigests(m.names, local(variants))
	cfg := v.config.Config
	r := &image.InspectResponse{
		ID:           m.id().String(),
		RepoTags:     tags,
		RepoDigests:  digests,
		Author:       v.config.Author,
		Config:       &cfg,
		Architecture: v.platform.Architecture,
		Variant:      v.platform.Variant,
		Os:           v.platform.OS,
		OsVersion:    v.platform.OSVersion,
		Size:         size.total(),
		RootFS:       image.RootFS{Type: "layers", Layers: []string{}},
		Descriptor:   &ocispec.Descriptor{MediaType: m.target.Target.MediaType, Digest: m.id(), Size: m.target.Target.Size},
	}
	if r.Manifests, err = s.manifests(ctx, c, variants); err != nil {
		return nil, err
	}
	if v.config.Created != nil {
		r.Created = v.config.Created.Format(time.RFC3339Nano)
	}
	for _, d := range v.config.RootFS.DiffIDs {
		r.RootFS.Layers = append(r.RootFS.Layers, d.String())
	}
	if n := len(v.config.History); n > 0 {
		r.Comment = v.config.History[n-1].Comment
	}
	for _, n := range m.names {
		if !isDangling(n.Name) && n.UpdatedAt.After(r.Metadata.LastTagTime) {
			r.Metadata.LastTagTime = n.UpdatedAt
		}
	}
	return r, nil
}

// History gives the steps by which an image came to be, newest first. Only the newest
// has an id: the image's.
func (s *Service) History(ctx context.Context, ref, platform string) ([]image.HistoryResponseItem, error) {
	c, err := s.catalog(ctx)
	if err != nil {
		return nil, err
	}
	m, v, err := s.pick(ctx, c, ref, platform)
	if err != nil {
		return nil, err
	}
	usage, err := s.layerUsage(s.store.Context(ctx), v)
	if err != nil {
		return nil, err
	}
	items := []image.HistoryResponseItem{}
	layer := 0
	for _, h := range v.config.History {
		item := image.HistoryResponseItem{ID: "<missing>", Comment: h.Comment, CreatedBy: h.CreatedBy}
		if h.Created != nil {
			item.Created = h.Created.Unix()
		}
		if !h.EmptyLayer && layer < len(usage) {
			item.Size = usage[layer]
			layer++
		}
		items = append(items, item)
	}
	// Tools that squash or import write no history, or too little of it.
	for ; layer < len(usage); layer++ {
		items = append(items, image.HistoryResponseItem{ID: "<missing>", Size: usage[layer]})
	}
	slices.Reverse(items)
	if len(items) > 0 {
		items[0].ID = m.id().String()
		if tags, _ := repoTagsAndDigests(m.names, false); len(tags) > 0 {
			items[0].Tags = tags
		}
	}
	return items, nil
}
