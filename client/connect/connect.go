// Package connect finds the engine that a client program is to speak to: by its flags, its
// environment and the contexts that Docker's clients store, in Docker's order of
// precedence, with Cleat's own socket as the default. All of Cleat's client programs use
// it, so that they reach the same engine when they are given the same flags. It also says
// what to do about an engine that cannot be reached.
package connect

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/opts"
	"github.com/docker/go-connections/tlsconfig"
	"github.com/moby/moby/client"
	"github.com/spf13/pflag"
)

const (
	// CleatSocket is where an engine listens by default.
	CleatSocket  = "/run/cleat.sock"
	dockerSocket = "/var/run/docker.sock"
)

// DefaultContext is the context that is made of the flags and the environment.
const DefaultContext = "default"

// Options are the flags that stand before the command.
type Options struct {
	ConfigDir, Context, LogLevel string
	Hosts                        []string
	Debug, TLS, TLSVerify        bool
	TLSCA, TLSCert, TLSKey       string
	Version                      bool

	flags *pflag.FlagSet // where they were given; nil if they were not
}

// Install adds the flags to fs, with the environment's values as their defaults.
func (o *Options) Install(fs *pflag.FlagSet) {
	o.flags = fs
	certDir := certDir()
	fs.StringVar(&o.ConfigDir, "config", config.Dir(), "Location of client config files")
	fs.StringVarP(&o.Context, "context", "c", "", `Name of the context to use to connect to the daemon (overrides DOCKER_HOST env var and default context set with "cleat context use")`)
	fs.BoolVarP(&o.Debug, "debug", "D", false, "Enable debug mode")
	fs.VarP(opts.NewListOptsRef(&o.Hosts, nil), "host", "H", "Daemon socket to connect to")
	fs.StringVarP(&o.LogLevel, "log-level", "l", "info", `Set the logging level ("debug", "info", "warn", "error", "fatal")`)
	fs.BoolVar(&o.TLS, "tls", os.Getenv("DOCKER_TLS") != "", "Use TLS; implied by --tlsverify")
	fs.StringVar(&o.TLSCA, "tlscacert", filepath.Join(certDir, "ca.pem"), "Trust certs signed only by this CA")
	fs.StringVar(&o.TLSCert, "tlscert", filepath.Join(certDir, "cert.pem"), "Path to TLS certificate file")
	fs.StringVar(&o.TLSKey, "tlskey", filepath.Join(certDir, "key.pem"), "Path to TLS key file")
	fs.BoolVar(&o.TLSVerify, "tlsverify", os.Getenv("DOCKER_TLS_VERIFY") != "", "Use TLS and verify the remote")
	fs.BoolVarP(&o.Version, "version", "v", false, "Print version information and quit")
}

// certDir is where certificates are looked for that no flag names.
func certDir() string {
	if dir := os.Getenv("DOCKER_CERT_PATH"); dir != "" {
		return dir
	}
	return defaultCertDir()
}

func defaultCertDir() string { return config.Dir() }

// Check says what of the flags contradicts itself.
func (o *Options) Check() error {
	switch o.LogLevel {
	case "debug", "info", "warn", "warning", "error", "fatal", "panic", "trace":
	default:
		return fmt.Errorf("Unable to parse logging level: %s", o.LogLevel) //nolint:staticcheck // Docker's text
	}
	if len(o.Hosts) > 1 {
		return errors.New("specify only one -H")
	}
	if len(o.Hosts) > 0 && o.Context != "" {
		return errors.New("conflicting options: cannot specify both --host and --context")
	}
	return nil
}

// Endpoint is where the engine is and how to reach it. The paths are empty where nobody named a file and there is none.
type Endpoint struct {
	Host       string // a URL
	CAFile     string
	CertFile   string
	KeyFile    string
	TLS        bool
	SkipVerify bool
}

// Dir is where the user's configuration lies.
func (o *Options) Dir() string {
	if o.ConfigDir != "" {
		return o.ConfigDir
	}
	return config.Dir()
}

// ContextName is the context in force, by Docker's order of precedence. The configuration,
// whose CurrentContext comes last, is read only if nothing else decides.
func (o *Options) ContextName(configuration func() *configfile.ConfigFile) string {
	switch {
	case o.Context != "":
		return o.Context
	case len(o.Hosts) > 0, os.Getenv("DOCKER_HOST") != "":
		return DefaultContext
	case os.Getenv("DOCKER_CONTEXT") != "":
		return os.Getenv("DOCKER_CONTEXT")
	}
	if current := configuration().CurrentContext; current != "" {
		return current
	}
	return DefaultContext
}

// Endpoint is the one of the context in force.
func (o *Options) Endpoint(configuration func() *configfile.ConfigFile) (Endpoint, error) {
	if name := o.ContextName(configuration); name != DefaultContext {
		return o.contextEndpoint(name)
	}
	return o.DefaultEndpoint()
}

// DefaultEndpoint is the one of no stored context: by the flags and the environment.
func (o *Options) DefaultEndpoint() (Endpoint, error) {
	// As with Docker, --tlsverify=false is TLS without verification.
	verification := o.flags != nil && o.flags.Changed("tlsverify")
	ep := Endpoint{TLS: o.TLS || o.TLSVerify || verification, SkipVerify: !o.TLSVerify}
	if ep.TLS {
		ep.CAFile, ep.CertFile, ep.KeyFile = o.certificates()
	}
	host := os.Getenv("DOCKER_HOST")
	if len(o.Hosts) > 0 {
		host = o.Hosts[0]
	}
	if host == "" {
		ep.Host = "unix://" + DefaultSocket()
		return ep, nil
	}
	parsed, err := parseHost(ep.TLS, host)
	ep.Host = parsed
	return ep, err
}

