package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/platforms"
	bkclient "github.com/moby/buildkit/client"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/build/mend"
	"github.com/cleatlabs/cleat/client/build/option"
	"github.com/cleatlabs/cleat/client/build/solve"
	"github.com/cleatlabs/cleat/client/clientplugin"
)

// bakeProgram reads bake files. What they are written in costs as much to start as the
// rest together, so it is a program of its own.
const bakeProgram = "cleat-bake"

// BakeQuery is what is asked of bake files.
type BakeQuery struct {
	Files    []string // "-" is standard input; the usual ones if there are none
	Stdin    io.Reader
	Targets  []string // and groups, and patterns
	Set      []string // overrides, as --set has them
	Vars     map[string]string
	Defaults map[string]string // variables that there are always
	ListOnly bool              // nothing is resolved
}

// BakePlan is what bake files describe.
type BakePlan struct {
	Targets   map[string]*solve.Target
	Print     json.RawMessage // as a bake file
	Listed    []BakeListed
	Variables []BakeVariable
	Given     *solve.Target // what overrides say of paths and rights: these are not the file's wish, but the user's
}

type bakeFlags struct {
	files, set, vars, allow      []string
	print, load, push, check     bool
	list, call, provenance, sbom string
	jobs                         string
	shared                       sharedFlags
}

func (a *app) bake() spec {
	return spec{
		use: "bake [OPTIONS] [TARGET...]", short: "Build from a file", aliases: []string{"f"}, paths: "bake,buildx bake,buildx f",
		setup: func(fs *pflag.FlagSet) action {
			var f bakeFlags
			fs.StringArrayVar(&f.allow, "allow", nil, "Allow build to access specified resources (network.host, security.insecure, fs=PATH, fs.read=PATH, fs.write=PATH)")
			fs.StringVar(&f.call, "call", "build", `Set method for evaluating build ("check", "outline", "targets")`)
			fs.BoolVar(&f.check, "check", false, `Shorthand for "--call=check"`)
			fs.StringArrayVarP(&f.files, "file", "f", nil, "Build definition file")
			fs.StringVarP(&f.jobs, "jobs", "j", failFast, `Set target execution behavior (format: "N" or "fail-fast[,parallel=N]")`)
			fs.StringVar(&f.list, "list", "", `List targets or variables ("targets", "variables")`)
			fs.BoolVar(&f.load, "load", false, `Shorthand for "--set=*.output=type=docker"`)
			fs.BoolVar(&f.print, "print", false, "Print the options without building")
			fs.StringVar(&f.provenance, "provenance", "", `Shorthand for "--set=*.attest=type=provenance"`)
			fs.BoolVar(&f.push, "push", false, `Shorthand for "--set=*.output=type=registry"`)
			fs.StringVar(&f.sbom, "sbom", "", `Shorthand for "--set=*.attest=type=sbom"`)
			fs.StringArrayVar(&f.set, "set", nil, `Override target value (e.g., "targetpattern.key=value")`)
			fs.StringArrayVar(&f.vars, "var", nil, `Set a variable value (e.g., "name=value")`)
			f.shared.install(fs)
			return func(ctx context.Context, args []string) error {
				if a.readBake == nil {
					return a.execBake()
				}
				f.forAll(fs)
				return a.runBake(ctx, &f, args)
			}
		},
	}
}

// forAll makes overrides of what flags say of all targets.
func (f *bakeFlags) forAll(fs *pflag.FlagSet) {
	if f.check {
		f.call = "check"
	}
	all := func(key, value string) { f.set = append(f.set, "*."+key+"="+value) }
	for _, key := range []string{"no-cache", "pull"} {
		if flag := fs.Lookup(key); flag.Changed {
			all(key, flag.Value.String())
		}
	}
	if f.push {
		all("push", "true")
	}
	if f.load {
		all("load", "true")
	}
	if f.call != "" && f.call != "build" {
		all("call", f.call)
	}
	for _, short := range [][2]string{{"provenance", f.provenance}, {"sbom", f.sbom}} {
		if short[1] != "" {
			all("attest", option.ShortAttest(short[0], short[1]))
		}
	}
}

// execBake hands over to the program that reads bake files, with the same arguments.
func (a *app) execBake() error {
	path, err := clientplugin.Sibling("bake files are read", bakeProgram)
	if err != nil {
		return err
	}
	env := append(clientplugin.Environ(), clientplugin.OriginalCommand+"="+a.program)
	err = syscall.Exec(path, append([]string{path}, a.args[1:]...), env)
	return fmt.Errorf("%s cannot be run: %w", path, err)
}

