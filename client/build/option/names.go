package option

import (
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/docker/cli/opts"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/tonistiigi/go-csvvalue"
)

// KeyValues parses "KEY=value". A key alone has the value that lookup finds for it and is
// left out if there is none; without lookup it has the empty value.
func KeyValues(values []string, lookup func(string) (string, bool)) (map[string]string, error) {
	out := make(map[string]string, len(values))
	for _, s := range values {
		k, v, ok := strings.Cut(s, "=")
		if k == "" {
			return nil, fmt.Errorf("invalid key-value pair %q: empty key", s)
		}
		if !ok && lookup != nil {
			if v, ok = lookup(k); !ok {
				continue
			}
		}
		out[k] = v
	}
	return out, nil
}

// Contexts parses values of --build-context, "name=path or URL". The names are those that
// FROM and COPY --from may use, so they are written as references are.
func Contexts(values []string) (map[string]string, error) {
	out := map[string]string{}
	for _, s := range values {
		if s == "" {
			continue
		}
		name, where, ok := strings.Cut(s, "=")
		if !ok {
			return nil, fmt.Errorf("invalid context value: %s, expected key=value", s)
		}
		named, err := reference.ParseNormalizedNamed(name)
		if err != nil {
			return nil, fmt.Errorf("invalid context name %s: %w", name, err)
		}
		out[strings.TrimSuffix(reference.FamiliarString(named), ":latest")] = where
	}
	return out, nil
}

// annotationTarget is what an annotation is for, with a platform in brackets if only one is meant.
const annotationTarget = `^([a-z-]+)(?:\[([A-Za-z0-9_/-]+)\])?$`

// Annotations parses values of --annotation, "[what[,what…]:]key=value", into attributes
// of an exporter.
func Annotations(values []string) (map[string]string, error) {
	out := map[string]string{}
	for _, s := range values {
		if s == "" {
			continue
		}
		key, value, ok := strings.Cut(s, "=")
		if !ok {
			return nil, fmt.Errorf("invalid annotation %q, expected key=value", s)
		}
		whats, rest, ok := strings.Cut(key, ":")
		if !ok {
			out[exptypes.AnnotationKey{Key: key}.String()] = value
			continue
		}
		for what := range strings.SplitSeq(whats, ",") {
			k, err := annotationKey(what)
			if err != nil {
				return nil, err
			}
			k.Key = rest
			out[k.String()] = value
		}
	}
	return out, nil
}

func annotationKey(what string) (exptypes.AnnotationKey, error) {
	m := regexp.MustCompile(annotationTarget).FindStringSubmatch(what)
	if m == nil {
		return exptypes.AnnotationKey{}, fmt.Errorf("invalid annotation type %q, expected type and optional platform in square brackets", what)
	}
	switch m[1] {
	case exptypes.AnnotationIndex, exptypes.AnnotationIndexDescriptor, exptypes.AnnotationManifest, exptypes.AnnotationManifestDescriptor:
	default:
		return exptypes.AnnotationKey{}, fmt.Errorf("unknown annotation type %q", m[1])
	}
	k := exptypes.AnnotationKey{Type: m[1]}
	if m[2] != "" {
		p, err := platforms.Parse(m[2])
		if err != nil {
			return k, fmt.Errorf("invalid platform %q: %w", m[2], err)
		}
		k.Platform = &p
	}
	return k, nil
}

// Platforms parses values of --platform; each may hold several, with commas between them.
// "local" is the platform that the engine runs on.
func Platforms(values []string) ([]string, error) {
	var out []string
	for _, v := range values {
		for s := range strings.SplitSeq(v, ",") {
			if s = strings.TrimSpace(s); s == "" {
				continue
			}
			if s == "local" {
				out = append(out, platforms.FormatAll(platforms.DefaultSpec()))
				continue
			}
			p, err := platforms.Parse(s)
			if err != nil {
				return nil, fmt.Errorf("invalid platform %q: %w", s, err)
			}
			out = append(out, platforms.FormatAll(platforms.Normalize(p)))
		}
	}
	return Unique(out), nil
}

