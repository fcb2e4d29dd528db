package assemble

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cleatlabs/cleat/internal/api"
	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/network"
)

// debugSocket is the private endpoint of a running engine, below its exec root.
const debugSocket = "debug.sock"

// serveDebug answers `cleatd debug` until the returned function is called.
func (s *services) serveDebug() (stop func(), err error) {
	ln, err := api.Listen(filepath.Join(s.config.ExecRoot, debugSocket), -1)
	if err != nil {
		return nil, fmt.Errorf("private endpoint: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /launch", func(w http.ResponseWriter, r *http.Request) {
		text, err := s.engine.Debug.Launch(r.Context(), r.URL.Query().Get("container"))
		reply(w, text, err)
	})
	mux.HandleFunc("GET /fsck", func(w http.ResponseWriter, r *http.Request) {
		reply(w, strings.Join(engine.Check(s.containers, s.settings()), "\n"), nil)
	})
	mux.HandleFunc("GET /tasks", func(w http.ResponseWriter, r *http.Request) {
		reply(w, strings.Join(s.tasks.Running(), "\n"), nil)
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(ln) }()
	return func() { _ = server.Close() }, nil
}

func reply(w http.ResponseWriter, text string, err error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err != nil {
		w.WriteHeader(http.StatusUnprocessableEntity)
		text = err.Error()
	}
	_, _ = io.WriteString(w, text)
}

// errNotRunning says that no engine answers on the private endpoint.
var errNotRunning = errors.New("no engine is running on this exec root")

// ask sends a question to the running engine.
func ask(ctx context.Context, c *Config, path string) (string, error) {
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(c.ExecRoot, debugSocket))
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine"+path, nil)
	if err != nil {
		return "", err
	}
	res, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("%w (%s): %w", errNotRunning, c.ExecRoot, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusOK {
		return "", errors.New(string(body))
	}
	return string(body), nil
}

// DebugLaunch prints the launch program of a container.
func DebugLaunch(ctx context.Context, c Config, name string, out io.Writer) error {
	text, err := ask(ctx, &c, "/launch?container="+url.QueryEscape(name))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, strings.TrimRight(text, "\n"))
	return err
}

// DebugFsck compares records with the kernel, through the running engine or,
// when there is none, by itself. Differences are printed and an error.
func DebugFsck(ctx context.Context, c Config, out io.Writer) error {
	text, err := ask(ctx, &c, "/fsck")
	if errors.Is(err, errNotRunning) {
		text, err = c.checkOffline()
	}
	if err != nil {
		return err
	}
	if text == "" {
		_, err = fmt.Fprintln(out, "records and kernel agree")
		return err
	}
	fmt.Fprintln(out, text)
	return fmt.Errorf("%d differences", strings.Count(text, "\n")+1)
}

func (c *Config) checkOffline() (string, error) {
	dir := filepath.Join(c.DataRoot, "containers")
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("there is no engine's data in %s: %w", c.DataRoot, err)
	}
	lock, err := lockDir(c.DataRoot)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	containers, err := container.Open(dir)
	if err != nil {
		return "", err
	}
	return strings.Join(engine.Check(containers, engine.Settings{ExecRoot: c.ExecRoot, CgroupParent: c.CgroupParent}), "\n"), nil
}

// DebugTeardown removes what an engine with these flags leaves in the kernel:
// bridge, nftables table, cgroups and the exec root. It refuses while an engine
// or a container runs. Images, containers and volumes stay.
func DebugTeardown(ctx context.Context, c Config) error {
	if os.Geteuid() != 0 {
		return errors.New("tearing down needs root")
	}
	if _, err := ask(ctx, &c, "/tasks"); err == nil {
		return fmt.Errorf("an engine (PID %d) is running: stop it first", readPID(filepath.Join(c.ExecRoot, "engine.lock")))
	}
	if err := c.refuseRunning(); err != nil {
		return err
	}
	var errs []error
	networks, err := network.Open(ctx, c.network())
	if err == nil {
		err = networks.Teardown()
	}
	errs = append(errs, err, removeCgroups(c.CgroupParent), os.RemoveAll(c.ExecRoot))
	return errors.Join(errs...)
}

// refuseRunning is an error if a process of a container is alive.
func (c *Config) refuseRunning() error {
	dir := filepath.Join(c.DataRoot, "containers")
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	containers, err := container.Open(dir)
	if err != nil {
		return err
	}
	for _, ct := range containers.All() {
		r := ct.Load()
		k := r.State.Keeper
		if k == nil {
			continue
		}
		if start, err := kernel.StartTime(k.PID); err == nil && start == k.PIDStart {
			return failure.Conflict("container %s (%s) is running: start the engine and stop it first", r.Name, r.ID[:12])
		}
	}
	return nil
}

// removeCgroups removes the engine's empty groups from every hierarchy.
func removeCgroups(parent string) error {
	var errs []error
	for _, pattern := range []string{"/sys/fs/cgroup" + parent, "/sys/fs/cgroup/*" + parent} {
		tops, err := filepath.Glob(pattern)
		errs = append(errs, err)
		for _, top := range tops {
			errs = append(errs, removeTree(top))
		}
	}
	return errors.Join(errs...)
}

// removeTree removes a group and those below it, deepest first. Groups are
// directories whose files cannot be deleted, so os.RemoveAll is of no use.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, removeTree(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(err, os.Remove(dir))
}
