package operate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

// A service with a provider is none of the engine's: a program makes it, whatever it is. The program is run as
//
//	PROGRAM compose --project-name=NAME up --OPTION=VALUE… SERVICE
//
// and says in lines of JSON how far it has come, and which variables the services get that depend on this one.

// said is one line of a provider's.
type said struct{ Type, Message string }

// parameters are what a provider's metadata say of one of its commands.
type parameters struct {
	Parameters []struct {
		Name     string
		Required bool
	}
}

// provide runs a provider and returns the variables that it has set.
func (o *Operator) provide(ctx context.Context, p *types.Project, s types.ServiceConfig, verb string) (map[string]string, error) {
	if o.Provider == nil {
		return nil, fmt.Errorf("service %q: the attribute provider is not supported here", s.Name)
	}
	if o.DryRun {
		return nil, nil
	}
	program, env, err := o.Provider(s.Provider.Type)
	if err != nil {
		return nil, fmt.Errorf("service %q: provider %s: %w", s.Name, s.Provider.Type, err)
	}
	for _, key := range slices.Sorted(maps.Keys(p.Environment)) {
		env = append(env, key+"="+p.Environment[key])
	}
	options, err := providerOptions(ctx, program, env, s.Provider, verb)
	if err != nil {
		return nil, fmt.Errorf("service %q: %w", s.Name, err)
	}
	cmd := exec.CommandContext(ctx, program, slices.Concat([]string{"compose", "--project-name=" + p.Name, verb}, options, []string{s.Name})...)
	cmd.Env = env
	cmd.WaitDelay = time.Second // what it has started may hold its output for longer
	var complaints tail
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("service %q: provider %s: %w", s.Name, s.Provider.Type, err)
	}
	variables, err := o.listen(s.Name, out)
	if err != nil {
		// It need not come to its end any more.
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, fmt.Errorf("service %q: provider %s: %w", s.Name, s.Provider.Type, err)
	}
	if err := cmd.Wait(); err != nil {
		action := map[string]string{"up": "create", "down": "remove"}[verb]
		if line := complaints.line(); line != "" {
			err = fmt.Errorf("%w: %s", err, line)
		}
		return nil, fmt.Errorf("failed to %s service provider of %q: %w", action, s.Name, err)
	}
	return variables, nil
}

// listen reads what a provider says until it has ended.
func (o *Operator) listen(service string, r io.Reader) (map[string]string, error) {
	variables := map[string]string{}
	lines := json.NewDecoder(r)
	for {
		var line said
		err := lines.Decode(&line)
		if errors.Is(err, io.EOF) {
			return variables, nil
		}
		if err != nil {
			return nil, fmt.Errorf("its answer is no JSON: %w", err)
		}
		switch line.Type {
		case "error":
			return nil, errors.New(line.Message)
		case "info":
			o.Report.Report("Service", service, line.Message)
		case "setenv":
			key, value, ok := strings.Cut(line.Message, "=")
			if !ok || key == "" {
				return nil, fmt.Errorf("invalid response from plugin: %s", line.Message)
			}
			variables[key] = value
		case "debug":
		default:
			return nil, fmt.Errorf("invalid response from plugin: %s", line.Type)
		}
	}
}

// providerOptions are the options as flags: all of them, or those that the provider's own description names.
func providerOptions(ctx context.Context, program string, env []string, c *types.ServiceProviderConfig, verb string) ([]string, error) {
	var about struct {
		Description string
		Up, Down    parameters
	}
	cmd := exec.CommandContext(ctx, program, "compose", "metadata")
	cmd.Env = env
	known := false
	// One that does not describe itself takes everything.
	if out, err := cmd.Output(); err == nil && json.Unmarshal(out, &about) == nil {
		known = about.Description != "" || about.Up.Parameters != nil || about.Down.Parameters != nil
	}
	wanted := about.Up
	if verb == "down" {
		wanted = about.Down
	}
	names := map[string]bool{}
	for _, w := range wanted.Parameters {
		names[w.Name] = true
		if _, ok := c.Options[w.Name]; w.Required && !ok && known {
			return nil, fmt.Errorf("required parameter %q is missing from provider %q definition", w.Name, c.Type)
		}
	}
	var flags []string
	for _, key := range slices.Sorted(maps.Keys(c.Options)) {
		for _, value := range c.Options[key] {
			if !known || names[key] {
				flags = append(flags, "--"+key+"="+value)
			}
		}
	}
	return flags, nil
}

// ProvideAll runs the providers of a project, each after those that it depends on, gives their variables to the services
// that depend on them, and disables the provided services: what is left is the engine's.
func (o *Operator) ProvideAll(ctx context.Context, p *types.Project) (*types.Project, error) {
	order := graph{}
	for name, s := range p.Services {
		if s.Provider != nil {
			order[name] = s.GetDependencies()
		}
	}
	if len(order) == 0 {
		return p, nil
	}
	found := make(map[string]map[string]string, len(order))
	for _, name := range order.sorted() {
		o.Report.Report("Service", name, "Creating")
		variables, err := o.provide(ctx, p, p.Services[name], "up")
		if err := o.ended(ctx, "Service", name, "Created", err); err != nil {
			return nil, err
		}
		found[name] = variables
		p = withVariables(p, name, variables)
	}
	left := *p
	left.Services, left.DisabledServices = maps.Clone(p.Services), maps.Clone(p.DisabledServices)
	if left.DisabledServices == nil {
		left.DisabledServices = types.Services{}
	}
	for name := range found {
		left.DisabledServices[name] = left.Services[name]
		delete(left.Services, name)
	}
	return &left, nil
}

// provided says whether a service is made by a provider: the engine has nothing of it that could be waited for.
func provided(p *types.Project, name string) bool {
	s, enabled := p.Services[name]
	if !enabled {
		s = p.DisabledServices[name]
	}
	return s.Provider != nil
}

// withVariables gives what a provider has set to the services that depend on it, under the provider's name.
func withVariables(p *types.Project, provider string, variables map[string]string) *types.Project {
	changed := *p
	changed.Services = maps.Clone(p.Services)
	for name, s := range changed.Services {
		if _, depends := s.DependsOn[provider]; !depends {
			continue
		}
		s.Environment = maps.Clone(s.Environment)
		if s.Environment == nil {
			s.Environment = types.MappingWithEquals{}
		}
		for key, value := range variables {
			s.Environment[strings.ToUpper(provider)+"_"+key] = &value
		}
		changed.Services[name] = s
	}
	return &changed
}

// removeProvided tells the providers of a project to take down what they have made.
func (o *Operator) removeProvided(ctx context.Context, p *types.Project, services []string) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		s := p.Services[name]
		if s.Provider == nil || len(services) > 0 && !slices.Contains(services, name) {
			continue
		}
		o.Report.Report("Service", name, "Removing")
		_, err := o.provide(ctx, p, s, "down")
		errs = append(errs, o.ended(ctx, "Service", name, "Removed", err))
	}
	return errors.Join(errs...)
}

// sorted are the services, each after those that it waits for.
func (g graph) sorted() []string {
	var list []string
	done := map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		if done[name] {
			return
		}
		done[name] = true
		for _, n := range g[name] {
			visit(n)
		}
		if _, ok := g[name]; ok {
			list = append(list, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(g)) {
		visit(name)
	}
	return list
}
