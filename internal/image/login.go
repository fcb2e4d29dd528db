package image

import (
	"context"

	"github.com/moby/moby/api/types/registry"
)

// Login asks a registry whether credentials are good, and gives the token that it may
// want to be kept in place of the password. Nothing of either stays in the engine.
func (s *Service) Login(ctx context.Context, auth *registry.AuthConfig) (token string, err error) {
	return s.registry.Login(ctx, auth)
}
