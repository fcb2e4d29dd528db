package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/docker/cli/opts"
	"github.com/docker/cli/templates"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/connect"
	"github.com/cleatlabs/cleat/client/term"
)

func (a *app) events() spec {
	return spec{
		use: "events [OPTIONS]", short: "Get real time events from the server",
		args: a.noArgs, shownAs: []string{"system events", "events"},
		setup: func(fs *pflag.FlagSet) action {
			filter := opts.NewFilterOpt()
			fs.VarP(&filter, "filter", "f", "Filter output based on conditions provided")
			format := fs.String("format", "", inspectFormatHelp)
			since := fs.String("since", "", "Show all events created since timestamp")
			until := fs.String("until", "", "Stream events until this timestamp")
			return func(ctx context.Context, _ []string) error {
				return a.watchEvents(ctx, client.EventsListOptions{Since: *since, Until: *until, Filters: filter.Value()}, *format)
			}
		},
	}
}

func (a *app) watchEvents(ctx context.Context, o client.EventsListOptions, format string) error {
	var tmpl *template.Template
	if format != "" {
		var err error
		if tmpl, err = templates.Parse(templateText(format)); err == nil {
			err = tmpl.Execute(io.Discard, &eventMessage{})
		}
		if err != nil {
			return &statusError{code: 64, msg: "Error parsing format: " + err.Error(), cause: err}
		}
	}
	c, err := a.api()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	res := c.Events(ctx, o)
	show := func(m events.Message) error {
		if tmpl == nil {
			return printEvent(a.out, m)
		}
		if err := tmpl.Execute(a.out, newEventMessage(m)); err != nil {
			return err
		}
		_, err := io.WriteString(a.out, "\n")
		return err
	}
	for {
		select {
		case m := <-res.Messages:
			if err := show(m); err != nil {
				return err
			}
		case err := <-res.Err:
			if errors.Is(err, io.EOF) && !connect.IsUnreachable(err) { // --until has come
				return nil
			}
			return err
		}
	}
}

// eventMessage is an event as templates see it, and as JSON. Docker 29 has dropped the fields that say again what
// others do, and thereby what its documentation has always shown: {{.Status}} and {{.ID}}. They go on working.
type eventMessage struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	events.Message
}

func newEventMessage(m events.Message) *eventMessage {
	e := &eventMessage{Message: m}
	switch m.Type {
	case events.ContainerEventType:
		e.Status, e.ID, e.From = string(m.Action), m.Actor.ID, m.Actor.Attributes["image"]
	case events.ImageEventType:
		e.Status, e.ID = string(m.Action), m.Actor.ID
	}
	return e
}

// printEvent writes TIME TYPE ACTION ID (ATTRIBUTES).
func printEvent(w io.Writer, m events.Message) error {
	const fixedNano = "2006-01-02T15:04:05.000000000Z07:00"
	var b strings.Builder
	switch {
	case m.TimeNano != 0:
		b.WriteString(time.Unix(0, m.TimeNano).Format(fixedNano) + " ")
	case m.Time != 0:
		b.WriteString(time.Unix(m.Time, 0).Format(fixedNano) + " ")
	}
	fmt.Fprintf(&b, "%s %s %s", m.Type, m.Action, m.Actor.ID)
	if len(m.Actor.Attributes) > 0 {
		attrs := make([]string, 0, len(m.Actor.Attributes))
		for _, k := range slices.Sorted(maps.Keys(m.Actor.Attributes)) {
			attrs = append(attrs, k+"="+m.Actor.Attributes[k])
		}
		b.WriteString(" (" + strings.Join(attrs, ", ") + ")")
	}
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}

const versionTemplate = `{{with .Client -}}
Client:
 Version:	{{.Version}}
 API version:	{{.APIVersion}}{{if ne .APIVersion .DefaultAPIVersion}} (downgraded from {{.DefaultAPIVersion}}){{end}}
 Go version:	{{.GoVersion}}
 Git commit:	{{.GitCommit}}
 Built:	{{.BuildTime}}
 OS/Arch:	{{.Os}}/{{.Arch}}
 Context:	{{.Context}}
{{- end}}
{{- if .Server}}{{with .Server}}

Server:{{if .Platform.Name}} {{.Platform.Name}}{{end}}
 {{- range $component := .Components}}
 {{$component.Name}}:
  {{- if eq $component.Name "Engine" }}
  Version:	{{.Version}}
  API version:	{{index .Details "ApiVersion"}} (minimum version {{index .Details "MinAPIVersion"}})
  Go version:	{{index .Details "GoVersion"}}
  Git commit:	{{index .Details "GitCommit"}}
  Built:	{{index .Details "BuildTime"}}
  OS/Arch:	{{index .Details "Os"}}/{{index .Details "Arch"}}
  Experimental:	{{index .Details "Experimental"}}
  {{- else }}
  Version:	{{$component.Version}}
  {{- range $key := sortedKeys $component.Details}}
  {{$key}}:	{{index $component.Details $key}}
   {{- end}}
  {{- end}}
 {{- end}}
 {{- end}}{{- end}}`

