package classic

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/session/auth"
	"github.com/moby/moby/api/types/registry"
	"google.golang.org/grpc"

	"github.com/cleatlabs/cleat/internal/failure"
)

// hub is the key under which clients send the credentials of Docker Hub.
const hub = "https://index.docker.io/v1/"

// credentials gives BuildKit what the request's header holds, by registry. Tokens are
// asked for by the engine itself.
type credentials struct {
	auth.UnimplementedAuthServer
	auths map[string]registry.AuthConfig
}

// Register implements session.Attachable.
func (c credentials) Register(server *grpc.Server) { auth.RegisterAuthServer(server, c) }

// Credentials implements auth.AuthServer.
func (c credentials) Credentials(_ context.Context, req *auth.CredentialsRequest) (*auth.CredentialsResponse, error) {
	host := req.GetHost()
	if host == "registry-1.docker.io" {
		host = hub
	}
	found := c.of(host)
	if found.IdentityToken != "" {
		return &auth.CredentialsResponse{Secret: found.IdentityToken}, nil
	}
	return &auth.CredentialsResponse{Username: found.Username, Secret: found.Password}, nil
}

// of finds a registry's credentials. The names under which clients keep them may be URLs
// of it, and the client sends them as it has them.
func (c credentials) of(host string) registry.AuthConfig {
	if found, ok := c.auths[host]; ok {
		return found
	}
	for _, name := range slices.Sorted(maps.Keys(c.auths)) {
		_, rest, isURL := strings.Cut(name, "://")
		if !isURL {
			rest = name
		}
		if named, _, _ := strings.Cut(rest, "/"); named == host {
			return c.auths[name]
		}
	}
	return registry.AuthConfig{}
}

// ParseCredentials reads the header X-Registry-Config: base64url of a JSON object of
// credentials by registry. Anything else is errdefs.ErrInvalidArgument.
func ParseCredentials(header string) (map[string]registry.AuthConfig, error) {
	if header == "" {
		return nil, nil
	}
	data, err := base64.URLEncoding.DecodeString(header)
	if err != nil {
		if data, err = base64.RawURLEncoding.DecodeString(header); err != nil {
			return nil, failure.Invalid("invalid X-Registry-Config header: %w", err)
		}
	}
	auths := map[string]registry.AuthConfig{}
	if err := json.Unmarshal(data, &auths); err != nil {
		return nil, failure.Invalid("invalid X-Registry-Config header: it is no JSON object of credentials")
	}
	return auths, nil
}

// familiar is a reference as Docker prints it.
func familiar(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return reference.FamiliarString(named)
}