func parseHost(tls bool, host string) (string, error) {
	if strings.HasPrefix(host, "ssh://") {
		return host, nil
	}
	if strings.HasPrefix(host, "/") {
		return "", fmt.Errorf("invalid host %q: the path of a socket is written unix://%s", host, host)
	}
	if _, address, isWeb := strings.Cut(host, "://"); isWeb && strings.HasPrefix(host, "http") {
		return "", fmt.Errorf("invalid host %q: an address with a port is written tcp://%s, with TLS as without", host, address)
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

// DefaultSocket is Cleat's own socket; without one, Docker's, which Cleat serves
// too or another engine does.
func DefaultSocket() string {
	for _, path := range []string{CleatSocket, dockerSocket} {
		if _, err := os.Stat(path); err == nil || errors.Is(err, os.ErrPermission) {
			return path
		}
	}
	return CleatSocket
}

// contextEndpoint reads what `docker context create` has stored.
func (o *Options) contextEndpoint(name string) (Endpoint, error) {
	sum := sha256.Sum256([]byte(name))
	id := hex.EncodeToString(sum[:])
	path := filepath.Join(o.Dir(), "contexts", "meta", id, "meta.json")
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return Endpoint{}, fmt.Errorf("context %q: context not found: %w", name, err)
	}
	if err != nil {
		return Endpoint{}, fmt.Errorf("context %q: %w", name, err)
	}
	var meta struct {
		Endpoints map[string]*struct {
			Host          string
			SkipTLSVerify bool
		}
	}
	if err := json.Unmarshal(data, &meta); err != nil {
		return Endpoint{}, fmt.Errorf("context %q: %s: %w", name, path, err)
	}
	docker := meta.Endpoints["docker"]
	if docker == nil {
		return Endpoint{}, fmt.Errorf("context %q has no docker endpoint", name)
	}
	ep := Endpoint{SkipVerify: docker.SkipTLSVerify}
	certs := filepath.Join(o.Dir(), "contexts", "tls", id, "docker")
	ep.CAFile, ep.CertFile, ep.KeyFile = existing(filepath.Join(certs, "ca.pem")), existing(filepath.Join(certs, "cert.pem")), existing(filepath.Join(certs, "key.pem"))
	ep.TLS = ep.CAFile != "" || ep.CertFile != "" || ep.SkipVerify
	if ep.Host, err = parseHost(ep.TLS, docker.Host); err != nil {
		return Endpoint{}, fmt.Errorf("context %q: %w", name, err)
	}
	return ep, nil
}

// Client makes an API client of the engine at the endpoint in force, to which the program is known as agent. Nothing is
// sent yet. host is where the engine is as the user wrote it, which over ssh the client itself does not know.
func (o *Options) Client(configuration func() *configfile.ConfigFile, agent string, more ...client.Opt) (c *client.Client, host string, err error) {
	ep, err := o.Endpoint(configuration)
	if err != nil {
		return nil, "", fmt.Errorf("Failed to initialize: unable to resolve docker endpoint: %w", err) //nolint:staticcheck // Docker's text
	}
	options, err := ep.ClientOptions()
	if err != nil {
		return nil, ep.Host, err
	}
	options = append(options, client.WithUserAgent(agent))
	headers, err := Headers(configuration())
	if err != nil {
		return nil, ep.Host, fmt.Errorf("Failed to initialize: %w", err) //nolint:staticcheck // Docker's text
	}
	if len(headers) > 0 {
		options = append(options, client.WithHTTPHeaders(headers))
	}
	if c, err = client.New(append(options, more...)...); err != nil {
		return nil, ep.Host, fmt.Errorf("Failed to initialize: %w", err) //nolint:staticcheck // Docker's text
	}
	return c, ep.Host, nil
}

// ClientOptions are what reaches the endpoint.
func (ep Endpoint) ClientOptions() ([]client.Opt, error) {
	if strings.HasPrefix(ep.Host, "ssh://") {
		helper, err := overSSH(ep.Host)
		if err != nil {
			return nil, fmt.Errorf("Failed to initialize: unable to resolve docker endpoint: %w", err) //nolint:staticcheck // Docker's text
		}
		return []client.Opt{client.WithHost(helper.Host), client.WithDialContext(helper.Dialer)}, nil
	}
	// What is done at once for all services of an application goes on over the same connections: without this, two of
	// them would stay and the others be made again for each step.
	transport := &http.Transport{
		MaxIdleConns: keptConnections, MaxIdleConnsPerHost: keptConnections, IdleConnTimeout: 30 * time.Second,
		DialContext: (&net.Dialer{}).DialContext, // replaced, but one without it would be made ready for TLS
	}
	if ep.TLS && !strings.HasPrefix(ep.Host, "unix://") {
		cfg, err := tlsconfig.Client(tlsconfig.Options{
			CAFile: ep.CAFile, CertFile: ep.CertFile, KeyFile: ep.KeyFile,
			InsecureSkipVerify: ep.SkipVerify, ExclusiveRootPools: ep.CAFile != "",
		})
		if err != nil {
			return nil, fmt.Errorf("Failed to initialize: unable to read the TLS certificates: %w", err) //nolint:staticcheck // Docker's text
		}
		transport.TLSClientConfig = cfg
	}
	return []client.Opt{client.WithHTTPClient(&http.Client{Transport: transport, CheckRedirect: client.CheckRedirect}), client.WithHost(ep.Host)}, nil
}

// keptConnections is how many connections stay while nothing is sent over them.
const keptConnections = 64
