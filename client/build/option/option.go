// Package option holds the small languages in which the options of a build are written:
// outputs, cache places, secrets, SSH agents, attestations, named contexts, annotations,
// what to call of a frontend, resource limits and extra hosts. They are buildx's, so that
// command lines and bake files mean the same. The parsers are pure: they look at nothing
// but their argument, and a value that they do not understand is an error that quotes it.
package option

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tonistiigi/go-csvvalue"
)

// Output is where the result of a build goes.
type Output struct {
	Type  string // local, tar, oci, docker, image, registry, cacheonly
	Dest  string // path, "-" for standard output, empty if the type needs none
	Attrs map[string]string
}

// Outputs parses values of --output: "type=local,dest=out", a directory alone, or "-" for
// a tar stream on standard output.
func Outputs(values []string) ([]Output, error) {
	return each(values, parseOutput)
}

func parseOutput(s string) (Output, error) {
	fields, err := csvvalue.Fields(s, nil)
	if err != nil {
		return Output{}, fmt.Errorf("invalid output %q: %w", s, err)
	}
	if len(fields) == 1 && fields[0] == s && !strings.HasPrefix(s, "type=") {
		if s == "-" {
			return Output{Type: "tar", Dest: "-", Attrs: map[string]string{}}, nil
		}
		return Output{Type: "local", Dest: s, Attrs: map[string]string{}}, nil
	}
	o := Output{Attrs: map[string]string{}}
	for _, f := range fields {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			return o, fmt.Errorf("invalid output %q: invalid value %s, expected key=value", s, f)
		}
		switch k = strings.ToLower(strings.TrimSpace(k)); k {
		case "type":
			o.Type = v
		case "dest":
			o.Dest = v
		default:
			o.Attrs[k] = v
		}
	}
	if o.Type == "" {
		return o, fmt.Errorf("type is required for output %q, e.g. type=local,dest=%s", s, "out")
	}
	return o, nil
}

// MarshalJSON writes the output as one flat object, as bake files have it.
func (o Output) MarshalJSON() ([]byte, error) {
	m := flat(o.Attrs, "type", o.Type)
	if o.Dest != "" {
		m["dest"] = o.Dest
	}
	return json.Marshal(m)
}

// Cache is a place that cached steps come from or go to.
type Cache struct {
	Type  string // registry, local, inline, gha, s3, azblob
	Attrs map[string]string
}

// Caches parses values of --cache-from and --cache-to: "type=local,src=dir", or
// references alone, with commas between them.
func Caches(values []string) ([]Cache, error) {
	var out []Cache
	for _, s := range values {
		if s == "" {
			continue
		}
		fields, err := csvvalue.Fields(s, nil)
		if err != nil {
			return nil, fmt.Errorf("invalid cache %q: %w", s, err)
		}
		if !strings.Contains(s, "=") {
			for _, ref := range fields {
				out = append(out, Cache{Type: "registry", Attrs: map[string]string{"ref": ref}})
			}
			continue
		}
		c := Cache{Attrs: map[string]string{}}
		for _, f := range fields {
			k, v, ok := strings.Cut(f, "=")
			if !ok {
				return nil, fmt.Errorf("invalid cache %q: invalid value %s, expected key=value", s, f)
			}
			if k = strings.ToLower(k); k == "type" {
				c.Type = v
			} else {
				c.Attrs[k] = v
			}
		}
		if c.Type == "" {
			return nil, fmt.Errorf("type required for %q, e.g. type=registry,ref=IMAGE", s)
		}
		out = append(out, c)
	}
	return out, nil
}

// MarshalJSON writes the cache as one flat object, as bake files have it.
func (c Cache) MarshalJSON() ([]byte, error) { return json.Marshal(flat(c.Attrs, "type", c.Type)) }

// Secret is what a step may mount by its id. With neither a file nor a variable it is the
// variable named like the id, if there is one, else the file named so.
type Secret struct {
	ID   string `json:"id,omitempty"`
	File string `json:"src,omitempty"`
	Env  string `json:"env,omitempty"`
}

