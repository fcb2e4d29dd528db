// Package plugin speaks Docker's plugin protocol with volume drivers: programs of
// their own that serve JSON over a socket.
//
// A plugin is found by its name, anew at each look-up: by its socket
// (<sockets>/NAME.sock or <sockets>/NAME/NAME.sock), else by a file NAME.spec, which
// holds its address, or NAME.json, which may hold the settings of TLS too, in a
// directory of specifications or a directory NAME below.
//
// A plugin is somebody else's program: each call has a time limit, answers have a
// largest size, paths that it names are checked, and its error texts are cut and
// stripped of control characters. Nothing of it is run by this package.
package plugin

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/cleatlabs/cleat/internal/failure"
)

const (
	volumeDriver = "VolumeDriver"
	// media is the version of the protocol.
	media = "application/vnd.docker.plugins.v1.2+json"

	maxSpec   = 64 << 10
	maxAnswer = 16 << 20
	maxError  = 4 << 10
)

// Config says where plugins are found and how long they may take.
type Config struct {
	Sockets string   // "/run/docker/plugins"
	Specs   []string // "/etc/docker/plugins", "/usr/lib/docker/plugins"
	// Quick limits calls that only ask for something, Slow those that do something.
	Quick, Slow time.Duration
}

// Default is the configuration that Docker has.
func Default() Config {
	return Config{
		Sockets: "/run/docker/plugins", Specs: []string{"/etc/docker/plugins", "/usr/lib/docker/plugins"},
		Quick: time.Minute, Slow: 2 * time.Minute,
	}
}

// Registry finds plugins. Its methods may be called concurrently.
type Registry struct{ config Config }

// New makes a registry.
func New(c Config) *Registry { return &Registry{config: c} }

var validName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// Names lists the plugins that there are, whatever they implement, sorted.
func (r *Registry) Names() []string {
	var names []string
	look := func(dir string, endings ...string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return
		}
		for _, e := range entries {
			for _, ending := range endings {
				name, ok := strings.CutSuffix(e.Name(), ending)
				if !ok && e.IsDir() {
					name = e.Name()
					_, err := os.Stat(filepath.Join(dir, name, name+ending))
					ok = err == nil
				}
				if ok && validName.MatchString(name) {
					names = append(names, name)
				}
			}
		}
	}
	look(r.config.Sockets, ".sock")
	for _, dir := range r.config.Specs {
		look(dir, ".spec", ".json")
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// address is where a plugin is served.
type address struct {
	Addr      string
	TLSConfig *struct {
		InsecureSkipVerify        bool
		CAFile, CertFile, KeyFile string
	}
}

// find looks a plugin up by its name.
func (r *Registry) find(name string) (*address, error) {
	if !validName.MatchString(name) {
		return nil, notFound(name)
	}
	for _, p := range []string{name + ".sock", filepath.Join(name, name+".sock")} {
		path := filepath.Join(r.config.Sockets, p)
		if st, err := os.Stat(path); err == nil && st.Mode()&os.ModeSocket != 0 {
			return &address{Addr: "unix://" + path}, nil
		}
	}
	for _, dir := range r.config.Specs {
		for _, base := range []string{name, filepath.Join(name, name)} {
			for _, ending := range []string{".spec", ".json"} {
				a, err := readSpec(filepath.Join(dir, base+ending))
				if a != nil || err != nil {
					return a, err
				}
			}
		}
	}
	return nil, notFound(name)
}

func notFound(name string) error { return failure.NotFound("plugin %q not found", name) }

// readSpec reads a specification; nil without an error means that there is none.
func readSpec(path string) (*address, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSpec))
	if err != nil {
		return nil, err
	}
	var a address
	if filepath.Ext(path) == ".json" {
		if err := json.Unmarshal(data, &a); err != nil {
			return nil, failure.Invalid("%s: %w", path, err)
		}
	} else {
		a.Addr = strings.TrimSpace(string(data))
	}
	if _, _, err := a.target(); err != nil {
		return nil, failure.Invalid("%s: %w", path, err)
	}
	return &a, nil
}

