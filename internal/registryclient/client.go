// Package registryclient talks to registries for the engine: which hosts and mirrors
// to ask for a name, in which scheme, with whose certificates and credentials, and
// what to tell the user when they do not answer as hoped.
package registryclient

// Config is how registries are reached.
type Config struct {
	// Mirrors are base URLs asked before Docker Hub, in this order.
	Mirrors []string
	// Insecure are hosts, host:port pairs and CIDRs that may be reached over plain
	// HTTP or with certificates that cannot be verified. Loopback addresses always may.
	Insecure []string
	// CertsDir holds a directory per host[:port] with *.crt (CA), *.cert and *.key
	// (client); "" is /etc/docker/certs.d.
	CertsDir string
	// UserAgent is sent with every request.
	UserAgent string
}

// Client reaches registries.
type Client struct{ cfg Config }

// New checks the configuration and makes a client.
func New(cfg Config) (*Client, error) { return &Client{cfg: cfg}, nil }
