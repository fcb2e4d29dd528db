package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/cli/cli/connhelper"
	"github.com/docker/cli/opts"
	"github.com/docker/go-connections/tlsconfig"
	"github.com/moby/moby/client"
	"github.com/spf13/pflag"
)

const (
	cleatSocket  = "/run/cleat.sock"
	dockerSocket = "/var/run/docker.sock"
)

// globalOptions are the flags that stand before the command.
type globalOptions struct {
	configDir, context, logLevel string
	hosts                        []string
	debug, tls, tlsVerify        bool
	tlsCA, tlsCert, tlsKey       string
	tlsSet                       bool // --tlsverify was given, even as false
	version, help                bool
}

func (g *globalOptions) install(fs *pflag.FlagSet, configDir, certDir string) {
	fs.StringVar(&g.configDir, "config", configDir, "Location of client config files")
	fs.StringVarP(&g.context, "context", "c", "", `Name of the context to use to connect to the daemon (overrides DOCKER_HOST env var and default context set with "docker context use")`)
	fs.BoolVarP(&g.debug, "debug", "D", false, "Enable debug mode")
	fs.VarP(opts.NewListOptsRef(&g.hosts, nil), "host", "H", "Daemon socket to connect to")
	fs.StringVarP(&g.logLevel, "log-level", "l", "info", `Set the logging level ("debug", "info", "warn", "error", "fatal")`)
	fs.BoolVar(&g.tls, "tls", os.Getenv("DOCKER_TLS") != "", "Use TLS; implied by --tlsverify")
	fs.StringVar(&g.tlsCA, "tlscacert", filepath.Join(certDir, "ca.pem"), "Trust certs signed only by this CA")
	fs.StringVar(&g.tlsCert, "tlscert", filepath.Join(certDir, "cert.pem"), "Path to TLS certificate file")
	fs.StringVar(&g.tlsKey, "tlskey", filepath.Join(certDir, "key.pem"), "Path to TLS key file")
	fs.BoolVar(&g.tlsVerify, "tlsverify", os.Getenv("DOCKER_TLS_VERIFY") != "", "Use TLS and verify the remote")
	fs.BoolVarP(&g.version, "version", "v", false, "Print version information and quit")
}

func (g *globalOptions) check() error {
	switch g.logLevel {
	case "debug", "info", "warn", "warning", "error", "fatal", "panic", "trace":
	default:
		return fmt.Errorf("Unable to parse logging level: %s", g.logLevel) //nolint:staticcheck // Docker's text
	}
	if len(g.hosts) > 1 {
		return errors.New("specify only one -H")
	}
	if len(g.hosts) > 0 && g.context != "" {
		return errors.New("conflicting options: cannot specify both --host and --context")
	}
	return nil
}

// endpoint is where the engine is and how to reach it.
type endpoint struct {
	host       string
	caFile     string
	certFile   string
	keyFile    string
	tls        bool
	skipVerify bool
}

// contextName is the context in force, by Docker's order of precedence.
func (a *app) contextName() string {
	switch {
	case a.globals.context != "":
		return a.globals.context
	case len(a.globals.hosts) > 0, os.Getenv("DOCKER_HOST") != "":
		return "default"
	case os.Getenv("DOCKER_CONTEXT") != "":
		return os.Getenv("DOCKER_CONTEXT")
	case a.config().CurrentContext != "":
		return a.config().CurrentContext
	default:
		return "default"
	}
}

func (a *app) endpoint() (endpoint, error) {
	if name := a.contextName(); name != "default" {
		return a.contextEndpoint(name)
	}
	return a.defaultEndpoint()
}

// defaultEndpoint is the one of no stored context: by the flags and the environment.
func (a *app) defaultEndpoint() (endpoint, error) {
	g := a.globals
	ep := endpoint{tls: g.tls || g.tlsVerify, skipVerify: !g.tlsVerify}
	if ep.tls {
		ep.caFile, ep.certFile, ep.keyFile = existing(g.tlsCA), existing(g.tlsCert), existing(g.tlsKey)
	}
	host := os.Getenv("DOCKER_HOST")
	if len(g.hosts) > 0 {
		host = g.hosts[0]
	}
	if host == "" {
		ep.host = "unix://" + defaultSocket()
		return ep, nil
	}
	parsed, err := parseHost(ep.tls, host)
	ep.host = parsed
	return ep, err
}

func parseHost(tls bool, host string) (string, error) {
	if strings.HasPrefix(host, "ssh://") {
		return host, nil
	}
	return opts.ParseHost(tls, host)
}

