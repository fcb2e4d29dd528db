package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/docker/cli/templates"
	"github.com/docker/go-units"
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

func printServerInfo(w io.Writer, s *system.Info, debug bool) {
	line := func(indent, name string, v any) { _, _ = fmt.Fprintf(w, "%s%s: %v\n", indent, name, v) }
	some := func(name, v string) {
		if v != "" {
			line(" ", name, v)
		}
	}
	list := func(name string, items []string) {
		if len(items) > 0 {
			_, _ = fmt.Fprintf(w, " %s:\n", name)
		}
		for _, i := range items {
			_, _ = fmt.Fprintf(w, "  %s\n", i)
		}
	}
	line(" ", "Containers", s.Containers)
	line("  ", "Running", s.ContainersRunning)
	line("  ", "Paused", s.ContainersPaused)
	line("  ", "Stopped", s.ContainersStopped)
	line(" ", "Images", s.Images)
	some("Server Version", s.ServerVersion)
	some("Storage Driver", s.Driver)
	for _, pair := range s.DriverStatus {
		line("  ", pair[0], pair[1])
	}
	some("Logging Driver", s.LoggingDriver)
	some("Cgroup Driver", s.CgroupDriver)
	some("Cgroup Version", s.CgroupVersion)
	_, _ = fmt.Fprintln(w, " Plugins:")
	line("  ", "Volume", strings.Join(s.Plugins.Volume, " "))
	line("  ", "Network", strings.Join(s.Plugins.Network, " "))
	if len(s.Plugins.Authorization) > 0 {
		line("  ", "Authorization", strings.Join(s.Plugins.Authorization, " "))
	}
	line("  ", "Log", strings.Join(s.Plugins.Log, " "))
	list("CDI spec directories", s.CDISpecDirs)
	line(" ", "Swarm", s.Swarm.LocalNodeState)
	printRuntimes(w, s)
	some("Kernel Version", s.KernelVersion)
	some("Operating System", s.OperatingSystem)
	some("OSType", s.OSType)
	some("Architecture", s.Architecture)
	line(" ", "CPUs", s.NCPU)
	line(" ", "Total Memory", units.BytesSize(float64(s.MemTotal)))
	some("Name", s.Name)
	some("ID", s.ID)
	line(" ", "Docker Root Dir", s.DockerRootDir)
	line(" ", "Debug Mode", s.Debug)
	if s.Debug || debug {
		line("  ", "File Descriptors", s.NFd)
		line("  ", "Goroutines", s.NGoroutines)
		line("  ", "System Time", s.SystemTime)
		line("  ", "EventsListeners", s.NEventsListener)
	}
	some("HTTP Proxy", s.HTTPProxy)
	some("HTTPS Proxy", s.HTTPSProxy)
	some("No Proxy", s.NoProxy)
	list("Labels", s.Labels)
	line(" ", "Experimental", s.ExperimentalBuild)
	printRegistries(s, list)
	line(" ", "Live Restore Enabled", s.LiveRestoreEnabled)
	some("Product License", s.ProductLicense)
	if len(s.DefaultAddressPools) > 0 {
		_, _ = fmt.Fprintln(w, " Default Address Pools:")
		for _, p := range s.DefaultAddressPools {
			_, _ = fmt.Fprintf(w, "   Base: %s, Size: %d\n", p.Base, p.Size)
		}
	}
	if s.FirewallBackend != nil {
		line(" ", "Firewall Backend", s.FirewallBackend.Driver)
		for _, v := range s.FirewallBackend.Info {
			line("  ", v[0], v[1])
		}
	}
	_, _ = fmt.Fprintln(w)
}

func printRuntimes(w io.Writer, s *system.Info) {
	if len(s.Runtimes) > 0 {
		names := make([]string, 0, len(s.Runtimes))
		for n := range s.Runtimes {
			names = append(names, n)
		}
		slices.Sort(names)
		_, _ = fmt.Fprintf(w, " Runtimes: %s\n Default Runtime: %s\n", strings.Join(names, " "), s.DefaultRuntime)
	}
	// An engine with these built in has no versions of theirs to tell.
	for _, part := range [][2]string{
		{"Init Binary", s.InitBinary}, {"containerd version", s.ContainerdCommit.ID}, {"runc version", s.RuncCommit.ID}, {"init version", s.InitCommit.ID},
	} {
		if part[1] != "" {
			_, _ = fmt.Fprintf(w, " %s: %s\n", part[0], part[1])
		}
	}
	options := security.DecodeOptions(s.SecurityOptions)
	if len(options) > 0 {
		_, _ = fmt.Fprintln(w, " Security Options:")
	}
	for _, o := range options {
		_, _ = fmt.Fprintln(w, "  "+o.Name)
		for _, kv := range o.Options {
			if kv.Key == "profile" {
				_, _ = fmt.Fprintln(w, "   Profile:", kv.Value)
			}
		}
	}
}

func printRegistries(s *system.Info, list func(string, []string)) {
	r := s.RegistryConfig
	if r == nil {
		return
	}
	var insecure []string
	for _, index := range r.IndexConfigs {
		if !index.Secure {
			insecure = append(insecure, index.Name)
		}
	}
	slices.Sort(insecure)
	for _, cidr := range r.InsecureRegistryCIDRs {
		insecure = append(insecure, cidr.String())
	}
	list("Insecure Registries", insecure)
	list("Registry Mirrors", r.Mirrors)
}
