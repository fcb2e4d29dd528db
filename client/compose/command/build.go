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

// buildForms are what a form of progress is called by the program that builds. One that is not there is its own choice.
var buildForms = map[show.Form]string{show.Plain: "plain", show.JSON: "rawjson"}

// buildOne builds a service. Alone, what the build says is shown as it is.
func (a *app) buildOne(ctx context.Context, program string, p *types.Project, s types.ServiceConfig, b building, logs *show.Logs, alone bool) error {
	b.quiet = b.quiet || a.progress == string(show.Quiet)
	args, stdin, err := b.arguments(p, s, a.separator())
	if err != nil {
		return fmt.Errorf("service %q: %w", s.Name, err)
	}
	if form := buildForms[show.Form(a.progress)]; form != "" && alone && b.lines == nil && !b.quiet {
		args = slices.Insert(args, 1, "--progress", form)
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
	if b.quiet {
		cmd.Stdout = nil // the image's id
	}
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

// commandLine is one that grows. Flags without a value are left out.
type commandLine []string

func (l *commandLine) add(flag string, values ...string) {
	for _, v := range values {
		if v != "" {
			*l = append(*l, "--"+flag, v)
		}
	}
}

func (l *commandLine) addEach(flag string, values map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(values)) {
		l.add(flag, key+"="+values[key])
	}
}

func (l *commandLine) set(flag string, set bool) {
	if set {
		*l = append(*l, "--"+flag)
	}
}

// arguments are those of `cleat-build build` for a service, and what it reads.
func (b building) arguments(p *types.Project, s types.ServiceConfig, separator string) ([]string, io.Reader, error) {
	c := s.Build
	line := commandLine{"build", "--tag", spec.ImageName(p, s, separator)}
	stdin := dockerfile(&line, c)
	line.addEach("build-arg", buildArgs(p, c))
	line.add("build-arg", b.args...)
	line.addEach("label", buildLabels(p, s))
	from, err := buildContexts(p, c, separator)
	if err != nil {
		return nil, nil, err
	}
	line.addEach("build-context", from)
	b.howToBuild(&line, s)
	secrets, err := buildSecrets(p, c)
	if err != nil {
		return nil, nil, err
	}
	line.add("secret", secrets...)
	return append(line, c.Context), stdin, nil
}

// dockerfile names the Dockerfile, if it is another than the context's, and returns one that stands in the Compose file.
func dockerfile(line *commandLine, c *types.BuildConfig) io.Reader {
	if c.DockerfileInline != "" {
		line.add("file", "-")
		return strings.NewReader(c.DockerfileInline)
	}
	line.add("file", dockerfilePath(c))
	return nil
}

// dockerfilePath is where the Dockerfile is: in the context, if that is elsewhere.
func dockerfilePath(c *types.BuildConfig) string {
	if c.Dockerfile == "" || filepath.IsAbs(c.Dockerfile) || elsewhere(c.Context) {
		return c.Dockerfile
	}
	return filepath.Join(c.Context, c.Dockerfile)
}

// elsewhere says whether a context is no directory of this machine.
func elsewhere(context string) bool {
	return strings.Contains(context, "://") || strings.HasPrefix(context, "github.com/") || strings.HasPrefix(context, "git@")
}

// buildLabels are those of the image that a service is built as.
func buildLabels(p *types.Project, s types.ServiceConfig) map[string]string {
	labels := map[string]string{}
	maps.Copy(labels, s.Build.Labels)
	maps.Copy(labels, map[string]string{label.Project: p.Name, label.Service: s.Name, label.Version: label.Compatible})
	return labels
}

// buildArgs are those with a value, be it the environment's.
func buildArgs(p *types.Project, c *types.BuildConfig) map[string]string {
	args := map[string]string{}
	for key, value := range c.Args {
		if value != nil {
			args[key] = *value
		} else if v, ok := p.Environment[key]; ok {
			args[key] = v
		}
	}
	return args
}

// buildContexts are the additional ones; of another service it is its image.
func buildContexts(p *types.Project, c *types.BuildConfig, separator string) (map[string]string, error) {
	from := map[string]string{}
	for key, source := range c.AdditionalContexts {
		if service, ok := strings.CutPrefix(source, types.ServicePrefix); ok {
			other, err := p.GetService(service)
			if err != nil {
				return nil, fmt.Errorf("additional_contexts: %s: %w", key, err)
			}
			source = "docker-image://" + spec.ImageName(p, other, separator)
		}
		from[key] = source
	}
	return from, nil
}

// howToBuild adds what says nothing of what is built.
func (b building) howToBuild(line *commandLine, s types.ServiceConfig) {
	c := s.Build
	limits := map[string]string{}
	for key, u := range c.Ulimits {
		soft, hard := u.Soft, u.Hard
		if u.Single != 0 {
			soft, hard = u.Single, u.Single
		}
		limits[key] = fmt.Sprintf("%d:%d", soft, hard)
	}
	line.addEach("ulimit", limits)
	line.add("tag", c.Tags...)
	line.add("target", c.Target)
	line.add("network", c.Network)
	line.add("cache-from", c.CacheFrom...)
	line.add("cache-to", c.CacheTo...)
	line.add("no-cache-filter", c.NoCacheFilter...)
	line.add("add-host", c.ExtraHosts.AsList(":")...)
	line.add("allow", c.Entitlements...)
	if c.Privileged {
		line.add("allow", "security.insecure")
	}
	line.add("provenance", first(b.provenance, c.Provenance))
	line.add("sbom", first(b.sbom, c.SBOM))
	line.add("builder", b.builder)
	if c.ShmSize != 0 {
		line.add("shm-size", strconv.FormatInt(int64(c.ShmSize), 10))
	}
	line.add("platform", first(strings.Join(c.Platforms, ","), s.Platform))
	for _, key := range c.SSH {
		text := key.ID
		if key.Path != "" {
			text += "=" + key.Path
		}
		line.add("ssh", text)
	}
	line.add("ssh", b.ssh)
	line.set("no-cache", c.NoCache || b.noCache)
	line.set("pull", c.Pull || b.pull)
	line.set("push", b.push && s.Image != "") // one that nobody has named is in no registry
	line.set("quiet", b.quiet)
	line.set("check", b.check)
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
			list = append(list, "id="+id+",type=file,src="+declared.File)
		case declared.Environment != "":
			list = append(list, "id="+id+",type=env,env="+declared.Environment)
		default:
			return nil, fmt.Errorf("secret %s: a build takes a secret from a file or from the environment", s.Source)
		}
	}
	return list, nil
}