// versionInfo is what templates of `version` see.
type versionInfo struct {
	Client clientVersion
	Server *serverVersion
}

type clientVersion struct {
	Version           string `json:"Version,omitempty"`
	APIVersion        string `json:"ApiVersion,omitempty"`
	DefaultAPIVersion string `json:"DefaultAPIVersion,omitempty"`
	GitCommit         string `json:"GitCommit,omitempty"`
	GoVersion         string `json:"GoVersion,omitempty"`
	Os                string `json:"Os,omitempty"`
	Arch              string `json:"Arch,omitempty"`
	BuildTime         string `json:"BuildTime,omitempty"`
	Context           string `json:"Context"`
}

type serverVersion struct {
	Platform      client.PlatformInfo       `json:"Platform"`
	Version       string                    `json:"Version"`
	APIVersion    string                    `json:"ApiVersion"`
	MinAPIVersion string                    `json:"MinAPIVersion,omitempty"`
	Os            string                    `json:"Os"`
	Arch          string                    `json:"Arch"`
	Components    []system.ComponentVersion `json:"Components,omitempty"`
	GitCommit     string                    `json:"GitCommit,omitempty"`
	GoVersion     string                    `json:"GoVersion,omitempty"`
	KernelVersion string                    `json:"KernelVersion,omitempty"`
	Experimental  bool                      `json:"Experimental,omitempty"`
	BuildTime     string                    `json:"BuildTime,omitempty"`
}

func (a *app) versionCommand() spec {
	return spec{
		use: "version [OPTIONS]", short: "Show the client's and the engine's version information", args: a.noArgs, top: 11,
		setup: func(fs *pflag.FlagSet) action {
			format := fs.StringP("format", "f", "", inspectFormatHelp)
			return func(ctx context.Context, _ []string) error { return a.showVersion(ctx, *format) }
		},
	}
}

func (a *app) showVersion(ctx context.Context, format string) error {
	text := templateText(format)
	if format == "" {
		text = versionTemplate
	}
	tmpl, err := templates.New("version").Funcs(template.FuncMap{
		"sortedKeys": func(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) },
	}).Parse(text)
	if err != nil {
		return &statusError{code: 64, msg: "template parsing error: " + err.Error(), cause: err}
	}
	c, err := a.api()
	if err != nil {
		return err
	}
	info := versionInfo{Client: a.clientVersion(c)}
	res, serverErr := c.ServerVersion(ctx, client.ServerVersionOptions{})
	if isTooNew(serverErr) {
		return serverErr
	}
	if serverErr == nil {
		info.Server = newServerVersion(res)
		info.Client.APIVersion = c.ClientVersion()
	}
	t := term.NewTable(a.out, 20, 1)
	if err := tmpl.Execute(t, info); err != nil && serverErr == nil {
		return err // without an engine it is no wonder: that is what is told
	}
	_, _ = io.WriteString(t, "\n")
	return errors.Join(serverErr, t.Flush())
}

func (a *app) clientVersion(c *client.Client) clientVersion {
	v := clientVersion{
		Version: a.version, APIVersion: c.ClientVersion(), DefaultAPIVersion: client.MaxAPIVersion, GoVersion: runtime.Version(),
		GitCommit: "unknown", BuildTime: "unknown", Os: runtime.GOOS, Arch: runtime.GOARCH, Context: a.contextName(),
	}
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, s := range b.Settings {
			switch s.Key {
			case "vcs.revision":
				v.GitCommit = s.Value[:min(len(s.Value), 7)]
			case "vcs.time":
				v.BuildTime = humanDate(s.Value)
			}
		}
	}
	return v
}

func humanDate(s string) string {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t.Format(time.ANSIC)
	}
	return s
}

func newServerVersion(r client.ServerVersionResult) *serverVersion {
	out := &serverVersion{
		Platform: r.Platform, Version: r.Version, APIVersion: r.APIVersion, MinAPIVersion: r.MinAPIVersion, Os: r.Os, Arch: r.Arch,
		Components: r.Components,
	}
	for i, c := range out.Components {
		if c.Name != "Engine" {
			continue
		}
		out.GitCommit, out.GoVersion, out.KernelVersion = c.Details["GitCommit"], c.Details["GoVersion"], c.Details["KernelVersion"]
		out.BuildTime, out.Experimental = c.Details["BuildTime"], c.Details["Experimental"] == "true"
		if c.Details["BuildTime"] != "" {
			out.Components[i].Details["BuildTime"] = humanDate(c.Details["BuildTime"])
		}
		return out
	}
	out.Components = append(out.Components, system.ComponentVersion{Name: "Engine", Version: r.Version, Details: map[string]string{
		"ApiVersion": r.APIVersion, "MinAPIVersion": r.MinAPIVersion, "Os": r.Os, "Arch": r.Arch,
	}})
	return out
}
