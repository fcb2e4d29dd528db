package registryclient

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"

	"github.com/cleatlabs/cleat/internal/failure"
)

// ExplainPush turns what went wrong while sending into what the user reads, in Docker's
// words and the registry's own. An error that it knows nothing about is returned as it is.
func (s *Session) ExplainPush(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	var local *localError
	if errors.As(err, &local) {
		return local.err
	}
	if failure.Class(err) != nil {
		return err
	}
	address := s.hosts[0].address()
	hasStatus, status := statusOf(err)
	if text := refusal(err, hasStatus, status); text != "" {
		return failure.New(errdefs.ErrPermissionDenied, "%s: you may not push to %s, or have to log in first (`cleat login%s`)",
			text, reference.FamiliarName(s.name), loginAddress(reference.Domain(s.name)))
	}
	switch {
	case hasStatus && status.StatusCode == http.StatusTooManyRequests:
		return failure.Unavailable("toomanyrequests: %s answers that its rate limit is reached%s; wait and try again", address, registrySays(status.Body))
	case hasStatus && status.StatusCode == http.StatusRequestEntityTooLarge:
		return failure.Invalid("%s takes no layer of this size: raise the limit of the registry or of the proxy in front of it (nginx: client_max_body_size)", address)
	case hasStatus && status.StatusCode >= 500:
		return failure.Unavailable("%s answers %s%s; the fault is on the registry's side: try again later", address, status.Status, registrySays(status.Body))
	case hasStatus:
		if said := registryErrors(status.Body); len(said) > 0 {
			return failure.New(errdefs.ErrUnknown, "%s (answered by %s)", said[0], address)
		}
		return failure.New(errdefs.ErrUnknown, "%s answers %s to a %s request; is it a registry that images can be pushed to?", address, status.Status, status.RequestMethod)
	case errors.Is(err, errStalled):
		return failure.Unavailable("%s takes no more data and does not answer; try again later", address)
	}
	if text := unreachable(err); text != "" {
		return failure.Unavailable("cannot reach the registry at %s: %s", address, text)
	}
	return err
}

// refusal says in Docker's words that the registry wants other credentials, "" if that
// is not it.
func refusal(err error, hasStatus bool, status remoteerrors.ErrUnexpectedStatus) string {
	const deniedText = "denied: requested access to the resource is denied"
	if strings.Contains(err.Error(), "no basic auth credentials") {
		return "no basic auth credentials"
	}
	if hasStatus && (status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden) {
		if said := registryErrors(status.Body); len(said) > 0 && said[0].Code != "" {
			return said[0].String()
		}
		return deniedText
	}
	if errors.Is(err, docker.ErrInvalidAuthorization) {
		return deniedText
	}
	return ""
}

// statusOf is the registry's answer that is an error's cause, if one is.
func statusOf(err error) (found bool, status remoteerrors.ErrUnexpectedStatus) {
	found = errors.As(err, &status)
	return found, status
}

// loginAddress is what is typed after login for a registry: nothing for Docker Hub.
func loginAddress(domain string) string {
	if domain == HubDomain {
		return ""
	}
	return " " + domain
}
