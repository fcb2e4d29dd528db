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

// serveMetrics tells metrics where --metrics-addr says, until the returned function is
// called.
func (s *services) serveMetrics(ctx context.Context, door *api.Server) (stop func(), err error) {
	if s.config.MetricsAddr == "" {
		return func() {}, nil
	}
	info, err := s.engine.Info(ctx)
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", s.config.MetricsAddr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.config.spell("metrics-addr"), err)
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
	go func() { _ = server.Serve(ln) }()
	s.log.Info("metrics are told", "address", "http://"+ln.Addr().String()+"/metrics")
	door.Around(registry.Time)
	return func() { cancel(); _ = server.Close() }, nil
}
