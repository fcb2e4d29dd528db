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

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/api"
	"github.com/cleatlabs/cleat/internal/build"
	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/mount"
	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/internal/systemd"
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
		s.engine.Debug.Settle(r.Context()) // what nobody waits for is no difference
		reply(w, strings.Join(append(engine.Check(s.containers, s.base, s.networks.Check), s.builder.Check()...), "\n"), nil)
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

// DebugLaunch prints the launch program by which the running engine would start a container.
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
	group, err := c.ownGroup()
	if err != nil {
		return "", err
	}
	settings := engine.Settings{DataRoot: c.DataRoot, ExecRoot: c.ExecRoot, CgroupParent: group, Slices: systemd.Booted()}
	diff := engine.Check(containers, settings, func(running []*network.Sandbox) []string {
		diff, err := network.Check(c.network(), running)
		if err != nil {
			return []string{err.Error()}
		}
		return diff
	})
	return strings.Join(append(diff, build.Check(c.buildRoot(), c.temporary())...), "\n"), nil
}

// DebugTeardown removes what an engine with these flags leaves behind: bridge,
// nftables table, what is mounted for volumes and builds, cgroups, exec root, sockets and pidfile. It refuses while an
// engine or a container runs. Images, containers and volumes stay. What else
// stays is an error, or is said on out if it is not ours to remove.
func DebugTeardown(ctx context.Context, c Config, out io.Writer) error {
	if os.Geteuid() != 0 {
		return errors.New("tearing down needs root: start it with sudo")
	}
	for _, root := range []string{c.DataRoot, c.ExecRoot} {
		if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		lock, err := lockDir(root)
		if err != nil {
			return err
		}
		defer lock.Close()
	}
	group, err := c.ownGroup()
	if err != nil {
		return err
	}
	if err := errors.Join(c.refuseRunning(), refusePopulated(group)); err != nil {
		return err
	}
	return errors.Join(c.teardownNetwork(ctx, out), mount.UnmountAll(filepath.Join(c.DataRoot, "volumes")),
		build.Sweep(c.buildRoot(), c.temporary()), removeCgroups(group), c.removeSockets(), dropStale(c.Pidfile), os.RemoveAll(c.ExecRoot))
}

// teardownNetwork removes bridge and table. Without the engine's data nobody knows
// whether a bridge that is there is ours.
func (c *Config) teardownNetwork(ctx context.Context, out io.Writer) error {
	n := c.network()
	_, err := os.Stat(c.DataRoot)
	known := err == nil
	if !known {
		dir, err := os.MkdirTemp("", "cleat-teardown-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		n.StateFile = filepath.Join(dir, "network.json")
	}
	networks, err := network.Open(ctx, n)
	if err != nil {
		return err
	}
	if err := networks.Teardown(); err != nil {
		return err
	}
	if _, err := net.InterfaceByName(c.Bridge); err != nil {
		return nil
	}
	if !known {
		return fmt.Errorf("bridge %s stays: there is no engine's data in %s that would say whether it is the engine's; remove it with: ip link delete %s",
			c.Bridge, c.DataRoot, c.Bridge)
	}
	_, err = fmt.Fprintf(out, "bridge %s stays: it was there before the engine\n", c.Bridge)
	return err
}

// removeSockets removes the sockets that the flags name and nobody serves.
func (c *Config) removeSockets() error {
	var errs []error
	for _, h := range c.Hosts {
		path, isUnix := strings.CutPrefix(h, "unix://")
		if !isUnix {
			continue
		}
		conn, err := net.Dial("unix", path)
		switch {
		case err == nil:
			conn.Close()
			errs = append(errs, fmt.Errorf("socket %s stays: somebody serves it", path))
		case errors.Is(err, unix.ECONNREFUSED):
			errs = append(errs, os.Remove(path))
		}
	}
	return errors.Join(errs...)
}

// dropStale removes a pidfile.
func dropStale(path string) error {
	if path == "" {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// refusePopulated is an error if a process is in the engine's groups, whatever the
// records say.
func refusePopulated(parent string) error {
	for _, pattern := range []string{"/sys/fs/cgroup" + parent, "/sys/fs/cgroup/*" + parent} {
		groups, _ := filepath.Glob(pattern + "/*/cgroup.procs")
		for _, g := range groups {
			if procs, err := os.ReadFile(g); err == nil && len(procs) > 0 {
				return failure.Conflict("process %s is in the control group %s: start the engine, which ends what belongs to no container, or end it yourself",
					strings.Join(strings.Fields(string(procs)), ", "), filepath.Dir(g))
			}
		}
	}
	return nil
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
