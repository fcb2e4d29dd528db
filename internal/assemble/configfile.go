package assemble

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// DefaultConfigFile is read if it is there. It is not Docker's own file: a data root or socket that was chosen
// for dockerd must not become this engine's without being asked for; --config-file can name that one.
const DefaultConfigFile = "/etc/cleat/daemon.json"

// maxConfigFile bounds the file's size, in bytes.
const maxConfigFile = 1 << 20

// differentlyNamed are the keys of daemon.json whose flag is called otherwise; every other key is its flag's name.
var differentlyNamed = map[string]string{
	"authorization-plugins":       "authorization-plugin",
	"cdi-spec-dirs":               "cdi-spec-dir",
	"containerd-plugin-namespace": "containerd-plugins-namespace",
	"default-address-pools":       "default-address-pool",
	"default-init":                "init",
	"default-network-opts":        "default-network-opt",
	"default-ulimits":             "default-ulimit",
	"dns-opts":                    "dns-opt",
	"exec-opts":                   "exec-opt",
	"features":                    "feature",
	"host-gateway-ips":            "host-gateway-ip",
	"hosts":                       "host",
	"insecure-registries":         "insecure-registry",
	"labels":                      "label",
	"log-opts":                    "log-opt",
	"node-generic-resources":      "node-generic-resource",
	"registry-mirrors":            "registry-mirror",
	"runtimes":                    "add-runtime",
	"storage-opts":                "storage-opt",
}

// keysWithoutFlag are dockerd's keys that are set in its file alone. Their effect is not there.
var keysWithoutFlag = []string{
	"min-api-version", "network-diagnostic-port", "resolv-conf", "swarm-raft-election-tick", "swarm-raft-heartbeat-tick",
}

// onlyFlags are flags that the file has no key for, in dockerd neither.
var onlyFlags = []string{"config-file", "validate", "version", "help", "firewall-integrate", "plugin-dir"}

// configFileError says what is wrong with the file.
type configFileError struct {
	path string
	err  error
}

func (e *configFileError) Error() string {
	return "the configuration file " + e.path + ": " + e.err.Error()
}
func (e *configFileError) Unwrap() error { return e.err }

// load sets the flags that the configuration file has keys for. As dockerd has it, a key that is given as a flag
// too is an error, and so is one that means nothing. A missing file is one only if it was asked for.
func (c *Config) load() error {
	if c.given == nil {
		return nil
	}
	data, err := readConfigFile(c.File)
	if errors.Is(err, fs.ErrNotExist) && !c.given.Changed("config-file") {
		return nil
	}
	if err == nil {
		err = c.setFrom(data)
	}
	if err != nil {
		return &configFileError{c.File, err}
	}
	return nil
}

func readConfigFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, plainPathError(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfigFile+1))
	if err != nil {
		return nil, plainPathError(err)
	}
	if len(data) > maxConfigFile {
		return nil, fmt.Errorf("it is larger than %d bytes", maxConfigFile)
	}
	return data, nil
}

// plainPathError leaves out the path, which is named already.
func plainPathError(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func (c *Config) setFrom(data []byte) error {
	values, err := parseConfigFile(data)
	if err != nil {
		return err
	}
	if c.builder, err = readBuilder(data); err != nil {
		return err
	}
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	sort.Strings(names)
	var both, unknown []string
	for _, name := range names {
		switch flag := c.given.Lookup(name); {
		case flag == nil || flag.Shorthand == name || slices.Contains(onlyFlags, name):
			unknown = append(unknown, values[name].key)
		case flag.Changed:
			both = append(both, fmt.Sprintf("%s: (from flag: %s, from file: %s)", values[name].key, flag.Value, strings.Join(values[name].values, ",")))
		}
	}
	if len(unknown) > 0 {
		return fmt.Errorf("the following directives don't match any configuration option: %s", strings.Join(unknown, ", "))
	}
	if len(both) > 0 {
		return fmt.Errorf("the following directives are specified both as a flag and in the configuration file: %s", strings.Join(both, ", "))
	}
	c.fromFile = map[string]string{}
	for _, name := range names {
		if err := checkShape(c.given.Lookup(name), values[name]); err != nil {
			return err
		}
		for _, v := range values[name].values {
			if err := c.given.Set(name, v); err != nil {
				return fmt.Errorf("%q: %w", values[name].key, misfit(err))
			}
		}
		c.fromFile[name] = values[name].key
	}
	return nil
}

// misfit says why a flag cannot have a value; the words of the flags' library are about the command line, and Go.
func misfit(err error) error {
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return err
	}
	switch invalid.GetFlag().Value.Type() {
	case "bool":
		return fmt.Errorf("%q is neither true nor false", invalid.GetValue())
	case "int", "uint":
		return fmt.Errorf("%q is not a whole number", invalid.GetValue())
	}
	return invalid.Unwrap()
}

