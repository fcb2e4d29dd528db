package registryclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"unicode"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"

	"github.com/cleatlabs/cleat/internal/failure"
)

type hostError struct {
	address string
	err     error
}

func (e *hostError) Error() string { return e.address + ": " + e.err.Error() }
func (e *hostError) Unwrap() error { return e.err }

type resolveError struct {
	err     error
	mirrors []error
}

func (e *resolveError) Error() string { return e.err.Error() }
func (e *resolveError) Unwrap() error { return e.err }

type missingBlobError struct {
	address   string
	elsewhere []string // URLs where the manifest says that it is
	err       error
}

func (e *missingBlobError) Error() string {
	if len(e.elsewhere) > 0 {
		return fmt.Sprintf("%s knows the image but lacks a layer of it, which is said to be at %q; nothing is fetched from "+
			"where a manifest points: have the image pushed together with that layer", e.address, e.elsewhere[0])
	}
	return e.address + " knows the image but lacks a part of it; the image was pushed incompletely or is being deleted: push it again, or pull another tag"
}
func (e *missingBlobError) Unwrap() error { return e.err }

// Explain turns what went wrong in a session into what the user reads, in Docker's
// words where it has some: 404 for what is unknown or denied, 401-text for a login that
// was refused, 429 with the way out, the address for a registry that is not there. An
// error that it knows nothing about is returned as it is.
func (s *Session) Explain(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	explained := s.explain(err)
	var r *resolveError
	if errors.As(err, &r) && len(r.mirrors) > 0 {
		var said []string
		for _, m := range r.mirrors {
			said = append(said, brief(m))
		}
		return failure.Wrap(classOf(explained), fmt.Errorf("%w (mirrors: %s)", explained, strings.Join(said, "; ")))
	}
	return explained
}

func (s *Session) explain(err error) error {
	familiar := reference.FamiliarName(s.name)
	address := s.hosts[len(s.hosts)-1].address()
	var h *hostError
	resolving := errors.As(err, &h)
	if resolving {
		address = h.address
	}
	if !resolving && failure.Class(err) != nil {
		return err // whoever classed it has said it in its own words
	}
	var status remoteerrors.ErrUnexpectedStatus
	hasStatus := errors.As(err, &status)
	var missing *missingBlobError
	var repository *unknownRepositoryError
	switch {
	case errors.As(err, &missing):
		return failure.NotFound("%s: %w", s.name, missing)
	case hasStatus && status.StatusCode == http.StatusTooManyRequests:
		return failure.Unavailable("toomanyrequests: %s answers that its rate limit is reached%s; wait and try again, log in (`cleat login`) for a higher limit, or use a mirror (--registry-mirror)", address, registrySays(status.Body))
	case hasStatus && status.StatusCode >= 500:
		return failure.Unavailable("%s answers %s%s; the fault is on the registry's side: try again later", address, status.Status, registrySays(status.Body))
	case denied(err, hasStatus, status):
		return failure.NotFound("pull access denied for %s, repository does not exist or may require 'docker login': denied: requested access to the resource is denied", familiar)
	case errors.As(err, &repository):
		return failure.NotFound("pull access denied for %s, repository does not exist or may require 'docker login': name unknown: %s does not have it", familiar, address)
	case resolving && oversized(err) != "":
		return failure.Invalid("the manifest of %s has %s bytes, and none of an image has more than %d: what %s has there is no image", reference.FamiliarString(s.name), oversized(err), docker.MaxManifestSize, address)
	case hasStatus && status.StatusCode == http.StatusNotFound, resolving && errdefs.IsNotFound(err):
		return failure.NotFound("manifest for %s not found: manifest unknown: %s does not have it", reference.FamiliarString(s.name), address)
	case hasStatus:
		return failure.New(errdefs.ErrUnknown, "%s answers %s%s", address, status.Status, registrySays(status.Body))
	}
	if text := unreachable(err); text != "" {
		return failure.Unavailable("cannot reach the registry at %s: %s", address, text)
	}
	return err
}

