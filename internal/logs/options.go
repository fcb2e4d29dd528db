package logs

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/docker/go-units"

	"github.com/cleatlabs/cleat/internal/failure"
)

// The drivers.
const (
	driverJSON  = "json-file"
	driverLocal = "local"
	driverNone  = "none"

	defaultMaxSize = 20_000_000
	defaultMaxFile = 5
	unlimited      = -1
)

// Drivers lists the drivers' names, the default first.
func Drivers() []string { return []string{driverJSON, driverLocal, driverNone} }

// Stores tells whether the driver keeps what it is given, so that it can be read back.
func Stores(driver string) bool { return driver != driverNone }

// Private tells whether the driver's files are its own business: Docker tells nobody
// where those of local lie.
func Private(driver string) bool { return driver == driverLocal }

// optionNames are the options of json-file and local.
var optionNames = []string{"compress", "env", "env-regex", "labels", "labels-regex", "max-file", "max-size", "mode", "tag"}

// options are the parsed driver options.
type options struct {
	maxSize  int64 // bytes; unlimited for no rotation
	maxFile  int   // how many files, with the current one
	compress bool
}

// Validate checks driver and options; the error names the option.
func Validate(driver string, opts map[string]string) error {
	switch driver {
	case "", driverJSON, driverLocal, driverNone:
	default:
		return failure.Invalid("logger: no log driver named '%s' is registered: choose json-file, local or none", driver)
	}
	if _, err := parseOptions(driver, opts); err != nil {
		return err
	}
	_, err := attributes(Config{Driver: driver, Opts: opts})
	return err
}

func parseOptions(driver string, opts map[string]string) (options, error) {
	o := options{maxSize: defaultMaxSize, maxFile: defaultMaxFile}
	if driver == "" {
		driver = driverJSON
	}
	for _, name := range sortedKeys(opts) {
		if !slices.Contains(optionNames, name) {
			return o, failure.Invalid("unknown log opt '%s' for %s log driver: it knows %s", name, driver, strings.Join(optionNames, ", "))
		}
		if err := o.set(name, opts[name]); err != nil {
			return o, err
		}
	}
	if driver == driverLocal && opts["compress"] == "" {
		// Docker's local compresses what it has rotated away. With nothing to
		// rotate there is nothing to compress, which is no mistake of the user's.
		o.compress = o.maxFile > 1 && o.maxSize != unlimited
	}
	if o.compress && (o.maxFile == 1 || o.maxSize == unlimited) {
		return o, failure.Invalid("log opt compress cannot be true when max-file is less than 2 or max-size is unlimited")
	}
	return o, nil
}

func (o *options) set(name, value string) (err error) {
	switch name {
	case "max-size":
		if value == "-1" {
			o.maxSize = unlimited
			return nil
		}
		o.maxSize, err = units.FromHumanSize(value)
		if err != nil || o.maxSize <= 0 {
			return failure.Invalid("log opt max-size=%s: give a positive number with a unit such as 10k, 20m or 1g, or -1 for no limit", value)
		}
	case "max-file":
		o.maxFile, err = strconv.Atoi(value)
		if err != nil || o.maxFile < 1 {
			return failure.Invalid("log opt max-file=%s: give a number of at least 1", value)
		}
	case "compress":
		if o.compress, err = strconv.ParseBool(value); err != nil {
			return failure.Invalid("log opt compress=%s: give true or false", value)
		}
	case "labels-regex", "env-regex":
		if _, err := regexp.Compile(value); err != nil {
			return failure.Invalid("log opt %s: %w", name, err)
		}
	case "mode":
		switch value {
		case "blocking":
		case "non-blocking":
			return failure.NotImplemented("log opt mode=non-blocking is not supported: leave it out, output waits for nothing but the disk")
		default:
			return failure.Invalid("log opt mode=%s: logging mode can only be blocking", value)
		}
	}
	return nil
}

// tagFields are the values that a tag template can use.
type tagFields struct{ c Config }

func (t tagFields) ID() string          { return shortID(t.c.ContainerID) }
func (t tagFields) FullID() string      { return t.c.ContainerID }
func (t tagFields) Name() string        { return strings.TrimPrefix(t.c.ContainerName, "/") }
func (t tagFields) ImageID() string     { return shortID(t.c.ImageID) }
func (t tagFields) ImageFullID() string { return t.c.ImageID }
func (t tagFields) ImageName() string   { return t.c.ImageName }
func (t tagFields) DaemonName() string  { return t.c.DaemonName }

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
			b, err := json.Marshal(v)
			return string(b), err
		},
		"split": strings.Split,
		"join":  strings.Join,
		"title": func(s string) string { return strings.ToUpper(s[:min(1, len(s))]) + s[min(1, len(s)):] },
		"lower": strings.ToLower,
		"upper": strings.ToUpper,
		"pad": func(s string, before, after int) string {
			return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
		},
		"truncate": func(s string, n int) string { return s[:max(0, min(n, len(s)))] },
	}
}

// attributes collects what the options select of the container, nil if nothing.
func attributes(c Config) (map[string]string, error) {
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
	if text := c.Opts["tag"]; text != "" {
		t, err := template.New("tag").Funcs(tagFuncs()).Parse(text)
		if err != nil {
			return nil, failure.Invalid("log opt tag: %w", err)
		}
		var b strings.Builder
		if err := t.Execute(&b, tagFields{c}); err != nil {
			return nil, failure.Invalid("log opt tag: %w", err)
		}
		if b.Len() > 0 {
			attrs["tag"] = b.String()
		}
	}
	if len(attrs) == 0 {
		return nil, nil
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

// renderAttrs is the attrs object as it stands in the log, with its key and a
// comma; empty without attributes.
func renderAttrs(c Config) ([]byte, error) {
	attrs, err := attributes(c)
	if err != nil || attrs == nil {
		return nil, err
	}
	b, err := json.Marshal(attrs)
	if err != nil {
		return nil, fmt.Errorf("encode the log's attributes: %w", err)
	}
	return append(append([]byte(`"attrs":`), b...), ','), nil
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