// readBuilder reads what the file, which is valid JSON, says of builds; nil if nothing.
func readBuilder(data []byte) (*builderSettings, error) {
	var object map[string]json.RawMessage
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if len(bytes.TrimSpace(data)) == 0 || json.Unmarshal(data, &object) != nil || object[builderKey] == nil {
		return nil, nil
	}
	return parseBuilder(object[builderKey])
}

// fileValue is what the file says about one flag.
type fileValue struct {
	key    string   // as the file has it
	kind   string   // what it is there
	values []string // each is set once; none if the list or the text is empty
}

// parseConfigFile turns the file into values of flags, by the flags' names.
func parseConfigFile(data []byte) (map[string]fileValue, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, nil
	}
	object, err := decodeObject(data)
	if err != nil {
		return nil, err
	}
	out := map[string]fileValue{}
	for key, raw := range object {
		if key == "proxies" {
			if err := addProxies(out, raw); err != nil {
				return nil, err
			}
			continue
		}
		if key == builderKey {
			continue // see readBuilder
		}
		if slices.Contains(keysWithoutFlag, key) {
			return nil, fmt.Errorf("%q is not supported by this engine: leave it out", key)
		}
		name := flagOf(key)
		value, err := flagValues(key, raw)
		if err != nil {
			return nil, err
		}
		if prior, ok := out[name]; ok {
			return nil, fmt.Errorf("%q and %q say the same: leave out one", prior.key, key)
		}
		out[name] = value
	}
	return out, nil
}

// flagOf is the name of the flag that a key stands for, or one that no flag has.
func flagOf(key string) string {
	if name, ok := differentlyNamed[key]; ok {
		return name
	}
	for other, name := range differentlyNamed {
		// These two are keys, too.
		if name == key && other != "default-init" && other != "host-gateway-ips" {
			return "no flag: " + key
		}
	}
	return key
}

// decodeObject decodes a JSON object whose keys are all different.
func decodeObject(data []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	where := func(err error) error {
		line := 1 + bytes.Count(data[:min(int(d.InputOffset()), len(data))], []byte("\n"))
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("line %d: it is not valid JSON: %w", line, err)
	}
	if t, err := d.Token(); err != nil {
		return nil, where(err)
	} else if t != json.Delim('{') {
		return nil, where(errors.New("it must be an object, in braces"))
	}
	out := map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, where(err)
		}
		key, _ := t.(string)
		if _, twice := out[key]; twice {
			return nil, where(fmt.Errorf("%q is there twice", key))
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, where(err)
		}
		out[key] = raw
	}
	if _, err := d.Token(); err != nil {
		return nil, where(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, where(errors.New("something follows after the object"))
	}
	return out, nil
}

func addProxies(out map[string]fileValue, raw json.RawMessage) error {
	if all, _ := flagValues("proxies", raw); all.kind != kindObject {
		return fmt.Errorf("%q: it wants an object, such as %s, not %s", "proxies", `{"http-proxy": "http://proxy.example:3128"}`, all.kind)
	}
	object, err := decodeObject(raw)
	if err != nil {
		return fmt.Errorf("%q: %w", "proxies", err)
	}
	for key, raw := range object {
		if !slices.Contains([]string{"http-proxy", "https-proxy", "no-proxy"}, key) {
			return fmt.Errorf("the following directives don't match any configuration option: proxies.%s", key)
		}
		if out[key], err = flagValues("proxies."+key, raw); err != nil {
			return err
		}
	}
	return nil
}

