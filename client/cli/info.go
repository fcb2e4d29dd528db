package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/docker/cli/templates"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/security"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/connect"
)

// systemInfo is what templates of `info` see: the engine's fields, and the client's.
type systemInfo struct {
	*system.Info `json:",omitempty"`
	ServerErrors []string    `json:",omitempty"`
	ClientInfo   *clientInfo `json:",omitempty"`
	ClientErrors []string    `json:",omitempty"`
}

type clientInfo struct {
	Debug bool
	clientVersion
	Plugins  []struct{}
	Warnings []string
}

func (a *app) info() spec {
	return spec{
		use: "info [OPTIONS]", short: "Display system-wide information",
		args: a.noArgs, top: 12, shownAs: []string{"system info", "info"},
		setup: func(fs *pflag.FlagSet) action {
			format := fs.StringP("format", "f", "", inspectFormatHelp)
			return func(ctx context.Context, _ []string) error { return a.showInfo(ctx, *format) }
		},
	}
}

func (a *app) showInfo(ctx context.Context, format string) error {
	tmpl, err := templates.Parse(templateText(format))
	if err != nil {
		return &statusError{code: 64, msg: "template parsing error: " + err.Error(), cause: err}
	}
	c, err := a.api()
	if err != nil {
		return err
	}
	info := systemInfo{ClientInfo: &clientInfo{Debug: a.globals.Debug, clientVersion: a.clientVersion(c), Plugins: []struct{}{}}}
	res, serverErr := c.Info(ctx, client.InfoOptions{})
	switch {
	case isTooNew(serverErr):
		return serverErr
	case serverErr == nil:
		info.Info = &res.Info
	case format != "":
		info.Info = &system.Info{}
		info.ServerErrors = append(info.ServerErrors, a.explain(serverErr).Error())
	}
	if format == "" {
		return a.printInfo(info, serverErr)
	}
	if err := tmpl.Execute(a.out, info); err != nil {
		return errors.Join(serverErr, fmt.Errorf("template parsing error: %w", err))
	}
	_, _ = io.WriteString(a.out, "\n")
	return serverErr
}

func (a *app) printInfo(info systemInfo, serverErr error) error {
	c := info.ClientInfo
	_, _ = fmt.Fprintf(a.out, "Client:\n Version:    %s\n Context:    %s\n Debug Mode: %t\n\n", c.Version, c.Context, c.Debug)
	if serverErr != nil {
		if connect.IsUnreachable(serverErr) {
			return serverErr
		}
		_, _ = fmt.Fprintln(a.out, "Server:")
		_, _ = fmt.Fprintln(a.err, "ERROR:", serverErr)
		return errors.New("errors pretty printing info")
	}
	_, _ = fmt.Fprintln(a.out, "Server:")
	printServerInfo(a.out, info.Info, c.Debug)
	for _, w := range info.Warnings {
		_, _ = fmt.Fprintln(a.err, w)
	}
	return nil
}

// infoLines writes what `info` says of the engine, in Docker's order and words.
type infoLines struct{ w io.Writer }

func (l infoLines) line(indent, name string, v any) {
	_, _ = fmt.Fprintf(l.w, "%s%s: %v\n", indent, name, v)
}

// some is a line unless there is nothing to say.
func (l infoLines) some(name, v string) {
	if v != "" {
		l.line(" ", name, v)
	}
}

func (l infoLines) list(name string, items []string) {
	if len(items) > 0 {
		_, _ = fmt.Fprintf(l.w, " %s:\n", name)
	}
	for _, i := range items {
		_, _ = fmt.Fprintf(l.w, "  %s\n", i)
	}
}

func printServerInfo(w io.Writer, s *system.Info, debug bool) {
	l := infoLines{w}
	l.contents(s)
	l.plugins(s)
	l.list("CDI spec directories", s.CDISpecDirs)
	l.line(" ", "Swarm", s.Swarm.LocalNodeState)
	l.runtimes(s)
	l.host(s)
	l.line(" ", "Docker Root Dir", s.DockerRootDir)
	l.line(" ", "Debug Mode", s.Debug)
	if s.Debug || debug {
		l.line("  ", "File Descriptors", s.NFd)
		l.line("  ", "Goroutines", s.NGoroutines)
		l.line("  ", "System Time", s.SystemTime)
		l.line("  ", "EventsListeners", s.NEventsListener)
	}
	l.some("HTTP Proxy", s.HTTPProxy)
	l.some("HTTPS Proxy", s.HTTPSProxy)
	l.some("No Proxy", s.NoProxy)
	l.list("Labels", s.Labels)
	l.line(" ", "Experimental", s.ExperimentalBuild)
	l.registries(s.RegistryConfig)
	l.line(" ", "Live Restore Enabled", s.LiveRestoreEnabled)
	l.some("Product License", s.ProductLicense)
	l.networking(s)
	_, _ = fmt.Fprintln(w)
}