// existing is path if there is such a file: the default certificate paths are used
// only where the user has put something there.
func existing(path string) string {
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// defaultSocket is Cleat's own socket; without one, Docker's, which Cleat serves
// too or another engine does.
func defaultSocket() string {
	for _, path := range []string{cleatSocket, dockerSocket} {
		if _, err := os.Stat(path); err == nil || errors.Is(err, os.ErrPermission) {
			return path
		}
	}
	return cleatSocket
}

// contextEndpoint reads what `docker context create` has stored.
func (a *app) contextEndpoint(name string) (endpoint, error) {
	sum := sha256.Sum256([]byte(name))
	id := hex.EncodeToString(sum[:])
	path := filepath.Join(a.configDir(), "contexts", "meta", id, "meta.json")
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return endpoint{}, fmt.Errorf("context %q: context not found: %w", name, err)
	}
	if err != nil {
		return endpoint{}, fmt.Errorf("context %q: %w", name, err)
	}
	var meta struct {
		Endpoints map[string]struct {
			Host          string
			SkipTLSVerify bool
		}
	}
	if err := json.Unmarshal(data, &meta); err != nil {
		return endpoint{}, fmt.Errorf("context %q: %s: %w", name, path, err)
	}
	docker, ok := meta.Endpoints["docker"]
	if !ok {
		return endpoint{}, fmt.Errorf("context %q has no docker endpoint", name)
	}
	ep := endpoint{skipVerify: docker.SkipTLSVerify}
	certs := filepath.Join(a.configDir(), "contexts", "tls", id, "docker")
	ep.caFile, ep.certFile, ep.keyFile = existing(filepath.Join(certs, "ca.pem")), existing(filepath.Join(certs, "cert.pem")), existing(filepath.Join(certs, "key.pem"))
	ep.tls = ep.caFile != "" || ep.certFile != "" || ep.skipVerify
	if ep.host, err = parseHost(ep.tls, docker.Host); err != nil {
		return endpoint{}, fmt.Errorf("context %q: %w", name, err)
	}
	return ep, nil
}

// api connects to the engine on first use. Nothing is sent yet, unless the API
// version is to be negotiated.
func (a *app) api(ctx context.Context) (*client.Client, error) {
	if a.conn != nil {
		return a.conn, nil
	}
	ep, err := a.endpoint()
	if err != nil {
		return nil, fmt.Errorf("Failed to initialize: unable to resolve docker endpoint: %w", err) //nolint:staticcheck // Docker's text
	}
	options, err := ep.options()
	if err != nil {
		return nil, err
	}
	headers := a.config().HTTPHeaders
	options = append(options, client.WithUserAgent(a.userAgent()))
	if len(headers) > 0 {
		options = append(options, client.WithHTTPHeaders(headers))
	}
	switch pinned := os.Getenv("DOCKER_API_VERSION"); {
	case pinned != "":
		options = append(options, client.WithAPIVersion(pinned))
	case !a.negotiate:
		options = append(options, client.WithAPIVersion(client.MaxAPIVersion))
	}
	c, err := client.New(options...)
	if err != nil {
		return nil, fmt.Errorf("Failed to initialize: %w", err) //nolint:staticcheck // Docker's text
	}
	a.conn = c
	return c, nil
}

// negotiated is api, having asked the engine which version it speaks: for requests
// that cannot be sent twice.
func (a *app) negotiated(ctx context.Context) (*client.Client, error) {
	c, err := a.api(ctx)
	if err != nil || a.negotiate || os.Getenv("DOCKER_API_VERSION") != "" {
		return c, err
	}
	_, err = c.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true, ForceNegotiate: true})
	return c, err
}

func (ep endpoint) options() ([]client.Opt, error) {
	helper, err := connhelper.GetConnectionHelper(ep.host)
	if err != nil {
		return nil, fmt.Errorf("Failed to initialize: unable to resolve docker endpoint: %w", err) //nolint:staticcheck // Docker's text
	}
	if helper != nil {
		return []client.Opt{client.WithHost(helper.Host), client.WithDialContext(helper.Dialer)}, nil
	}
	var options []client.Opt
	if ep.tls && !strings.HasPrefix(ep.host, "unix://") {
		cfg, err := tlsconfig.Client(tlsconfig.Options{
			CAFile: ep.caFile, CertFile: ep.certFile, KeyFile: ep.keyFile,
			InsecureSkipVerify: ep.skipVerify, ExclusiveRootPools: ep.caFile != "",
		})
		if err != nil {
			return nil, fmt.Errorf("Failed to initialize: unable to read the TLS certificates: %w", err) //nolint:staticcheck // Docker's text
		}
		options = append(options, client.WithHTTPClient(&http.Client{
			Transport:     &http.Transport{TLSClientConfig: cfg},
			CheckRedirect: client.CheckRedirect,
		}))
	}
	return append(options, client.WithHost(ep.host)), nil
}

func (a *app) userAgent() string { return "cleat-client/" + a.version + " (linux)" }
