// Package project finds and loads a Compose project: its files, its environment and its
// name, by the rules of docker compose, with compose-go as the judge of the language.
//
// It promises:
//   - The same files give the same project, with the same name, as with docker compose.
//   - A project that is returned is whole: interpolated, merged, validated, its environment
//     files read, and with the labels by which its containers are found again.
package project

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/errdefs"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/schema"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/cli/pkg/kvfile"

	"github.com/cleatlabs/cleat/client/compose/label"
)

// Options are the flags that choose a project.
type Options struct {
	Files         []string // compose files, "-" for standard input; none: found by their names
	Directory     string   // the project directory; "": that of the first file
	Name          string   // the project's name; "": from the environment, the file or the directory
	Profiles      []string
	EnvFiles      []string // instead of .env
	Compatibility bool     // container names with _ between their parts
	// Remote reads projects that do not lie in files, by the form of their paths.
	Remote       []loader.ResourceLoader
	AllResources bool // those that no service uses, too
}

// Raw turns off steps of the loading, for `config`.
type Raw struct {
	NoInterpolation, NoNormalization, NoConsistency, NoPaths, NoEnvironment bool
}

// ErrNone is the error of [Load] where there is no compose file.
var ErrNone = errors.New("no configuration file provided: not found: " +
	"no compose.yaml or docker-compose.yml is in this directory or one above it; choose the file by -f")

// Load loads the project. Services, if any, are those that are wanted: they are enabled,
// whatever their profiles, and the project is of them and what they depend on. Networks,
// volumes and so on are left out that no service uses.
func Load(ctx context.Context, o Options, raw Raw, services ...string) (*types.Project, error) {
	options, err := o.projectOptions(raw)
	if err != nil {
		return nil, err
	}
	if err := checkAnchors(options.ConfigPaths); err != nil {
		return nil, err
	}
	p, err := loadProject(ctx, options, raw)
	if err != nil {
		return nil, Locate(explain(err), options.ConfigPaths)
	}
	if p.Name == "" {
		return nil, errors.New("project name can't be empty. Use `--project-name` to set a valid name")
	}
	if p, err = p.WithServicesEnabled(services...); err != nil {
		return nil, explain(err)
	}
	for name, s := range p.Services {
		s.CustomLabels = labels(p, o, name)
		p.Services[name] = s
	}
	if p, err = p.WithSelectedServices(services); err != nil {
		return nil, explain(err)
	}
	if !o.AllResources {
		p = p.WithoutUnnecessaryResources()
	}
	if raw.NoEnvironment {
		return p, nil
	}
	if p, err = p.WithServicesEnvironmentResolved(true); err != nil {
		return nil, Locate(err, options.ConfigPaths)
	}
	return p, nil
}

// loadProject has the library load the project, and validate it where that is not done already: meanwhile, as most
// files are valid.
func loadProject(ctx context.Context, options *cli.ProjectOptions, raw Raw) (*types.Project, error) {
	if raw != (Raw{NoEnvironment: raw.NoEnvironment}) {
		return checked(ctx, options)
	}
	files, ok := drafted(options)
	if !ok {
		return checked(ctx, options)
	}
	unchecked := func() (*types.Project, error) {
		again := *options                                                       // a load adds to them
		_ = cli.WithLoadOptions(loader.WithSkipValidation, files.casts)(&again) // it has no errors
		return guarded(options.ConfigPaths, func() (*types.Project, error) { return again.LoadProject(ctx) })
	}
	said, speak := silence()
	var obsolete []int
	var valid bool
	judged := make(chan struct{})
	go func() {
		defer close(judged)
		obsolete, valid = files.surelyValid()
	}()
	p, err := unchecked()
	<-judged
	speak()
	switch {
	case !valid:
		return checked(ctx, options)
	case said.Len() > 0:
		p, err = unchecked() // which of the two has said it is not known
	}
	if err != nil {
		return nil, err
	}
	if p.Name == "" {
		return nil, errors.New("project name must not be empty") // the validation's words
	}
	for _, i := range obsolete {
		warnObsolete(p.ComposeFiles[i])
	}
	return p, nil
}

// checked has the library load the project with all of its validation.
func checked(ctx context.Context, options *cli.ProjectOptions) (*types.Project, error) {
	return guarded(options.ConfigPaths, func() (*types.Project, error) { return options.LoadProject(ctx) })
}

// guarded is what the library makes of files, where it panics an error: it looks at some values, as if they were of the
// right kind, before it validates the files.
func guarded[T any](files []string, load func() (T, error)) (result T, err error) {
	defer func() {
		if said := recover(); said != nil {
			err = unexpected(files, said)
		}
	}()
	return load()
}

// unexpected says what is wrong with files that the library panics at.
func unexpected(files []string, said any) error {
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if content, err := sole(data); err == nil {
			if err := schema.Validate(content); err != nil {
				return fmt.Errorf("validating %s: %w", file, err)
			}
		}
	}
	return fmt.Errorf("a value in %s, or in a file that is included there, is of a kind that cannot stand where it does: %v",
		strings.Join(files, ", "), said)
}

