package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/client/compose/follow"
	"github.com/cleatlabs/cleat/client/compose/label"
	"github.com/cleatlabs/cleat/client/compose/operate"
	"github.com/cleatlabs/cleat/client/compose/project"
	"github.com/cleatlabs/cleat/client/compose/show"
	"github.com/cleatlabs/cleat/client/compose/spec"
	"github.com/cleatlabs/cleat/client/compose/watch"
)

func (a *app) watchCommand() *cobra.Command {
	var quiet, prune, noUp bool
	cmd := command("watch [SERVICE...]", "Watch build context for service and rebuild/refresh containers when files are updated", func(ctx context.Context, args []string) error {
		if a.dryRun {
			return errors.New("--dry-run is not supported with watch: what changes later is not known")
		}
		p, err := a.load(ctx, args...)
		if err != nil {
			return err
		}
		if p, err = project.Select(p, args, false); err != nil {
			return err
		}
		if err := spec.Platforms(p, true); err != nil {
			return err
		}
		if _, err := watch.Rules(p, func(string) {}); err != nil {
			return err // before anything is started
		}
		if !noUp {
			if p, err = a.upToWatch(ctx, args, p, quiet); err != nil {
				return err
			}
			a.reporter.End()
		} else if o, err := a.operator(ctx); err != nil {
			return err
		} else if p, err = a.withAPISocket(ctx, o, p); err != nil {
			return err
		}
		w := &watcher{
			app: a, project: p, quiet: quiet, prune: prune, log: &show.Logs{Out: a.out, Err: a.err, Colours: a.coloured(false)},
			hold: func() {}, release: func() {},
		}
		w.engine = &follow.Engine{API: a.api, Patience: follow.Patience, Say: w.log.Watch}
		if err := w.start(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			w.stop()
			return &exitError{code: 130}
		case <-w.over():
			return w.failure()
		}
	})
	cmd.Flags().BoolVar(&quiet, "quiet", false, "hide build output")
	cmd.Flags().BoolVar(&prune, "prune", true, "Prune dangling images on rebuild")
	cmd.Flags().BoolVar(&noUp, "no-up", false, "Do not build & start services before watching")
	return cmd
}

// upToWatch builds what is watched, and brings the project up, as which it returns it.
func (a *app) upToWatch(ctx context.Context, services []string, p *types.Project, quiet bool) (*types.Project, error) {
	o, err := a.operator(ctx)
	if err != nil {
		return nil, err
	}
	for name, s := range p.Services {
		if s.Build != nil && s.Develop != nil {
			s.PullPolicy = types.PullPolicyBuild
			p.Services[name] = s
		}
	}
	if quiet {
		o.Build = func(ctx context.Context, p *types.Project, services []string) error {
			return a.build(ctx, p, services, building{quiet: true})
		}
	}
	if p, err = a.supplied(ctx, o, p); err != nil {
		return nil, err
	}
	if err := o.EnsureImages(ctx, p, operate.ImageOptions{}); err != nil {
		return nil, err
	}
	if err := o.Create(ctx, p, operate.CreateOptions{Services: services, Dependencies: operate.Never}); err != nil {
		return nil, err
	}
	return p, o.Start(ctx, p, operate.StartOptions{})
}

// watcher does what the develop sections of a project say when files change.
type watcher struct {
	app           *app
	project       *types.Project
	log           *show.Logs
	engine        *follow.Engine
	quiet, prune  bool
	hold, release func() // around what stops containers for a moment

	mu   sync.Mutex
	end  context.CancelFunc // nil while nothing is watched
	done chan struct{}
	err  error
}

// running says whether files are watched.
func (w *watcher) running() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.end != nil
}

// over is closed when the watch has ended.
func (w *watcher) over() <-chan struct{} { return w.done }

