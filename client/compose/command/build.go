package command

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"golang.org/x/sync/errgroup"

	"github.com/cleatlabs/cleat/client/clientplugin"
	"github.com/cleatlabs/cleat/client/compose/label"
	"github.com/cleatlabs/cleat/client/compose/show"
	"github.com/cleatlabs/cleat/client/compose/spec"
)

// build builds services at once, each after those whose images it builds upon, which are
// built, too. The output of several is told apart by their names.
func (a *app) build(ctx context.Context, p *types.Project, services []string, b building) error {
	if a.dryRun {
		for _, name := range services {
			a.reporter.Report("Service", name, "Building")
			a.reporter.Report("Service", name, "Built")
		}
		return nil
	}
	program, err := clientplugin.Sibling("services are built", "cleat-build")
	if err != nil {
		return err
	}
	if p, services, err = withContexts(p, services); err != nil {
		return err
	}
	logs := &show.Logs{Out: a.err, Err: a.err, Colours: a.err.IsTerminal()}
	built := map[string]chan struct{}{}
	for _, name := range services {
		logs.Announce(name)
		built[name] = make(chan struct{})
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, name := range services {
		group.Go(func() error {
			for _, from := range contexts(p.Services[name]) {
				select {
				case <-built[from]:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			if err := a.buildOne(ctx, program, p, p.Services[name], b, logs, len(services) == 1); err != nil {
				return err
			}
			close(built[name])
			return nil
		})
	}
	return group.Wait()
}

// buildOne builds a service. Alone, what the build says is shown as it is.
func (a *app) buildOne(ctx context.Context, program string, p *types.Project, s types.ServiceConfig, b building, logs *show.Logs, alone bool) error {
	args, stdin, err := b.arguments(p, s, a.separator())
	if err != nil {
		return fmt.Errorf("service %q: %w", s.Name, err)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if cmd.Env, err = a.environ(); err != nil {
		return err
	}
	for _, secret := range s.Build.Secrets {
		// It may stand in a file that this program alone has read.
		if variable := p.Secrets[secret.Source].Environment; variable != "" {
			if value, ok := p.Environment[variable]; ok {
				cmd.Env = append(cmd.Env, variable+"="+value)
			}
		}
	}
	cmd.Stdin = stdin
	switch {
	case b.lines != nil:
		out := b.lines(s.Name)
		defer out.Close()
		cmd.Stdout, cmd.Stderr = out, out
	case alone:
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	default:
		stdout, stderr := logs.Container(s.Name)
		defer stdout.Flush()
		defer stderr.Flush()
		cmd.Stdout, cmd.Stderr = stdout, stderr
	}
	a.reporter.Report("Service", s.Name, "Building")
	if err := cmd.Run(); err != nil {
		a.reporter.Report("Service", s.Name, "Error")
		return fmt.Errorf("service %q could not be built: see its output above", s.Name)
	}
	a.reporter.Report("Service", s.Name, "Built")
	return nil
}

// contexts are the services whose images a service builds upon.
func contexts(s types.ServiceConfig) []string {
	if s.Build == nil {
		return nil
	}
	var found []string
	for _, key := range slices.Sorted(maps.Keys(s.Build.AdditionalContexts)) {
		if name, ok := strings.CutPrefix(s.Build.AdditionalContexts[key], types.ServicePrefix); ok {
			found = append(found, name)
		}
	}
	return found
}

// withContexts adds to services those whose images they build upon, also such as have not
// been asked for. Services that build upon each other are an error.
func withContexts(p *types.Project, services []string) (*types.Project, []string, error) {
	all, seen := p.AllServices(), map[string]bool{} // true once all that it builds upon is known
	var add func(name string) error
	add = func(name string) error {
		if known, ok := seen[name]; ok {
			if !known {
				return fmt.Errorf("service %q: its build has itself among its additional_contexts", name)
			}
			return nil
		}
		seen[name] = false
		for _, from := range contexts(all[name]) {
			if other, ok := all[from]; !ok || other.Build == nil {
				return fmt.Errorf("service %q: additional_contexts: there is no service %q that is built", name, from)
			}
			if err := add(from); err != nil {
				return err
			}
		}
		seen[name] = true
		return nil
	}
	for _, name := range services {
		if err := add(name); err != nil {
			return nil, nil, err
		}
	}
	names := slices.Sorted(maps.Keys(seen))
	p, err := p.WithServicesEnabled(names...)
	return p, names, err
}

// arguments are those of `cleat-build build` for a service, and what it reads.
func (b building) arguments(p *types.Project, s types.ServiceConfig, separator string) ([]string, io.Reader, error) {
	c := s.Build
	args := []string{"build", "--tag", spec.ImageName(p, s, separator)}
	add := func(flag string, values ...string) {
		for _, v := range values {
			if v != "" {
				args = append(args, "--"+flag, v)
			}
		}
	}
	var stdin io.Reader
	switch {
	case c.DockerfileInline != "":
		stdin = strings.NewReader(c.DockerfileInline)
		add("file", "-")
	case c.Dockerfile != "":
		file := c.Dockerfile
		if !filepath.IsAbs(file) && !strings.Contains(c.Context, "://") {
			file = filepath.Join(c.Context, file)
		}
		add("file", file)
	}
	for _, key := range slices.Sorted(maps.Keys(c.Args)) {
		if v := c.Args[key]; v != nil {
			add("build-arg", key+"="+*v)
		} else if v, ok := p.Environment[key]; ok {
			add("build-arg", key+"="+v)
		}
	}
	add("build-arg", b.args...)
	labels := maps.Clone(map[string]string(c.Labels))
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, map[string]string{label.Project: p.Name, label.Service: s.Name, label.Version: label.Compatible})
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		add("label", key+"="+labels[key])
	}
	for _, key := range slices.Sorted(maps.Keys(c.AdditionalContexts)) {
		from := c.AdditionalContexts[key]
		if service, ok := strings.CutPrefix(from, types.ServicePrefix); ok {
			other, err := p.GetService(service)
			if err != nil {
				return nil, nil, fmt.Errorf("additional_contexts: %s: %w", key, err)
			}
			from = "docker-image://" + spec.ImageName(p, other, separator)
		}
		add("build-context", key+"="+from)
	}
	for _, key := range slices.Sorted(maps.Keys(c.Ulimits)) {
		u := c.Ulimits[key]
		soft, hard := u.Soft, u.Hard
		if u.Single != 0 {
			soft, hard = u.Single, u.Single
		}
		add("ulimit", fmt.Sprintf("%s=%d:%d", key, soft, hard))
	}
	add("tag", c.Tags...)
	add("target", c.Target)
	add("network", c.Network)
	add("cache-from", c.CacheFrom...)
	add("cache-to", c.CacheTo...)
	add("no-cache-filter", c.NoCacheFilter...)
	add("add-host", c.ExtraHosts.AsList(":")...)
	add("allow", c.Entitlements...)
	add("provenance", first(b.provenance, c.Provenance))
	add("sbom", first(b.sbom, c.SBOM))
	add("builder", b.builder)
	if c.ShmSize != 0 {
		add("shm-size", strconv.FormatInt(int64(c.ShmSize), 10))
	}
	if platforms := c.Platforms; len(platforms) > 0 {
		add("platform", strings.Join(platforms, ","))
	} else {
		add("platform", s.Platform)
	}
	for _, key := range c.SSH {
		text := key.ID
		if key.Path != "" {
			text += "=" + key.Path
		}
		add("ssh", text)
	}
	add("ssh", b.ssh)
	if c.Privileged {
		add("allow", "security.insecure")
	}
	for flag, set := range map[string]bool{"no-cache": c.NoCache || b.noCache, "pull": c.Pull || b.pull, "push": b.push, "quiet": b.quiet, "check": b.check} {
		if set {
			args = append(args, "--"+flag)
		}
	}
	secrets, err := buildSecrets(p, c)
	if err != nil {
		return nil, nil, err
	}
	add("secret", secrets...)
	return append(args, c.Context), stdin, nil
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// buildSecrets are the secrets of a build in the form of the flag.
func buildSecrets(p *types.Project, c *types.BuildConfig) ([]string, error) {
	var list []string
	for _, s := range c.Secrets {
		declared, ok := p.Secrets[s.Source]
		id := first(s.Target, s.Source)
		switch {
		case !ok:
			return nil, fmt.Errorf("build refers to undefined secret %s", s.Source)
		case declared.File != "":
			list = append(list, "id="+id+",src="+declared.File)
		case declared.Environment != "":
			list = append(list, "id="+id+",env="+declared.Environment)
		default:
			return nil, fmt.Errorf("secret %s: a build takes a secret from a file or from the environment", s.Source)
		}
	}
	return list, nil
}