// contents says what the engine has, and where and how it keeps it.
func (l infoLines) contents(s *system.Info) {
	l.line(" ", "Containers", s.Containers)
	l.line("  ", "Running", s.ContainersRunning)
	l.line("  ", "Paused", s.ContainersPaused)
	l.line("  ", "Stopped", s.ContainersStopped)
	l.line(" ", "Images", s.Images)
	l.some("Server Version", s.ServerVersion)
	l.some("Storage Driver", s.Driver)
	for _, pair := range s.DriverStatus {
		l.line("  ", pair[0], pair[1])
	}
	l.some("Logging Driver", s.LoggingDriver)
	l.some("Cgroup Driver", s.CgroupDriver)
	l.some("Cgroup Version", s.CgroupVersion)
}

func (l infoLines) plugins(s *system.Info) {
	_, _ = fmt.Fprintln(l.w, " Plugins:")
	l.line("  ", "Volume", strings.Join(s.Plugins.Volume, " "))
	l.line("  ", "Network", strings.Join(s.Plugins.Network, " "))
	if len(s.Plugins.Authorization) > 0 {
		l.line("  ", "Authorization", strings.Join(s.Plugins.Authorization, " "))
	}
	l.line("  ", "Log", strings.Join(s.Plugins.Log, " "))
}

func (l infoLines) runtimes(s *system.Info) {
	if len(s.Runtimes) > 0 {
		l.line(" ", "Runtimes", strings.Join(slices.Sorted(maps.Keys(s.Runtimes)), " "))
		l.line(" ", "Default Runtime", s.DefaultRuntime)
	}
	// An engine with these built in has no versions of theirs to tell.
	l.some("Init Binary", s.InitBinary)
	l.some("containerd version", s.ContainerdCommit.ID)
	l.some("runc version", s.RuncCommit.ID)
	l.some("init version", s.InitCommit.ID)
	options := security.DecodeOptions(s.SecurityOptions)
	if len(options) > 0 {
		_, _ = fmt.Fprintln(l.w, " Security Options:")
	}
	for _, o := range options {
		_, _ = fmt.Fprintln(l.w, "  "+o.Name)
		for _, kv := range o.Options {
			if kv.Key == "profile" {
				l.line("   ", "Profile", kv.Value)
			}
		}
	}
}

func (l infoLines) host(s *system.Info) {
	l.some("Kernel Version", s.KernelVersion)
	l.some("Operating System", s.OperatingSystem)
	l.some("OSType", s.OSType)
	l.some("Architecture", s.Architecture)
	l.line(" ", "CPUs", s.NCPU)
	l.line(" ", "Total Memory", units.BytesSize(float64(s.MemTotal)))
	l.some("Name", s.Name)
	l.some("ID", s.ID)
}

func (l infoLines) registries(r *registry.ServiceConfig) {
	if r == nil {
		return
	}
	var insecure []string
	for _, index := range r.IndexConfigs {
		if index != nil && !index.Secure {
			insecure = append(insecure, index.Name)
		}
	}
	slices.Sort(insecure)
	for _, cidr := range r.InsecureRegistryCIDRs {
		insecure = append(insecure, cidr.String())
	}
	l.list("Insecure Registries", insecure)
	l.list("Registry Mirrors", r.Mirrors)
}

func (l infoLines) networking(s *system.Info) {
	if len(s.DefaultAddressPools) > 0 {
		_, _ = fmt.Fprintln(l.w, " Default Address Pools:")
		for _, p := range s.DefaultAddressPools {
			_, _ = fmt.Fprintf(l.w, "   Base: %s, Size: %d\n", p.Base, p.Size)
		}
	}
	if s.FirewallBackend != nil {
		l.line(" ", "Firewall Backend", s.FirewallBackend.Driver)
		for _, v := range s.FirewallBackend.Info {
			l.line("  ", v[0], v[1])
		}
	}
}
