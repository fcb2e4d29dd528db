package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/client/compose/follow"
	"github.com/cleatlabs/cleat/client/compose/label"
	"github.com/cleatlabs/cleat/client/compose/operate"
	"github.com/cleatlabs/cleat/client/compose/show"
	"github.com/cleatlabs/cleat/client/connect"
)

func (a *app) logsCommand() *cobra.Command {
	var o client.ContainerLogsOptions
	var noColour, noPrefix bool
	var index int
	cmd := command("logs [OPTIONS] [SERVICE...]", "View output from containers", func(ctx context.Context, args []string) error {
		if index > 0 && len(args) != 1 {
			return errors.New("--index requires one service to be selected")
		}
		op, list, err := a.acted(ctx, args, false)
		if err != nil {
			return err
		}
		if index > 0 {
			list = slices.DeleteFunc(list, func(c operate.Container) bool { return c.Number != index })
			if len(list) == 0 {
				return fmt.Errorf("%s has no container #%d: `%s compose ps -a` shows those that there are", strings.Join(args, ", "), index, a.program)
			}
		}
		hidden := map[string]bool{}
		// By its name alone a project is what the engine has of it, as with docker compose.
		if len(args) == 0 && a.project != nil && !a.byName() {
			for name, s := range a.project.Services {
				hidden[name] = s.Attach != nil && !*s.Attach // shown when they are asked for
			}
		}
		list = slices.DeleteFunc(list, func(c operate.Container) bool { return hidden[c.Service] })
		// What containers say to their standard error, too: `compose logs web | grep` is to find it.
		logs := &show.Logs{Out: a.out, Err: a.out, NoPrefix: noPrefix, Colours: a.coloured(noColour)}
		for _, c := range list {
			logs.Announce(c.Short())
		}
		o.ShowStdout, o.ShowStderr = true, true
		f := &following{op: op, logs: logs, options: o, hidden: hidden}
		f.engine = &follow.Engine{API: op.API, Patience: follow.Patience, Say: (&show.Logs{Err: a.err}).Notice}
		err = f.run(ctx, list, args)
		if ctx.Err() != nil {
			return &exitError{code: 130}
		}
		switch { // once, not as many times as there are containers
		case f.unshown != nil:
			return f.unshown
		case f.lost != nil:
			return a.lost(f.lost, "logs")
		}
		return err
	})
	f := cmd.Flags()
	f.BoolVarP(&o.Follow, "follow", "f", false, "Follow log output")
	f.IntVar(&index, "index", 0, "index of the container if service has multiple replicas")
	f.BoolVar(&noColour, "no-color", false, "Produce monochrome output")
	f.BoolVar(&noPrefix, "no-log-prefix", false, "Don't print prefix in logs")
	f.StringVar(&o.Since, "since", "", "Show logs since timestamp (e.g. 2013-01-02T13:23:37Z) or relative (e.g. 42m for 42 minutes)")
	f.StringVar(&o.Until, "until", "", "Show logs before a timestamp (e.g. 2013-01-02T13:23:37Z) or relative (e.g. 42m for 42 minutes)")
	f.StringVarP(&o.Tail, "tail", "n", "all", "Number of lines to show from the end of the logs for each container")
	f.BoolVarP(&o.Timestamps, "timestamps", "t", false, "Show timestamps")
	return cmd
}

// following shows the logs of containers, and with Follow of those that are started later. What it knows belongs to the
// goroutine of run.
type following struct {
	op      *operate.Operator
	engine  *follow.Engine
	logs    *show.Logs
	options client.ContainerLogsOptions
	hidden  map[string]bool // services that are not shown

	open  map[string]bool // the containers whose logs have not ended
	tails map[string]*follow.Tail
	again map[string]func() // for who was started before the log of an earlier run had ended: opens it anew
	ended chan endedLog
	lost  error // why the engine is not heard any more

	unshown error // why this process's own output cannot be written
}