// target splits the address for a dialler.
func (a *address) target() (network, at string, err error) {
	u, err := url.Parse(a.Addr)
	if err != nil {
		return "", "", err
	}
	switch {
	case u.Scheme == "unix" && filepath.IsAbs(u.Path):
		return "unix", u.Path, nil
	case (u.Scheme == "tcp" || u.Scheme == "http" || u.Scheme == "https") && u.Host != "":
		return "tcp", u.Host, nil
	}
	return "", "", fmt.Errorf("the plugin's address %q is neither unix:///PATH nor tcp://HOST:PORT", a.Addr)
}

func (a *address) tls() (*tls.Config, error) {
	if a.TLSConfig == nil {
		return nil, nil
	}
	c := &tls.Config{InsecureSkipVerify: a.TLSConfig.InsecureSkipVerify} //nolint:gosec // it is what the file asks for
	if ca := a.TLSConfig.CAFile; ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", ca)
		}
	}
	if a.TLSConfig.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(a.TLSConfig.CertFile, a.TLSConfig.KeyFile)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// Driver finds a plugin and asks it whether it is a volume driver. One that is not
// there is errdefs.ErrNotFound.
func (r *Registry) Driver(ctx context.Context, name string) (*Driver, error) {
	a, err := r.find(name)
	if err != nil {
		return nil, err
	}
	network, at, err := a.target()
	if err != nil {
		return nil, err
	}
	tlsConfig, err := a.tls()
	if err != nil {
		return nil, fmt.Errorf("plugin %q: %w", name, err)
	}
	d := &Driver{name: name, config: r.config, scheme: "http"}
	if tlsConfig != nil || strings.HasPrefix(a.Addr, "https:") {
		d.scheme = "https"
	}
	d.http = &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DisableKeepAlives: true, TLSClientConfig: tlsConfig,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, at)
			},
		},
	}
	var can struct{ Implements []string }
	if err := d.call(ctx, r.config.Quick, "Plugin.Activate", nil, &can); err != nil {
		return nil, err
	}
	if !slices.Contains(can.Implements, volumeDriver) {
		return nil, failure.NotFound("plugin %q is not a volume driver", name)
	}
	return d, nil
}

// Driver is a plugin that provides volumes.
type Driver struct {
	name, scheme string
	config       Config
	http         *http.Client
}

// call asks the plugin. An answer with an error, or none in time, is an error that
// names the call.
func (d *Driver) call(ctx context.Context, limit time.Duration, method string, in, out any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %v", limit))
	defer cancel()
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	if in == nil {
		body = nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.scheme+"://plugin/"+method, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Accept", media)
	req.Header.Set("Content-Type", media)
	fail := func(err error) error {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return failure.Unavailable("plugin %q: %s: %w", d.name, method, err)
	}
	resp, err := d.http.Do(req)
	if err != nil {
		return fail(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return fail(err)
	}
	if len(data) > maxAnswer {
		return fail(fmt.Errorf("the answer is larger than %d MiB", maxAnswer>>20))
	}
	var refused struct{ Err string }
	decodeErr := json.Unmarshal(data, &refused)
	switch {
	case decodeErr == nil && refused.Err != "":
		return fmt.Errorf("%s: %s", method, clean(refused.Err))
	case resp.StatusCode != http.StatusOK:
		return fail(fmt.Errorf("it answers %d: %s", resp.StatusCode, clean(string(data))))
	case decodeErr != nil:
		return fail(fmt.Errorf("the answer cannot be read: %w", decodeErr))
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fail(fmt.Errorf("the answer cannot be read: %w", err))
	}
	return nil
}

// clean makes a plugin's text fit to be shown.
func clean(s string) string {
	if len(s) > maxError {
		s = s[:maxError] + "…"
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, s))
}