// Model is the project as its merged files say it, without types: where variables stand in
// the place of their values, there are none.
func Model(ctx context.Context, o Options, raw Raw) (map[string]any, error) {
	options, err := o.projectOptions(raw)
	if err != nil {
		return nil, err
	}
	if err := checkAnchors(options.ConfigPaths); err != nil {
		return nil, err
	}
	model, err := guarded(options.ConfigPaths, func() (map[string]any, error) { return options.LoadModel(ctx) })
	if err != nil {
		return nil, Locate(explain(err), options.ConfigPaths)
	}
	return model, nil
}

// Select reduces a project to services and, unless alone is set, what they depend on.
// Naming none is naming all. An unknown name is an error.
func Select(p *types.Project, services []string, alone bool) (*types.Project, error) {
	option := types.IncludeDependencies
	if alone {
		option = types.IgnoreDependencies
	}
	selected, err := p.WithSelectedServices(services, option)
	if err != nil {
		return nil, explain(err)
	}
	return selected, nil
}

func check(name string) (string, error) {
	if normal := loader.NormalizeProjectName(name); normal != name {
		return "", loader.InvalidProjectNameErr(name)
	}
	return name, nil
}

func (o Options) projectOptions(raw Raw) (*cli.ProjectOptions, error) {
	dotenv.RegisterFormat("raw", rawEnvironment)
	fns := []cli.ProjectOptionsFn{
		cli.WithInterpolation(!raw.NoInterpolation),
		cli.WithNormalization(!raw.NoNormalization),
		cli.WithConsistency(!raw.NoConsistency),
		cli.WithResolvedPaths(!raw.NoPaths),
		cli.WithoutEnvironmentResolution,
		cli.WithLoadOptions(withBounds),
		cli.WithWorkingDirectory(o.Directory),
		cli.WithOsEnv, // it wins over all files
	}
	for _, r := range o.Remote {
		fns = append(fns, cli.WithResourceLoader(r))
	}
	if _, ok := os.LookupEnv("PWD"); !ok {
		directory, err := os.Getwd()
		if err != nil {
			return nil, err
		}
		fns = append(fns, cli.WithEnv([]string{"PWD=" + directory}))
	}
	fns = append(fns,
		cli.WithEnvFiles(o.EnvFiles...),
		cli.WithDotEnv,        // of this directory
		cli.WithConfigFileEnv, // COMPOSE_FILE may stand in .env
		cli.WithDefaultConfigPath,
		cli.WithEnvFiles(o.EnvFiles...),
		cli.WithDotEnv, // of the project's directory, if that is another
		cli.WithDefaultProfiles(o.Profiles...),
	)
	if o.Name != "" {
		if _, err := check(o.Name); err != nil {
			return nil, err
		}
		fns = append(fns, cli.WithName(o.Name))
	}
	options, err := cli.NewProjectOptions(o.Files, fns...)
	if err != nil {
		return nil, explain(err)
	}
	return options, nil
}

// Settings are the variables COMPOSE_… that a project's environment files have and the environment has not: they are
// settings of the program, too. What is wrong with the files is said when they are loaded.
func Settings(o Options) map[string]string {
	options, err := cli.NewProjectOptions(o.Files, cli.WithWorkingDirectory(o.Directory), cli.WithOsEnv, cli.WithEnvFiles(o.EnvFiles...), cli.WithDotEnv)
	if err != nil {
		return nil
	}
	found := map[string]string{}
	for key, value := range options.Environment {
		if _, set := os.LookupEnv(key); !set && strings.HasPrefix(key, "COMPOSE_") {
			found[key] = value
		}
	}
	return found
}

// rawEnvironment reads an environment file as `docker run --env-file` does: values are
// what stands there, quotes and dollars too.
func rawEnvironment(r io.Reader, file string, into map[string]string, lookup func(string) (string, bool)) error {
	lines, err := kvfile.ParseFromReader(r, lookup)
	if err != nil {
		return fmt.Errorf("failed to parse env_file %s: %w", file, err)
	}
	for _, line := range lines {
		key, value, _ := strings.Cut(line, "=")
		into[key] = value
	}
	return nil
}

// labels are those by which the containers of a service are found again.
func labels(p *types.Project, o Options, service string) types.Labels {
	l := types.Labels{
		label.Project: p.Name, label.Service: service, label.Version: label.Compatible,
		label.WorkingDir: p.WorkingDir, label.ConfigFiles: strings.Join(p.ComposeFiles, ","), label.OneOff: "False",
	}
	if len(o.EnvFiles) > 0 {
		l[label.EnvFiles] = strings.Join(o.EnvFiles, ",")
	}
	return l
}

// explain gives compose-go's errors the words of docker compose.
func explain(err error) error {
	switch {
	case errdefs.IsNotFoundError(err) && strings.Contains(err.Error(), "no configuration file provided"):
		return ErrNone
	case errors.Is(err, os.ErrNotExist) && strings.HasPrefix(err.Error(), "compose file "):
		return fmt.Errorf("%w: check the name, or choose the file by -f", err)
	}
	// So the library says that a key is none of the language's: FILE: services.web.imagee.
	if key, ok := strings.CutSuffix(err.Error(), " false schema"); ok && strings.HasPrefix(key, "validating ") {
		dot := strings.LastIndexByte(key, '.')
		return fmt.Errorf("%s additional properties '%s' not allowed", key[:dot], key[dot+1:])
	}
	return err
}

// Names of a project's services in a stable order.
func Names(p *types.Project) []string { return slices.Sorted(maps.Keys(p.Services)) }