func (a *app) runBake(ctx context.Context, f *bakeFlags, targets []string) error {
	q, err := f.query(targets)
	if err != nil {
		return err
	}
	q.Stdin = a.stdin
	plan, err := a.readBake(q)
	if err != nil {
		return err
	}
	switch {
	case q.ListOnly:
		return a.listBake(plan, f.list)
	case f.print:
		_, err := fmt.Fprintf(a.stdout, "%s\n", plan.Print)
		return err
	}
	if err := checkRights(plan, f.allow); err != nil {
		return err
	}
	mode, err := displayMode(f.shared.progress, false)
	if err != nil {
		return err
	}
	most, err := parseJobs(f.jobs)
	if err != nil {
		return err
	}
	policy, err := sourcePolicy()
	if err != nil {
		return err
	}
	e, err := a.connect()
	if err != nil {
		return err
	}
	for name, t := range plan.Targets {
		t.Stdin, t.Proxies, t.SourcePolicy = a.stdin, a.proxies(e), policy
		if len(plan.Targets) == 1 {
			t.Name = ""
		}
		if t.Context == "-" || t.Dockerfile == "-" {
			return fmt.Errorf("target %s: a context or Dockerfile on standard input is not for bake files", name)
		}
	}
	p, err := a.newProgress(ctx, mode)
	if err != nil {
		return err
	}
	results, err := e.BuildAll(ctx, plan.Targets, most, p)
	if perr := p.Wait(); err == nil {
		err = perr
	}
	a.warn(p.Warnings(), mode)
	if err != nil {
		return mend.In(fmt.Errorf("failed to build: %w", err), place(plan.Targets))
	}
	return a.reportBake(f, plan, results, p.Warnings())
}

// failFast is how targets are built: the first that fails ends all.
const failFast = "fail-fast"

// parseJobs is how many targets are built at the same time; 0 is all.
func parseJobs(s string) (int, error) {
	most := 0
	for part := range strings.SplitSeq(s, ",") {
		number := strings.TrimPrefix(part, "parallel=")
		n, err := strconv.Atoi(number)
		switch {
		case err == nil && n >= 0:
			most = n
		case part == "defer-error", part == "defer-output":
			return 0, fmt.Errorf("--jobs %s is not supported: the first target that fails ends all", part)
		case part != failFast && part != "":
			return 0, fmt.Errorf("invalid jobs option %q: choose a number, fail-fast or parallel=N", part)
		}
	}
	return most, nil
}

// place is where files are looked for, if all targets look in one place.
func place(targets map[string]*solve.Target) mend.Place {
	var out mend.Place
	for _, t := range targets {
		if out.Context != "" && (out.Context != t.Context || out.Dockerfile != t.Dockerfile) {
			return mend.Place{}
		}
		out = mend.Place{Context: t.Context, Dockerfile: t.Dockerfile}
	}
	return out
}

func (f *bakeFlags) query(targets []string) (BakeQuery, error) {
	q := BakeQuery{Files: f.files, Targets: targets, Set: f.set, Vars: map[string]string{}, ListOnly: f.list != ""}
	if len(targets) > 0 && solve.IsRemote(targets[0]) {
		return q, fmt.Errorf("bake files are not fetched: get %s, and run this there", targets[0])
	}
	if len(f.files) == 0 {
		sep := os.Getenv("BUILDX_BAKE_PATH_SEPARATOR")
		if sep == "" {
			sep = string(os.PathListSeparator)
		}
		if env := os.Getenv("BUILDX_BAKE_FILE"); env != "" {
			q.Files = strings.Split(env, sep)
		}
	}
	for _, v := range f.vars {
		name, value, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return q, fmt.Errorf("invalid variable %q, expected name=value", v)
		}
		q.Vars[name] = value
	}
	q.Defaults = map[string]string{"BAKE_CMD_CONTEXT": "cwd://", "BAKE_LOCAL_PLATFORM": platforms.FormatAll(platforms.DefaultSpec())}
	return q, nil
}

// reportBake tells of targets that have been built, in the ways that were asked for.
func (a *app) reportBake(f *bakeFlags, plan *BakePlan, results map[string]*solve.Result, warnings []bkclient.VertexWarning) error {
	if f.shared.metadataFile != "" {
		all := map[string]any{}
		for name, res := range results {
			all[name] = metadata(res, plan.Targets[name], nil)
		}
		if on, _ := strconv.ParseBool(os.Getenv("BUILDX_METADATA_WARNINGS")); on && len(warnings) > 0 {
			all["buildx.build.warnings"] = warnings
		}
		if err := writeMetadata(f.shared.metadataFile, all); err != nil {
			return err
		}
	}
	var errs []error
	for i, name := range slices.Sorted(maps.Keys(results)) {
		t := plan.Targets[name]
		if t.Call == nil {
			continue
		}
		if len(results) > 1 {
			if i > 0 {
				_, _ = fmt.Fprintln(a.stdout)
			}
			_, _ = fmt.Fprintln(a.stdout, name)
		}
		errs = append(errs, a.answer(t, results[name].Response))
	}
	return errors.Join(errs...)
}