func (w *watcher) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// start begins to watch, after what initial_sync asks for.
func (w *watcher) start(ctx context.Context) error {
	rules, err := watch.Rules(w.project, func(text string) { w.app.reporter.Warn(text) })
	if err != nil {
		return err
	}
	// First watched, then synced: nothing is missed in between.
	files, err := watch.NewFiles(rules, func(err error) { w.log.Watch(err.Error()) })
	if err != nil {
		return err
	}
	if err := w.initialSync(ctx, rules); err != nil {
		return errors.Join(err, files.Close())
	}
	ctx, end := context.WithCancel(ctx)
	w.mu.Lock()
	w.end, w.done = end, make(chan struct{})
	w.mu.Unlock()
	w.log.Watch("Watch enabled")
	go func() {
		defer close(w.done)
		defer files.Close()
		for batch := range files.Batches(ctx) {
			since := time.Now()
			err := w.handle(ctx, rules, batch)
			for follow.Broken(err) && ctx.Err() == nil {
				if err = w.engine.Back(ctx, since); err == nil {
					since = time.Now()
					err = w.handle(ctx, rules, batch)
				}
			}
			if err != nil && ctx.Err() == nil {
				w.log.Watch("Error handling changed files: " + err.Error())
			}
		}
		if ctx.Err() == nil {
			w.mu.Lock()
			w.err, w.end = errors.New("the kernel tells of no further changes: files are not watched any more"), nil
			w.mu.Unlock()
		}
	}()
	return nil
}

// stop ends the watch, if there is one.
func (w *watcher) stop() {
	w.mu.Lock()
	end := w.end
	w.end = nil
	w.mu.Unlock()
	if end != nil {
		end()
		<-w.done
		w.log.Watch("Watch disabled")
	}
}

// toggle is the shortcut's.
func (w *watcher) toggle(ctx context.Context) {
	if w.running() {
		w.stop()
	} else if err := w.start(ctx); err != nil {
		w.log.Watch(err.Error())
	}
}

// todo is what a batch of changes asks for, by service.
type todo struct {
	rebuild, restart []string
	sync             map[string][]watch.Copy
	exec             map[string][]types.ServiceHook
}

func sortOut(rules []watch.Rule, batch []string) todo {
	t := todo{sync: map[string][]watch.Copy{}, exec: map[string][]types.ServiceHook{}}
	add := func(list *[]string, service string) {
		if !slices.Contains(*list, service) {
			*list = append(*list, service)
		}
	}
	for i := range rules {
		r := &rules[i]
		matched := false
		for _, file := range batch {
			target, ok := r.Match(file)
			if !ok {
				continue
			}
			matched = true
			if r.Syncs() {
				t.sync[r.Service] = append(t.sync[r.Service], watch.Copy{From: file, To: target, Target: path.Clean(r.Target)})
			}
		}
		switch {
		case !matched:
		case r.Action == types.WatchActionRebuild:
			add(&t.rebuild, r.Service)
		case r.Action == types.WatchActionRestart, r.Action == types.WatchActionSyncRestart:
			add(&t.restart, r.Service)
		case r.Action == types.WatchActionSyncExec:
			t.exec[r.Service] = append(t.exec[r.Service], r.Exec)
		}
	}
	return t
}

