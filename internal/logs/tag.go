package logs

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"text/template"
	"time"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/logsend"
)

// defaultTag is what messages to log servers are tagged with.
const defaultTag = "{{.ID}}"

// tagFields are the values that a tag template can use: those of Docker's.
type tagFields struct{ c Config }

func (t tagFields) ID() string                         { return shortID(t.c.ContainerID) }
func (t tagFields) FullID() string                     { return t.c.ContainerID }
func (t tagFields) Name() string                       { return strings.TrimPrefix(t.c.ContainerName, "/") }
func (t tagFields) ImageID() string                    { return shortID(t.c.ImageID) }
func (t tagFields) ImageFullID() string                { return t.c.ImageID }
func (t tagFields) ImageName() string                  { return t.c.ImageName }
func (t tagFields) DaemonName() string                 { return t.c.DaemonName }
func (t tagFields) Command() string                    { return strings.Join(t.c.Command, " ") }
func (t tagFields) Hostname() (string, error)          { return os.Hostname() }
func (t tagFields) Config() map[string]string          { return t.c.Opts }
func (t tagFields) ContainerID() string                { return t.c.ContainerID }
func (t tagFields) ContainerName() string              { return "/" + t.Name() }
func (t tagFields) ContainerImageID() string           { return t.c.ImageID }
func (t tagFields) ContainerImageName() string         { return t.c.ImageName }
func (t tagFields) ContainerCreated() time.Time        { return t.c.Created }
func (t tagFields) ContainerEnv() []string             { return t.c.Env }
func (t tagFields) ContainerLabels() map[string]string { return t.c.Labels }

func shortID(id string) string {
	_, hex, found := strings.Cut(id, ":")
	if !found {
		hex = id
	}
	return hex[:min(12, len(hex))]
}

func tagFuncs() template.FuncMap {
	return template.FuncMap{
		"json": func(v any) (string, error) {
			var b bytes.Buffer
			enc := json.NewEncoder(&b)
			enc.SetEscapeHTML(false)
			err := enc.Encode(v)
			return strings.TrimSpace(b.String()), err
		},
		"split": strings.Split,
		"join":  strings.Join,
		"title": func(s string) string { return strings.ToUpper(s[:min(1, len(s))]) + s[min(1, len(s)):] },
		"lower": strings.ToLower,
		"upper": strings.ToUpper,
		"pad": func(s string, before, after int) string {
			if s == "" {
				return s
			}
			return strings.Repeat(" ", clamp(before)) + s + strings.Repeat(" ", clamp(after))
		},
		"truncate": func(s string, n int) string { return s[:max(0, min(n, len(s)))] },
	}
}

// clamp keeps a template from asking for any amount of memory.
func clamp(n int) int { return max(0, min(n, 1<<10)) }

// renderTag fills the option tag, or what is to stand for it where it is not given.
func renderTag(c Config, byDefault string) (string, error) {
	text := c.Opts["tag"]
	if text == "" {
		text = byDefault
	}
	if text == "" {
		return "", nil
	}
	t, err := template.New("tag").Funcs(tagFuncs()).Parse(text)
	if err != nil {
		return "", failure.Invalid("log opt tag: %w", err)
	}
	var b strings.Builder
	if err := t.Execute(&b, tagFields{c}); err != nil {
		return "", failure.Invalid("log opt tag: %w", err)
	}
	return b.String(), nil
}

// attributes collects what the options select of the container, with the tag; nil if
// nothing.
func attributes(c Config) (map[string]string, error) {
	attrs, err := selected(c)
	if err != nil {
		return nil, err
	}
	tag, err := renderTag(c, "")
	if err != nil {
		return nil, err
	}
	if tag != "" {
		attrs["tag"] = tag
	}
	if len(attrs) == 0 {
		return nil, nil
	}
	return attrs, nil
}

// selected are the labels and variables that the options name.
func selected(c Config) (map[string]string, error) {
	attrs := map[string]string{}
	take := func(key, value string) { attrs[key] = value }
	env := map[string]string{}
	for _, kv := range c.Env {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	for _, sel := range []struct {
		option string
		from   map[string]string
	}{{"labels", c.Labels}, {"env", env}} {
		if err := selectKeys(c.Opts, sel.option, sel.from, take); err != nil {
			return nil, err
		}
	}
	return attrs, nil
}

// selectKeys takes the keys that the option lists or whose name its -regex
// variant matches.
func selectKeys(opts map[string]string, option string, from map[string]string, take func(k, v string)) error {
	for key := range strings.SplitSeq(opts[option], ",") {
		if v, ok := from[key]; ok && key != "" {
			take(key, v)
		}
	}
	expr := opts[option+"-regex"]
	if expr == "" {
		return nil
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		return failure.Invalid("log opt %s-regex: %w", option, err)
	}
	for k, v := range from {
		if re.MatchString(k) {
			take(k, v)
		}
	}
	return nil
}

// Source is what a driver that sends tells of the container.
func Source(c Config) (*logsend.Source, error) {
	tag, err := renderTag(c, defaultTag)
	if err != nil {
		return nil, err
	}
	attrs, err := selected(c)
	if err != nil {
		return nil, err
	}
	return &logsend.Source{
		ID: c.ContainerID, Name: strings.TrimPrefix(c.ContainerName, "/"), ImageID: c.ImageID, ImageName: c.ImageName,
		Command: strings.Join(c.Command, " "), Created: c.Created, Tag: tag, Attrs: attrs, Run: c.Run,
	}, nil
}

// SendOptions are the options of the driver itself, for logsend.New.
func SendOptions(c Config) map[string]string { return driverOptions(c.Opts) }