// Unique is a list without what stands in it before.
func Unique(list []string) []string {
	seen := map[string]bool{}
	var out []string
	for _, s := range list {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

// Call is a question that a frontend answers instead of building.
type Call struct {
	Name         string // lint, outline, targets …
	Format       string // "json", or empty for people
	IgnoreStatus bool   // the answer's status is not the command's
}

// Calls parses a value of --call, "name[,format=…]". nil is a build.
func Calls(s string) (*Call, error) {
	if s == "" {
		return nil, nil
	}
	fields, err := csvvalue.Fields(s, nil)
	if err != nil {
		return nil, fmt.Errorf("invalid call %q: %w", s, err)
	}
	var c Call
	for _, f := range fields {
		k, v, ok := strings.Cut(f, "=")
		switch {
		case !ok && c.Name == "":
			c.Name = f
		case !ok:
			return nil, fmt.Errorf("invalid call %q: two methods", s)
		case k == "format":
			c.Format = v
		case k == "ignorestatus":
			if c.IgnoreStatus, err = strconv.ParseBool(v); err != nil {
				return nil, fmt.Errorf("invalid call %q: ignorestatus is true or false, not %q", s, v)
			}
		default:
			return nil, fmt.Errorf("invalid call %q: invalid field %s", s, f)
		}
	}
	switch c.Name {
	case "", "build":
		return nil, nil
	case "check":
		c.Name = "lint"
	}
	return &c, nil
}

// hostGateway in the place of an address is the engine's own.
const hostGateway = "host-gateway"

// Hosts parses values of --add-host, "host:address", into the attribute of the frontend.
// gateway is asked for the engine's address only if one of them wants it.
func Hosts(values []string, gateway func() (string, error)) (string, error) {
	var out []string
	for _, s := range values {
		host, addr, ok := strings.Cut(s, "=")
		if !ok {
			host, addr, ok = strings.Cut(s, ":")
		}
		if !ok || host == "" || addr == "" {
			return "", fmt.Errorf("invalid host %s, expected HOST:ADDRESS", s)
		}
		if addr == hostGateway {
			ip, err := gateway()
			if err != nil {
				return "", fmt.Errorf("unable to derive the IP value for host-gateway: %w", err)
			}
			out = append(out, host+"="+ip)
			continue
		}
		for ip := range strings.SplitSeq(addr, ",") {
			if len(ip) > 2 && ip[0] == '[' && ip[len(ip)-1] == ']' {
				ip = ip[1 : len(ip)-1]
			}
			if net.ParseIP(ip) == nil {
				return "", fmt.Errorf("invalid host %s: %q is no address", s, ip)
			}
			out = append(out, host+"="+ip)
		}
	}
	return strings.Join(out, ","), nil
}

// Resources parses limits of the containers that steps run in, "memory=2g", into
// attributes of the frontend.
func Resources(values []string) (map[string]string, error) {
	out := map[string]string{}
	for _, s := range values {
		k, v, ok := strings.Cut(s, "=")
		if !ok {
			return nil, fmt.Errorf("invalid resource %q, expected key=value", s)
		}
		k, v = strings.TrimSpace(k), strings.TrimSpace(v)
		var err error
		switch k {
		case "memory":
			var m opts.MemBytes
			err = m.Set(v)
			out["memory"] = strconv.FormatInt(m.Value(), 10)
		case "memory-swap":
			var m opts.MemSwapBytes
			err = m.Set(v)
			out["memswap"] = strconv.FormatInt(m.Value(), 10)
		case "cpu-shares", "cpu-period", "cpu-quota":
			_, err = strconv.ParseInt(v, 10, 64)
			out[strings.ReplaceAll(k, "-", "")] = v
		case "cpuset-cpus", "cpuset-mems":
			out[strings.ReplaceAll(k, "-", "")] = v
		default:
			return nil, fmt.Errorf("unknown resource %q: choose memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus or cpuset-mems", k)
		}
		if err != nil {
			return nil, fmt.Errorf("invalid value %q for resource %s: %w", v, k, err)
		}
	}
	for k, v := range out {
		if v == "0" || v == "" {
			delete(out, k)
		}
	}
	return out, nil
}
