package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/cleatlabs/cleat/client/compose/label"
	"github.com/cleatlabs/cleat/client/compose/operate"
	"github.com/cleatlabs/cleat/client/compose/show"
)

func (a *app) logsCommand() *cobra.Command {
	var o client.ContainerLogsOptions
	var noColour, noPrefix bool
	var index int
	cmd := command("logs [OPTIONS] [SERVICE...]", "View output from containers", func(ctx context.Context, args []string) error {
		op, list, err := a.containers(ctx, args, false)
		if err != nil {
			return err
		}
		if index > 0 {
			list = slices.DeleteFunc(list, func(c operate.Container) bool { return c.Number != index })
		}
		// What containers say to their standard error, too: `compose logs web | grep` is to find it.
		logs := &show.Logs{Out: a.out, Err: a.out, NoPrefix: noPrefix, Colours: a.coloured(noColour)}
		for _, c := range list {
			logs.Announce(c.Short())
		}
		o.ShowStdout, o.ShowStderr = true, true
		f := &following{op: op, logs: logs, options: o, seen: map[string]bool{}}
		err = f.run(ctx, list, args)
		if ctx.Err() != nil {
			return &exitError{code: 130}
		}
		if errors.Is(err, io.ErrUnexpectedEOF) { // as many times as there are containers
			return a.lost(io.ErrUnexpectedEOF, "logs")
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

// following shows the logs of containers, and with Follow of those that are started later.
type following struct {
	op      *operate.Operator
	logs    *show.Logs
	options client.ContainerLogsOptions

	mu    sync.Mutex
	seen  map[string]bool
	group sync.WaitGroup
	errs  []error
}

func (f *following) run(ctx context.Context, list []operate.Container, services []string) error {
	if !f.options.Follow {
		for _, c := range list {
			f.add(ctx, c, f.options)
		}
		f.group.Wait()
		return errors.Join(f.errs...)
	}
	if len(list) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	project := list[0].Labels[label.Project]
	started := f.op.API.Events(ctx, client.EventsListOptions{Filters: make(client.Filters).
		Add("type", string(events.ContainerEventType)).Add("event", string(events.ActionStart)).Add("label", label.Project+"="+project)})
	for _, c := range list {
		f.add(ctx, c, f.options)
	}
	ended := make(chan struct{})
	go func() { f.group.Wait(); close(ended) }()
	for {
		select {
		case m := <-started.Messages:
			f.joined(ctx, m, services)
		case <-ended:
			return errors.Join(f.errs...)
		case err := <-started.Err:
			<-ended
			return errors.Join(append(f.errs, err)...)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// joined follows a container that was started, from that start on.
func (f *following) joined(ctx context.Context, m events.Message, services []string) {
	service := m.Actor.Attributes[label.Service]
	if m.Actor.Attributes[label.OneOff] != "False" || len(services) > 0 && !slices.Contains(services, service) {
		return
	}
	options := f.options
	options.Since, options.Tail = f.op.RunSince(ctx, m.Actor.ID, m.TimeNano), "all"
	c := operate.Container{Name: m.Actor.Attributes["name"], Service: service}
	c.ID = m.Actor.ID
	f.add(ctx, c, options)
}

// add shows one container's log, unless that is done already.
func (f *following) add(ctx context.Context, c operate.Container, options client.ContainerLogsOptions) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seen[c.ID] {
		return
	}
	f.seen[c.ID] = true
	stdout, stderr := f.logs.Container(c.Short())
	f.group.Go(func() {
		err := f.show(ctx, c, options, stdout, stderr)
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.seen, c.ID)
		if err != nil && ctx.Err() == nil {
			f.errs = append(f.errs, fmt.Errorf("logs of %s: %w", c.Name, err))
		}
	})
}

func (f *following) show(ctx context.Context, c operate.Container, options client.ContainerLogsOptions, stdout, stderr *show.Lines) error {
	inspected, err := f.op.API.ContainerInspect(ctx, c.ID, client.ContainerInspectOptions{})
	if err != nil {
		return err
	}
	stream, err := f.op.API.ContainerLogs(ctx, c.ID, options)
	if err != nil {
		return err
	}
	defer stream.Close()
	if err := copyOutput(stdout, stderr, stream, inspected.Container.Config.Tty); errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return nil
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
				case errors.Is(err, io.EOF), ctx.Err() != nil:
					return nil
				case errors.Is(err, io.ErrUnexpectedEOF):
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