// flagValues turns a JSON value into what would be given as flags: a list as one flag each, an object as one
// name=value each.
func flagValues(key string, raw json.RawMessage) (fileValue, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return fileValue{}, fmt.Errorf("%q: %w", key, err)
	}
	values, err := jsonValues(key, v)
	return fileValue{key, kindOf(v), values}, err
}

func jsonValues(key string, v any) ([]string, error) {
	switch v := v.(type) {
	case []any:
		out := []string{}
		for _, e := range v {
			s, err := listElement(key, e)
			if err != nil {
				return nil, err
			}
			out = append(out, s)
		}
		return out, nil
	case map[string]any:
		return mapValues(key, v)
	case string:
		if v == "" {
			return nil, nil // as dockerd has it: with its whole file, in which most are so, as a template
		}
		return []string{v}, nil
	default:
		s, err := scalar(key, v)
		return []string{s}, err
	}
}

func scalar(key string, v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case json.Number:
		return v.String(), nil
	case nil:
		return "", fmt.Errorf("%q is null: leave it out", key)
	}
	return "", fmt.Errorf("%q: what is in it has to be texts, numbers, true or false, and there is %s", key, kindOf(v))
}

// listElement is a list's element; the only objects in lists are address pools.
func listElement(key string, v any) (string, error) {
	object, ok := v.(map[string]any)
	pools := flagOf(key) == poolsFlag
	if pools && !ok {
		return "", fmt.Errorf("%q: it wants a list of objects, such as %s, and there is %s in it", key, poolsExample, kindOf(v))
	}
	if !pools {
		return scalar(key, v)
	}
	parts, err := mapValues(key, object)
	return strings.Join(parts, ","), err
}

func mapValues(key string, object map[string]any) ([]string, error) {
	out := []string{}
	for name, v := range object {
		if nested, ok := v.(map[string]any); ok && key == "default-network-opts" {
			opts, err := mapValues(key+"."+name, nested)
			if err != nil {
				return nil, err
			}
			for _, o := range opts {
				out = append(out, name+"="+o)
			}
			continue
		}
		if key == "default-network-opts" {
			return nil, fmt.Errorf("%q: it wants an object, such as %s, not %s", key+"."+name, `{"com.docker.network.driver.mtu": "1400"}`, kindOf(v))
		}
		if limit, ok := v.(map[string]any); ok && key == "default-ulimits" {
			s, err := ulimitValue(name, limit)
			if err != nil {
				return nil, err
			}
			out = append(out, s)
			continue
		}
		if _, ok := v.(map[string]any); ok && key == "runtimes" {
			v = "…" // refused whatever they say
		}
		s, err := scalar(key+"."+name, v)
		if err != nil {
			return nil, err
		}
		out = append(out, name+"="+s)
	}
	sort.Strings(out)
	return out, nil
}

// ulimitValue is {"Name": …, "Soft": …, "Hard": …} as name=soft:hard.
func ulimitValue(name string, limit map[string]any) (string, error) {
	var soft, hard string
	for field, v := range limit {
		s, err := scalar("default-ulimits."+name+"."+field, v)
		if err != nil {
			return "", err
		}
		switch strings.ToLower(field) {
		case "name":
			if s != name {
				return "", fmt.Errorf("default-ulimits.%s is named %q inside", name, s)
			}
		case "soft":
			soft = s
		case "hard":
			hard = s
		default:
			return "", fmt.Errorf("the following directives don't match any configuration option: default-ulimits.%s.%s", name, field)
		}
	}
	switch {
	case soft == "" && hard == "":
		return "", fmt.Errorf("default-ulimits.%s says no limit", name)
	case soft == "":
		soft = hard
	case hard == "":
		hard = soft
	}
	return name + "=" + soft + ":" + hard, nil
}
