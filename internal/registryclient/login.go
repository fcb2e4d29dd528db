package registryclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/registry"

	"github.com/cleatlabs/cleat/internal/failure"
)

// loginClient names the engine to token servers, which clients of Docker's registry
// protocol have to do.
const loginClient = "docker"

// Login asks a registry whether credentials are good. Without a ServerAddress it is
// Docker Hub. The token, if the registry gives one, is to be kept in place of the
// password.
//
// Credentials that a token server refuses are errdefs.ErrUnauthenticated; a registry that
// refuses them itself, or does not answer, is an unclassed error, as with Docker.
// Nothing of the credentials is in an error.
func (c *Client) Login(ctx context.Context, with *registry.AuthConfig) (token string, err error) {
	host := loginHost(with.ServerAddress)
	insecure := c.insecure(host)
	certs := host
	if host == HubHost {
		certs = HubDomain
	}
	client, closeIdle, err := c.httpClient(certs, insecure, c.patience.ask)
	if err != nil {
		return "", err
	}
	defer closeIdle()
	l := &login{client: client, url: "https://" + host + "/v2/", with: with, header: http.Header{"User-Agent": []string{c.userAgent}}}
	return l.run(ctx)
}

// loginHost is where a server address, as users write it, is reached.
func loginHost(address string) string {
	_, rest, found := strings.Cut(address, "://")
	if !found {
		rest = address
	}
	host, _, _ := strings.Cut(rest, "/")
	switch host {
	case "", "index.docker.io", HubDomain, HubHost:
		return HubHost
	}
	return host
}

type login struct {
	client *http.Client
	url    string
	with   *registry.AuthConfig
	header http.Header
}

func (l *login) run(ctx context.Context) (token string, err error) {
	status, challenges, err := l.ask(ctx, "")
	if err != nil {
		return "", err
	}
	if status == http.StatusOK {
		return "", nil // it is open to everyone
	}
	for _, c := range challenges {
		switch c.Scheme {
		case auth.BearerAuth:
			return l.byToken(ctx, c)
		case auth.BasicAuth:
			return "", l.byPassword(ctx)
		}
	}
	return "", l.refused(status)
}

func (l *login) refused(status int) error {
	return fmt.Errorf("login attempt to %s failed with status: %d %s", l.url, status, http.StatusText(status))
}

// ask knocks at the registry's door.
func (l *login) ask(ctx context.Context, authorization string) (int, []auth.Challenge, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url, nil)
	if err != nil {
		return 0, nil, failure.Invalid("invalid registry address %q: %w", l.with.ServerAddress, err)
	}
	req.Header = l.header.Clone()
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	res, err := l.client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return 0, nil, ctx.Err()
		}
		if text := unreachable(err); text != "" {
			return 0, nil, fmt.Errorf("cannot reach the registry at %s: %s", l.url, text)
		}
		return 0, nil, err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	_ = res.Body.Close()
	return res.StatusCode, auth.ParseAuthHeader(res.Header), nil
}

func (l *login) byPassword(ctx context.Context) error {
	req := &http.Request{Header: http.Header{}}
	req.SetBasicAuth(l.with.Username, l.with.Password)
	status, _, err := l.ask(ctx, req.Header.Get("Authorization"))
	if err == nil && status != http.StatusOK {
		err = l.refused(status)
	}
	return err
}

func (l *login) byToken(ctx context.Context, c auth.Challenge) (token string, err error) {
	secret, user := l.with.Password, l.with.Username
	if l.with.IdentityToken != "" {
		secret, user = l.with.IdentityToken, ""
	}
	to, err := auth.GenerateTokenOptions(ctx, l.url, user, secret, c)
	if err != nil {
		return "", fmt.Errorf("the registry at %s asks for a token in a way that cannot be followed: %w", l.url, err)
	}
	to.FetchRefreshToken = true
	var access string
	if l.with.IdentityToken != "" {
		got, err := auth.FetchTokenWithOAuth(ctx, l.client, l.header, loginClient, to)
		if err != nil {
			return "", l.explainToken(err)
		}
		access, token = got.AccessToken, got.RefreshToken
	} else {
		got, err := auth.FetchToken(ctx, l.client, l.header, to)
		if err != nil {
			return "", l.explainToken(err)
		}
		access, token = got.Token, got.RefreshToken
		if access == "" {
			access = got.AccessToken
		}
	}
	status, _, err := l.ask(ctx, "Bearer "+access)
	if err == nil && status != http.StatusOK {
		err = l.refused(status)
	}
	return token, err
}

// explainToken says why there is no token, without what was sent for it.
func (l *login) explainToken(err error) error {
	var status remoteerrors.ErrUnexpectedStatus
	switch {
	case errors.As(err, &status) && (status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden):
		return failure.New(errdefs.ErrUnauthenticated, "Get %q: unauthorized: incorrect username or password", l.url)
	case errors.As(err, &status):
		return fmt.Errorf("login attempt to %s failed: the token server answers %s", l.url, status.Status)
	}
	if text := unreachable(err); text != "" {
		return fmt.Errorf("login attempt to %s failed: cannot reach the token server: %s", l.url, text)
	}
	return fmt.Errorf("login attempt to %s failed: the token server's answer cannot be used", l.url)
}