// oversized is the size of a manifest that the resolver did not take, which it classes as
// one that is not there; "" if that is not what happened.
func oversized(err error) string {
	_, rest, found := strings.Cut(err.Error(), "rejecting ")
	size, _, manifest := strings.Cut(rest, " byte manifest for ")
	if !found || !manifest {
		return ""
	}
	return size
}

// denied reports whether the registry refused, with or without credentials. Registries
// answer in this way for repositories that do not exist, too.
func denied(err error, hasStatus bool, status remoteerrors.ErrUnexpectedStatus) bool {
	if errors.Is(err, docker.ErrInvalidAuthorization) {
		return true
	}
	if hasStatus {
		return status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden
	}
	return strings.Contains(err.Error(), "no basic auth credentials") ||
		strings.Contains(err.Error(), "missing username or secret")
}

// unreachable says in a few words why there was no answer, or "" if that is not it.
func unreachable(err error) string {
	var dns *net.DNSError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused; is it running, and is the port right?"
	case errors.As(err, &dns):
		return dns.Error() + "; check the name and this machine's DNS"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "no route to it from this machine"
	case errors.Is(err, syscall.ECONNRESET):
		return "the connection was reset"
	}
	text := err.Error()
	for _, layer := range []string{"tls: ", "x509: "} {
		if i := strings.Index(text, layer); i >= 0 {
			return text[i:] + "; put the certificate of its authority into /etc/docker/certs.d/HOST:PORT/ca.crt, or start the engine with --insecure-registry for it"
		}
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return "no answer in time"
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	if _, fault, broken := strings.Cut(text, "transport connection broken: "); broken {
		return "what answers there is no registry: " + strings.TrimPrefix(fault, "net/http: ")
	}
	if strings.Contains(text, "server gave HTTP response to HTTPS client") {
		return "it speaks plain HTTP; start the engine with --insecure-registry for it"
	}
	return ""
}

// registrySays gives the messages of the registry's error body, if it has some.
func registrySays(body []byte) string {
	var messages []string
	for _, e := range registryErrors(body) {
		if e.Message != "" {
			messages = append(messages, e.Message)
		}
	}
	if len(messages) == 0 {
		return ""
	}
	return " (" + strings.Join(messages, "; ") + ")"
}

// registryError is an error as the protocol writes it.
type registryError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// String is the error as Docker shows it: "denied: requested access to the resource is denied".
func (e registryError) String() string {
	code := strings.ToLower(strings.ReplaceAll(e.Code, "_", " "))
	if e.Message == "" || code == "" {
		return code + e.Message
	}
	return code + ": " + e.Message
}

// What is shown of a registry's own words.
const (
	maxErrors  = 3
	maxMessage = 300
)

// registryErrors reads an error body, which may hold anything. What it gives can be
// shown on a terminal.
func registryErrors(body []byte) []registryError {
	var parsed struct {
		Errors []registryError `json:"errors"`
	}
	if json.Unmarshal(body, &parsed) != nil {
		return nil
	}
	list := parsed.Errors[:min(len(parsed.Errors), maxErrors)]
	for i := range list {
		list[i].Code, list[i].Message = printable(list[i].Code), printable(list[i].Message)
	}
	return list
}

// printable shortens a foreign text and takes out what is not to be seen.
func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, text)
	if runes := []rune(text); len(runes) > maxMessage {
		text = string(runes[:maxMessage]) + "…"
	}
	return text
}

// brief is one host's answer in a few words.
func brief(err error) string {
	var h *hostError
	if !errors.As(err, &h) {
		return err.Error()
	}
	var status remoteerrors.ErrUnexpectedStatus
	switch {
	case errors.As(err, &status):
		return h.address + " answers " + status.Status
	case errdefs.IsNotFound(err):
		return h.address + " does not have it"
	}
	if text := unreachable(err); text != "" {
		text, _, _ = strings.Cut(text, ";")
		return h.address + ": " + text
	}
	return h.Error()
}

func classOf(err error) error {
	if c := failure.Class(err); c != nil {
		return c
	}
	return errdefs.ErrUnknown
}
