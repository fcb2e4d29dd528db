package assemble

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/cleatlabs/cleat/internal/api"
	"github.com/cleatlabs/cleat/internal/kernel"
)

// monitorSlack costs nobody anything that shows: a goroutine waits for a processor by so much longer where all are held
// up in system calls.
const monitorSlack = time.Millisecond

// Run is the engine: it returns after SIGTERM or SIGINT, or when it cannot
// start or go on. out gets one line when the engine is ready.
func Run(ctx context.Context, c Config, out io.Writer) error {
	if os.Geteuid() != 0 {
		return errors.New("cleatd isolates and connects containers, which needs root: start it with sudo or from a service manager")
	}
	level, err := c.level()
	if err != nil {
		return err
	}
	adjustable := &slog.LevelVar{}
	adjustable.Set(level)
	log := newLogger(c.LogFormat, adjustable)
	slog.SetDefault(log)
	logrus.SetLevel(logrus.ErrorLevel) // of the libraries that log by themselves
	if err := kernel.RelaxMonitor(monitorSlack); err != nil {
		log.Debug("the engine takes more of the processors than it need", "error", err)
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	defer signal.Stop(signals)

	metrics, err := listenForMetrics(&c)
	if err != nil {
		return err
	}
	defer closeAll(metrics)
	s, err := open(ctx, c, log, adjustable)
	if err != nil {
		return err
	}
	defer s.close()
	if err := c.leaveFlags(); err != nil {
		log.Warn("the containers that go on without an engine are not stopped when the machine goes down", "error", err)
	}
	for _, w := range c.Warnings {
		log.Warn(w)
	}
	debug, err := s.serveDebug()
	if err != nil {
		return err
	}
	defer debug()
	server := api.NewServer(s.handler)
	quiet, err := s.serveMetrics(ctx, metrics, server)
	if err != nil {
		return err
	}
	defer quiet()
	return s.serve(ctx, server, signals, out)
}

// serve answers clients until the engine is to end or a socket fails, and lets calls in progress end.
func (s *services) serve(ctx context.Context, server *api.Server, signals <-chan os.Signal, out io.Writer) error {
	failed := make(chan error, len(s.listeners))
	for _, ln := range s.listeners {
		go func() { failed <- server.Serve(ln) }()
	}
	fmt.Fprintf(out, "cleatd %s is ready: API %s on %s\n", s.config.Version, api.MaxVersion, addresses(s.listeners))
	notify("READY=1")
	err := s.await(ctx, signals, failed)
	notify("STOPPING=1")
	s.endWithMachine()
	stopping, cancel := context.WithTimeout(context.Background(), time.Duration(s.config.ShutdownTimeout)*time.Second)
	defer cancel()
	if serr := server.Shutdown(stopping); serr != nil {
		s.log.Warn("calls in progress were cut off", "error", serr)
	}
	return err
}

// await returns when the engine is to end.
func (s *services) await(ctx context.Context, signals <-chan os.Signal, failed <-chan error) error {
	for {
		select {
		case sig := <-signals:
			switch sig {
			case syscall.SIGHUP:
				s.reload()
			case syscall.SIGPIPE:
			default:
				s.log.Info("the engine ends", "signal", sig.String())
				return nil
			}
		case err := <-failed:
			return fmt.Errorf("serve the API: %w", err)
		case <-ctx.Done():
			return nil
		}
	}
}

// socketGroup returns the id of the named group, else of docker, else of
// cleat, else -1: then only root reaches the engine.
func socketGroup(name string) (int, error) {
	candidates := []string{"docker", "cleat"}
	if name != "" {
		candidates = []string{name}
	}
	for _, n := range candidates {
		if g, err := user.LookupGroup(n); err == nil {
			return strconv.Atoi(g.Gid)
		}
		if gid, err := strconv.Atoi(n); err == nil && gid >= 0 {
			return gid, nil
		}
	}
	if name != "" {
		return 0, fmt.Errorf("--group: there is no group %q", name)
	}
	return -1, nil
}

func closeAll(ls []net.Listener) {
	for _, l := range ls {
		_ = l.Close()
	}
}

func newLogger(format string, level slog.Leveler) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	to := func(w io.Writer) slog.Handler {
		if format == "json" {
			return slog.NewJSONHandler(w, opts)
		}
		return slog.NewTextHandler(w, opts)
	}
	if isJournal(os.Stderr, os.Getenv("JOURNAL_STREAM")) {
		return slog.New(journalHandler(os.Stderr, to))
	}
	return slog.New(to(os.Stderr))
}

// notify tells a service manager about the engine's state, if one asked.
func notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	if path[0] == '@' {
		path = "\x00" + path[1:]
	} else if !filepath.IsAbs(path) {
		return
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		slog.Warn("the service manager cannot be told of the engine's state", "error", err)
		return
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(state))
}
