package assemble

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/cleatlabs/cleat/internal/api"
	"github.com/cleatlabs/cleat/internal/metrics"
)

// listenForMetrics listens where --metrics-addr says; it returns none if that is nowhere. It
// is called before anything is made, so that an address that is taken leaves nothing.
func listenForMetrics(c *Config) ([]net.Listener, error) {
	if c.MetricsAddr == "" {
		return nil, nil
	}
	ln, err := net.Listen("tcp", c.MetricsAddr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.spell("metrics-addr"), err)
	}
	return []net.Listener{ln}, nil
}

// serveMetrics tells metrics on the listeners until the returned function is called.
func (s *services) serveMetrics(ctx context.Context, listeners []net.Listener, door *api.Server) (stop func(), err error) {
	if len(listeners) == 0 {
		return func() {}, nil
	}
	info, err := s.engine.Info(ctx)
	if err != nil {
		return nil, err
	}
	registry := metrics.New(metrics.Engine{
		ID: info.ID, Version: info.ServerVersion, Commit: s.config.Commit, Driver: info.Driver, Kernel: info.KernelVersion, Architecture: info.Architecture,
		OS: info.OperatingSystem, OSType: info.OSType, OSVersion: info.OSVersion, CPUs: info.NCPU, Memory: info.MemTotal,
	}, func() metrics.Counts {
		n := s.engine.ContainerCounts()
		return metrics.Counts{Running: n.Running, Paused: n.Paused, Stopped: n.Stopped}
	})
	_, events, cancel := s.bus.Subscribe(time.Time{}, time.Time{}, nil)
	s.tasks.Go("metrics-events", func(ctx context.Context) { metrics.CountEvents(ctx, registry, events) })
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", registry)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute}
	for _, ln := range listeners {
		go func() { _ = server.Serve(ln) }()
		s.log.Info("metrics are told", "address", "http://"+ln.Addr().String()+"/metrics")
	}
	door.Around(registry.Time)
	return func() { cancel(); _ = server.Close() }, nil
}