// handle does what a batch of changed files asks for.
func (w *watcher) handle(ctx context.Context, rules []watch.Rule, batch []string) error {
	t := sortOut(rules, batch)
	if len(t.rebuild) > 0 {
		if err := w.rebuild(ctx, t.rebuild); err != nil {
			return err
		}
	}
	o, err := w.operator(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, service := range w.project.ServiceNames() {
		if files := t.sync[service]; len(files) > 0 {
			w.log.Watch(fmt.Sprintf("Syncing service %q after %d changes were detected", service, len(files)))
			errs = append(errs, w.sync(ctx, o, service, files))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if len(t.restart) > 0 {
		if err := w.restart(ctx, o, t.restart); err != nil {
			return err
		}
	}
	for service, hooks := range t.exec {
		if err := w.exec(ctx, o, service, hooks); err != nil {
			return err
		}
	}
	return nil
}

// operator works silently: the watch says itself what it does.
func (w *watcher) operator(ctx context.Context) (*operate.Operator, error) {
	o, err := w.app.operator(ctx)
	if err == nil {
		o.Report = silent{w.log}
	}
	return o, err
}

// silent reports warnings alone.
type silent struct{ log *show.Logs }

func (silent) Report(string, string, string) {}

func (s silent) Warn(text string) { s.log.Watch("WARNING: " + text) }

// sync brings files into the containers of a service, and takes those away that are gone.
func (w *watcher) sync(ctx context.Context, o *operate.Operator, service string, files []watch.Copy) error {
	list, err := o.Containers(ctx, w.project.Name, false)
	if err != nil {
		return err
	}
	return o.Each(ctx, operate.OfServices(list, []string{service}), func(ctx context.Context, c operate.Container) error {
		if err := o.Sync(ctx, c, files); err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
		return nil
	})
}

func (w *watcher) restart(ctx context.Context, o *operate.Operator, services []string) error {
	w.hold()
	defer w.release()
	list, err := o.Containers(ctx, w.project.Name, false)
	if err != nil {
		return err
	}
	if err := o.Restart(ctx, list, services, false, nil); err != nil {
		return err
	}
	w.log.Watch(fmt.Sprintf("service(s) %q restarted", services))
	return nil
}

// exec runs the command of sync+exec in the service's containers. What it says is shown.
func (w *watcher) exec(ctx context.Context, o *operate.Operator, service string, hooks []types.ServiceHook) error {
	o.HookOutput = func(c operate.Container) io.WriteCloser {
		lines, _ := w.log.Container(c.Short() + " ->")
		return lines
	}
	list, err := o.Containers(ctx, w.project.Name, false)
	if err != nil {
		return err
	}
	return o.Each(ctx, operate.OfServices(list, []string{service}), func(ctx context.Context, c operate.Container) error {
		return o.Hooks(ctx, c, hooks)
	})
}

// rebuild builds services and replaces their containers.
func (w *watcher) rebuild(ctx context.Context, services []string) error {
	w.hold()
	defer w.release()
	w.log.Watch(fmt.Sprintf("Rebuilding service(s) %q after changes were detected...", services))
	o, err := w.operator(ctx)
	if err != nil {
		return err
	}
	b := building{quiet: w.quiet, lines: func(string) io.WriteCloser {
		return &show.Parts{To: func(line []byte) error {
			w.log.Watch(strings.TrimSuffix(string(line), "\n"))
			return nil
		}}
	}}
	if err := w.app.build(ctx, w.project, services, b); err != nil {
		if _, away := o.API.Ping(ctx, client.PingOptions{}); follow.Broken(away) {
			return away // the program that builds tells of it in words alone
		}
		w.log.Watch("Build failed. Error: " + err.Error())
		return nil // the next change may mend it
	}
	w.log.Watch(fmt.Sprintf("service(s) %q successfully built", services))
	affected := operate.Affected(w.project, services)
	if err := o.Create(ctx, w.project, operate.CreateOptions{Services: services, Only: affected, Recreate: operate.Always, IgnoreOrphans: true}); err != nil {
		if follow.Broken(err) {
			return err
		}
		w.log.Watch("Failed to recreate services after update. Error: " + err.Error())
		return nil
	}
	if err := o.Start(ctx, w.project, operate.StartOptions{Services: affected}); err != nil {
		if follow.Broken(err) {
			return err
		}
		w.log.Watch("Application failed to start after update. Error: " + err.Error())
		return nil
	}
	if w.prune {
		return w.pruneImages(ctx, o)
	}
	return nil
}

// pruneImages removes the images of the project that builds have taken the names of.
func (w *watcher) pruneImages(ctx context.Context, o *operate.Operator) error {
	list, err := o.API.ImageList(ctx, client.ImageListOptions{Filters: make(client.Filters).Add("dangling", "true").Add("label", label.Project+"="+w.project.Name)})
	if err != nil {
		return err
	}
	for _, i := range list.Items {
		// One that something else uses stays.
		_, _ = o.API.ImageRemove(ctx, i.ID, client.ImageRemoveOptions{})
	}
	return nil
}

// initialSync copies what was changed since the image was made, where a rule asks for it.
func (w *watcher) initialSync(ctx context.Context, rules []watch.Rule) error {
	o, err := w.operator(ctx)
	if err != nil {
		return err
	}
	for i := range rules {
		r := &rules[i]
		if !r.InitialSync || !r.Syncs() {
			continue
		}
		list, err := o.Containers(ctx, w.project.Name, false)
		if err != nil {
			return err
		}
		c, err := operate.Single(list, r.Service, 0)
		if err != nil {
			return err
		}
		image, err := o.API.ImageInspect(ctx, c.ImageID)
		if err != nil {
			return err
		}
		made, err := time.Parse(time.RFC3339Nano, image.Created)
		if err != nil {
			made = time.Time{} // then everything goes
		}
		changed, err := r.Changed(func(info fs.FileInfo) bool { return !info.ModTime().Before(made) })
		if err != nil {
			return err
		}
		if files := sortOut(rules[i:i+1], changed).sync[r.Service]; len(files) > 0 {
			if err := w.sync(ctx, o, r.Service, files); err != nil {
				return err
			}
		}
	}
	return nil
}