// An endedLog is what the goroutine that shows a container's log says at its end.
type endedLog struct {
	id, name string
	err      error
}

func (f *following) run(ctx context.Context, list []operate.Container, services []string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.open, f.tails, f.again, f.ended = map[string]bool{}, map[string]*follow.Tail{}, map[string]func(){}, make(chan endedLog)
	var project string
	var started client.EventsResult // none without Follow
	if f.options.Follow && len(list) > 0 {
		project = list[0].Labels[label.Project]
		started = f.starts(ctx, project)
	}
	for _, c := range list {
		f.add(ctx, c, f.options)
	}
	var errs []error
	since := time.Now()
	for len(f.open) > 0 && f.unshown == nil {
		select {
		case m := <-started.Messages:
			service := m.Actor.Attributes[label.Service]
			c := operate.Container{Name: m.Actor.Attributes["name"], Service: service, OneOff: m.Actor.Attributes[label.OneOff] != "False"}
			c.ID = m.Actor.ID
			f.joined(ctx, c, m.TimeNano, services)
		case l := <-f.ended:
			errs = append(errs, f.left(l))
		case err := <-started.Err:
			if !follow.Broken(err) || f.engine.Back(ctx, since) != nil {
				started, errs = client.EventsResult{}, append(errs, err) // what is followed by now ends in its time
				continue
			}
			since, started = time.Now(), f.starts(ctx, project)
			f.rejoin(ctx, project, services)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.Join(errs...)
}

// starts are the events of containers that are started.
func (f *following) starts(ctx context.Context, project string) client.EventsResult {
	return f.op.API.Events(ctx, client.EventsListOptions{Filters: make(client.Filters).
		Add("type", string(events.ContainerEventType)).Add("event", string(events.ActionStart)).Add("label", label.Project+"="+project)})
}

// rejoin follows what was started while the engine was not heard.
func (f *following) rejoin(ctx context.Context, project string, services []string) {
	list, err := f.op.Containers(ctx, project, false)
	if err != nil {
		return // the events break off, too, and all this begins again
	}
	for _, c := range list {
		if c.State == container.StateRunning || c.State == container.StatePaused {
			f.joined(ctx, c, time.Now().UnixNano(), services)
		}
	}
}

// joined follows a container that was started, from that start on, which was at the latest at this time, in nanoseconds
// since 1970.
func (f *following) joined(ctx context.Context, c operate.Container, at int64, services []string) {
	if c.OneOff || f.hidden[c.Service] || len(services) > 0 && !slices.Contains(services, c.Service) {
		return
	}
	options := f.options
	options.Since, options.Tail = f.op.RunSince(ctx, c.ID, at), "all"
	f.add(ctx, c, options)
}

// add shows one container's log: where it is shown already, what is left of it when that has ended.
func (f *following) add(ctx context.Context, c operate.Container, options client.ContainerLogsOptions) {
	if f.open[c.ID] {
		f.again[c.ID] = func() { f.add(ctx, c, options) }
		return
	}
	f.open[c.ID] = true
	tail := f.tails[c.ID]
	if tail == nil {
		stdout, stderr := f.logs.Container(c.Short())
		tail = &follow.Tail{API: f.op.API, ID: c.ID, Stdout: stdout, Stderr: stderr}
		f.tails[c.ID] = tail
	}
	go func() {
		l := endedLog{c.ID, c.Name, f.show(ctx, tail, options)}
		select {
		case f.ended <- l:
		case <-ctx.Done():
		}
	}()
}

// left takes note of a log that has ended, and returns what went wrong with it.
func (f *following) left(l endedLog) error {
	delete(f.open, l.id)
	if open := f.again[l.id]; open != nil {
		delete(f.again, l.id)
		open()
	}
	switch {
	case l.err == nil:
		return nil
	case errdefs.IsNotImplemented(l.err): // its driver keeps none; the others' are shown
		f.engine.Say(fmt.Sprintf("WARNING: logs of %s: %v", l.name, l.err))
		return nil
	}
	switch {
	case errors.As(l.err, new(*follow.OutputError)):
		f.unshown = l.err
	case follow.Broken(l.err) || errors.Is(l.err, follow.ErrGone):
		f.lost = l.err
	}
	return fmt.Errorf("logs of %s: %w", l.name, l.err)
}

// show shows a container's log until it ends: that of one that runs does so when the engine goes.
func (f *following) show(ctx context.Context, t *follow.Tail, options client.ContainerLogsOptions) error {
	inspected, err := connect.Container(ctx, f.op.API, t.ID)
	if err != nil {
		return err
	}
	t.TTY = inspected.Config.Tty
	for {
		since := time.Now()
		err := followed(ctx, f.op, t, options)
		if !options.Follow || options.Until != "" {
			return err
		}
		if err == nil {
			inspected, err = connect.Container(ctx, f.op.API, t.ID)
			if errdefs.IsNotFound(err) || err == nil && !inspected.State.Running {
				return nil
			}
		}
		if err != nil && !follow.Broken(err) {
			return err
		}
		if err := f.engine.Back(ctx, since); err != nil {
			return err
		}
	}
}

// followed shows a log until it ends, with what another engine than Cleat may leave out.
func followed(ctx context.Context, op *operate.Operator, t *follow.Tail, options client.ContainerLogsOptions) error {
	if err := t.Follow(ctx, options); err != nil || !options.Follow {
		return err
	}
	if cleat, err := op.IsCleat(ctx); cleat || err != nil {
		return err
	}
	return t.Rest(ctx, options)
}

func (a *app) eventsCommand() *cobra.Command {
	var asJSON bool
	var o client.EventsListOptions
	cmd := command("events [OPTIONS] [SERVICE...]", "Receive real time events from containers", func(ctx context.Context, args []string) error {
		name, _, err := a.known(ctx)
		if err != nil {
			return err
		}
		api, err := a.connect(ctx)
		if err != nil {
			return err
		}
		o.Filters = make(client.Filters).Add("type", string(events.ContainerEventType)).Add("label", label.Project+"="+name)
		stream := api.Events(ctx, o)
		for {
			select {
			case m := <-stream.Messages:
				if len(args) == 0 || slices.Contains(args, m.Actor.Attributes[label.Service]) {
					a.printEvent(m, asJSON)
				}
			case err := <-stream.Err:
				switch {
				case ctx.Err() != nil:
					return &exitError{code: 130}
				case errors.Is(err, io.EOF) && o.Until != "":
					return nil
				case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
					return a.lost(err, "events")
				}
				return err
			}
		}
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "Output events as a stream of json objects")
	cmd.Flags().StringVar(&o.Since, "since", "", "Show all events created since timestamp")
	cmd.Flags().StringVar(&o.Until, "until", "", "Stream events until this timestamp")
	return cmd
}

func (a *app) printEvent(m events.Message, asJSON bool) {
	attributes := map[string]string{}
	for k, v := range m.Actor.Attributes {
		if !strings.HasPrefix(k, "com.docker.compose.") {
			attributes[k] = v
		}
	}
	at := time.Unix(0, m.TimeNano)
	if asJSON {
		_ = json.NewEncoder(a.out).Encode(map[string]any{
			"time": at, "type": "container", "service": m.Actor.Attributes[label.Service], "id": m.Actor.ID, "action": m.Action, "attributes": attributes,
		})
		return
	}
	pairs := make([]string, 0, len(attributes))
	for k, v := range attributes {
		pairs = append(pairs, k+"="+v)
	}
	slices.Sort(pairs)
	_, _ = fmt.Fprintf(a.out, "%s container %s %s (%s)\n", at.Format("2006-01-02 15:04:05.000000"), m.Action, m.Actor.ID, strings.Join(pairs, ", "))
}
