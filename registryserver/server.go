// Package registryserver serves an image registry (the OCI distribution protocol) from
// a directory: distribution v3 embedded, set up for one machine. It promises plain
// errors instead of panics for what cannot be served, no output of its own except
// through the log function that it is given, and a clean end: requests under way are
// finished, and every push that was answered is on disk.
//
// It can be searched as Docker Hub can, by whoever may see its catalogue.
//
// A registry whose repositories lie under library/ also answers as a mirror of Docker
// Hub, without further configuration.
package registryserver

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"

	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"             // the one way to log in
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // the one way to store

	"golang.org/x/sys/unix"
)

// Config says what to serve and how.
type Config struct {
	// Data is the directory of the repositories; it is made if missing.
	Data string
	// Htpasswd is a file of users with bcrypt passwords, as `htpasswd -B` writes it;
	// "" lets everybody in.
	Htpasswd string
	// TLSCert and TLSKey are files in PEM format; both or neither.
	TLSCert, TLSKey string
	// Log, if not nil, is told of each request answered with a fault, as a line
	// without its end. It may be called from many goroutines at a time.
	Log func(line string)
}

// Server is a registry that is ready to serve.
type Server struct {
	app *handlers.App
	tls *tls.Config
	log func(string)

	data      string
	held      *os.File // see hold
	referrers referrers
}

// New checks the configuration and opens the directory.
func New(ctx context.Context, cfg Config) (_ *Server, err error) {
	if cfg.Data == "" {
		return nil, errors.New("the registry needs a data directory (--data DIR)")
	}
	data, err := filepath.Abs(cfg.Data)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(data, 0o755); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	s := &Server{log: cfg.Log, data: data}
	if s.log == nil {
		s.log = func(string) {}
	}
	if (cfg.TLSCert == "") != (cfg.TLSKey == "") {
		return nil, errors.New("a certificate (--tls-cert) and its key (--tls-key) go together")
	}
	if cfg.TLSCert != "" {
		pair, err := tls.LoadX509KeyPair(cfg.TLSCert, cfg.TLSKey)
		if err != nil {
			return nil, fmt.Errorf("load the certificate: %w", err)
		}
		s.tls = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	dist, err := distributionConfig(data, cfg.Htpasswd)
	if err != nil {
		return nil, err
	}
	if s.held, err = hold(data, unix.LOCK_SH); errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("cleat-registry collect is at work in %s: wait until it has ended", data)
	} else if err != nil {
		return nil, err
	}
	// NewApp panics on what it cannot set up.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("set up the registry in %s: %v", data, p)
		}
	}()
	s.app = handlers.NewApp(ctx, dist)
	return s, nil
}

// catalogPage is how many repositories one answer of the catalogue may have.
const catalogPage = 1000

// fewerAtATime asks for as many repositories as an answer may have where a client asks for more: distribution refuses
// that, though the protocol lets an answer have fewer, and say where the next ones are.
func fewerAtATime(r *http.Request) *http.Request {
	query := r.URL.Query()
	if n, err := strconv.Atoi(query.Get("n")); err != nil || n <= catalogPage {
		return r
	}
	query.Set("n", strconv.Itoa(catalogPage))
	r = r.Clone(r.Context())
	r.URL.RawQuery = query.Encode()
	return r
}

func distributionConfig(data, htpasswd string) (*configuration.Configuration, error) {
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return nil, err
	}
	cfg := &configuration.Configuration{
		Version: "0.1",
		Storage: configuration.Storage{
			"filesystem": configuration.Parameters{"rootdirectory": data},
			"delete":     configuration.Parameters{"enabled": true},
			// An upload that was never finished goes away after a week.
			"maintenance": configuration.Parameters{"uploadpurging": map[any]any{
				"enabled": true, "age": "168h", "interval": "24h", "dryrun": false,
			}},
		},
	}
	cfg.Log.AccessLog.Disabled = true
	cfg.Catalog.MaxEntries = catalogPage
	cfg.HTTP.Secret = hex.EncodeToString(secret)
	if htpasswd != "" {
		// distribution would make the file, with a password that nobody knows.
		if _, err := os.Stat(htpasswd); err != nil {
			return nil, fmt.Errorf("the file of users: %w", err)
		}
		cfg.Auth = configuration.Auth{"htpasswd": configuration.Parameters{"realm": "cleat-registry", "path": htpasswd}}
	}
	return cfg, nil
}

// Handler serves the protocol under /v2/, referrers included, and searches.
func (s *Server) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sw := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		s.route(sw, r)
		// A 401 is the question for a password, a 404 the answer to "is it there?".
		if sw.status >= 400 && sw.status != http.StatusUnauthorized && sw.status != http.StatusNotFound {
			s.log(fmt.Sprintf("%s %s: %d %s", r.Method, r.URL.Path, sw.status, http.StatusText(sw.status)))
		}
	})
}

// route hands a request to who answers it: distribution, but for what that does not know.
func (s *Server) route(w *statusWriter, r *http.Request) {
	if r.URL.Path == "/v1/search" {
		s.search(w, r)
		return
	}
	if r.URL.Path == "/v2/_catalog" {
		r = fewerAtATime(r)
	}
	if name, subject, ok := referrersPath(r.URL.Path); ok && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		s.listReferrers(w, r, name, subject)
		return
	}
	s.app.ServeHTTP(w, tellSubject(w, r))
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
	// created adds to the header if something was made; nil adds nothing.
	created func(http.Header)
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	if status == http.StatusCreated && w.created != nil {
		w.created(w.Header())
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap gives http.ResponseController its way to the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// drainTime is how long requests under way may take once the end was asked for.
const drainTime = 10 * time.Second

// Serve answers on l until ctx ends, and then finishes the requests under way. It
// returns nil after such an end.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		TLSConfig:         s.tls,
	}
	failed := make(chan error, 1)
	go func() {
		if s.tls != nil {
			failed <- srv.ServeTLS(l, "", "")
		} else {
			failed <- srv.Serve(l)
		}
	}()
	select {
	case err := <-failed:
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	err := srv.Shutdown(drain)
	if err != nil {
		err = srv.Close()
	}
	<-failed
	return errors.Join(err, s.app.Shutdown(), s.held.Close())
}
