package image

import (
	"context"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"

	"github.com/cleatlabs/cleat/internal/registryclient"
)

// Login asks a registry whether credentials are good, and gives the token that it may
// want to be kept in place of the password. Nothing of either stays in the engine.
func (s *Service) Login(ctx context.Context, auth *registry.AuthConfig) (token string, err error) {
	return s.registry.Login(ctx, auth)
}

// Search finds images at Docker Hub or another registry by a part of their name.
func (s *Service) Search(ctx context.Context, req registryclient.SearchRequest) ([]registry.SearchResult, error) {
	return s.registry.Search(ctx, req)
}

// Distribution tells what a name means at its registry. auth may be nil.
func (s *Service) Distribution(ctx context.Context, ref string, auth *registry.AuthConfig) (*registry.DistributionInspect, error) {
	name, _, err := pullName(ref, "")
	if err != nil {
		return nil, err
	}
	session, err := s.registry.Open(reference.TagNameOnly(name), auth)
	if err != nil {
		return nil, err
	}
	defer session.Close()
	return session.Inspect(ctx)
}