// Secrets parses values of --secret: "id=token,src=file" or "id=token,env=VARIABLE".
func Secrets(values []string) ([]Secret, error) {
	return each(values, func(s string) (Secret, error) {
		fields, err := csvvalue.Fields(s, nil)
		if err != nil {
			return Secret{}, fmt.Errorf("invalid secret %q: %w", s, err)
		}
		var out Secret
		kind := ""
		for _, f := range fields {
			k, v, ok := strings.Cut(f, "=")
			if !ok {
				return out, fmt.Errorf("invalid secret %q: invalid field '%s' must be a key=value pair, e.g. id=token,src=token.txt", s, f)
			}
			switch strings.ToLower(k) {
			case "type":
				if v != "file" && v != "env" {
					return out, fmt.Errorf("unsupported secret type %q", v)
				}
				kind = v
			case "id":
				out.ID = v
			case "src", "source":
				out.File = v
			case "env":
				out.Env = v
			default:
				return out, fmt.Errorf("invalid secret %q: unexpected key '%s' in '%s'", s, k, f)
			}
		}
		if kind == "env" && out.Env == "" {
			out.Env, out.File = out.File, ""
		}
		if out.ID == "" {
			return out, fmt.Errorf("secret %q has no id, e.g. id=token,src=token.txt", s)
		}
		return out, nil
	})
}

// SSH is an agent, or keys, that a step may use by its id.
type SSH struct {
	ID    string   `json:"id,omitempty"`
	Paths []string `json:"paths,omitempty"`
}

// SSHs parses values of --ssh: "default", "id=socket" or "id=key,key".
func SSHs(values []string) ([]SSH, error) {
	return each(values, func(s string) (SSH, error) {
		id, paths, ok := strings.Cut(s, "=")
		if !ok {
			return SSH{ID: id}, nil
		}
		return SSH{ID: id, Paths: strings.Split(paths, ",")}, nil
	})
}

// Attests parses values of --attest and the shorthands --provenance and --sbom into the
// attestations asked for by type. One that is switched off is there, but nil.
func Attests(values []string, provenance, sbom string) (map[string]*string, error) {
	for _, short := range [][2]string{{"provenance", provenance}, {"sbom", sbom}} {
		if short[1] == "" {
			continue
		}
		values = append(slices.Clone(values), ShortAttest(short[0], short[1]))
	}
	out := map[string]*string{}
	for _, s := range values {
		if s == "" {
			continue
		}
		kind, disabled, attrs, err := Attest(s)
		if err != nil {
			return nil, err
		}
		out[kind] = nil
		if rest := Join(attrs); !disabled {
			out[kind] = &rest
		}
	}
	return out, nil
}

// ShortAttest is what --provenance and --sbom stand for.
func ShortAttest(kind, value string) string {
	if on, err := strconv.ParseBool(value); err == nil {
		value = fmt.Sprintf("disabled=%t", !on)
	}
	return "type=" + kind + "," + value
}

// Attest parses one value of --attest: "type=sbom[,disabled=true][,key=value…]".
func Attest(s string) (kind string, disabled bool, attrs map[string]string, err error) {
	fields, err := csvvalue.Fields(s, nil)
	if err != nil {
		return "", false, nil, fmt.Errorf("invalid attestation %q: %w", s, err)
	}
	attrs = map[string]string{}
	for _, f := range fields {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			return "", false, nil, fmt.Errorf("invalid attestation %q: invalid value %s, expected key=value", s, f)
		}
		switch strings.ToLower(strings.TrimSpace(k)) {
		case "type":
			kind = v
		case "disabled":
			if disabled, err = strconv.ParseBool(v); err != nil {
				return "", false, nil, fmt.Errorf("invalid attestation %q: invalid value %s: %w", s, f, errors.Unwrap(err))
			}
		default:
			attrs[k] = v
		}
	}
	if kind == "" {
		return "", false, nil, fmt.Errorf("invalid attestation %q: attestation type not specified", s)
	}
	return kind, disabled, attrs, nil
}

// Join writes attributes as the list of key=value that the parsers read, in order of key.
func Join(attrs map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(attrs)) {
		pair := k + "=" + attrs[k]
		if strings.ContainsAny(pair, "\",\n\r") {
			pair = `"` + strings.ReplaceAll(pair, `"`, `""`) + `"`
		}
		parts = append(parts, pair)
	}
	return strings.Join(parts, ",")
}

// each parses every value that is not empty.
func each[T any](values []string, parse func(string) (T, error)) ([]T, error) {
	var out []T
	for _, s := range values {
		if s == "" {
			continue
		}
		v, err := parse(s)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func flat(attrs map[string]string, key, value string) map[string]string {
	m := maps.Clone(attrs)
	if m == nil {
		m = map[string]string{}
	}
	m[key] = value
	return m
}
