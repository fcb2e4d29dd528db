package classic

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/registry"

	"github.com/cleatlabs/cleat/internal/failure"
)

// Request is a classic build.
type Request struct {
	Dockerfile string   // its path in the context
	Remote     string   // a git or HTTP address instead of a context; "" for a context
	Tags       []string // normalised, each once
	Target     string   // the stage to build, "" for the last one
	Platform   string   // "" for the engine's own
	Quiet      bool     // only the image's id is printed
	Auths      map[string]registry.AuthConfig

	attributes map[string]string // of BuildKit's Dockerfile frontend
	cacheFrom  []string
	hostNet    bool
}

// ParseRequest reads the parameters of POST /build, whose flags are read by flag, and the
// header X-Registry-Config. Its errors are errdefs.ErrInvalidArgument or, for what the engine does not do,
// errdefs.ErrNotImplemented.
func ParseRequest(q url.Values, flag func(key string) bool, registryConfig string) (*Request, error) {
	r := &Request{
		Dockerfile: q.Get("dockerfile"), Remote: q.Get("remote"), Target: q.Get("target"),
		Quiet: flag("q"), attributes: map[string]string{"image-resolve-mode": "local"},
	}
	if r.Dockerfile == "" {
		r.Dockerfile = "Dockerfile"
	}
	steps := []func(url.Values) error{r.parseTags, r.parseMaps, r.parseLimits, r.parseNetwork, r.parsePlatform, r.parseCacheFrom, refuse}
	for _, step := range steps {
		if err := step(q); err != nil {
			return nil, err
		}
	}
	if r.Target != "" {
		r.attributes["target"] = r.Target
	}
	if flag("nocache") {
		r.attributes["no-cache"] = ""
	}
	if flag("pull") {
		r.attributes["image-resolve-mode"] = "pull"
	}
	if flag("squash") {
		return nil, failure.Invalid("squash is not supported: end the Dockerfile with a stage that copies what the image needs (FROM scratch, COPY --from)")
	}
	auths, err := parseAuths(registryConfig)
	r.Auths = auths
	return r, err
}

// refuse names what the classic builder of Docker has and this one has not.
func refuse(q url.Values) error {
	switch iso := q.Get("isolation"); iso {
	case "", "default":
	default:
		return failure.Invalid("isolation %q is not supported on Linux: leave it out", iso)
	}
	if q.Get("outputs") != "" {
		return failure.Invalid("outputs need BuildKit: build with version=2, as docker buildx and cleat build do")
	}
	if text := q.Get("securityopt"); text != "" && text != "null" && text != "[]" {
		return failure.NotImplemented("security options of build steps (securityopt) are not supported")
	}
	return nil
}

func (r *Request) parseTags(q url.Values) error {
	for _, text := range q["t"] {
		if text == "" {
			continue
		}
		named, err := reference.ParseNormalizedNamed(text)
		if err != nil {
			return failure.Invalid("invalid reference format: tag %q: %w", text, err)
		}
		if _, ok := named.(reference.Canonical); ok {
			return failure.Invalid("build tag cannot contain a digest: %q", text)
		}
		if name := reference.TagNameOnly(named).String(); !slices.Contains(r.Tags, name) {
			r.Tags = append(r.Tags, name)
		}
	}
	return nil
}

func (r *Request) parseMaps(q url.Values) error {
	var args map[string]*string
	if err := parseJSON(q, "buildargs", &args); err != nil {
		return err
	}
	for k, v := range args {
		if v != nil { // null means that the Dockerfile's default counts
			r.attributes["build-arg:"+k] = *v
		}
	}
	var labels map[string]string
	if err := parseJSON(q, "labels", &labels); err != nil {
		return err
	}
	for k, v := range labels {
		r.attributes["label:"+k] = v
	}
	return nil
}

// parseLimits hands on what bounds each step. A limit of 0 is none.
func (r *Request) parseLimits(q url.Values) error {
	for key, attribute := range map[string]string{
		"memory": "memory", "memswap": "memswap", "cpushares": "cpushares", "cpuperiod": "cpuperiod", "cpuquota": "cpuquota", "shmsize": "shm-size",
	} {
		text := q.Get(key)
		if text == "" {
			continue
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return failure.Invalid("invalid value %q for %s: it must be a whole number", text, key)
		}
		if n != 0 {
			r.attributes[attribute] = text
		}
	}
	for _, key := range []string{"cpusetcpus", "cpusetmems"} {
		if text := q.Get(key); text != "" {
			r.attributes[key] = text
		}
	}
	if parent := q.Get("cgroupparent"); parent != "" {
		r.attributes["cgroup-parent"] = parent
	}
	var limits []*container.Ulimit
	if err := parseJSON(q, "ulimits", &limits); err != nil {
		return err
	}
	texts := make([]string, len(limits))
	for i, l := range limits {
		if l == nil {
			return failure.Invalid("invalid ulimits: an entry is null")
		}
		texts[i] = l.String()
		if _, err := units.ParseUlimit(texts[i]); err != nil {
			return failure.Invalid("invalid ulimits: %w", err)
		}
	}
	if len(texts) > 0 {
		r.attributes["ulimit"] = strings.Join(texts, ",")
	}
	return nil
}

func (r *Request) parseNetwork(q url.Values) error {
	switch mode := q.Get("networkmode"); mode {
	case "", "default", "bridge":
	case "host":
		r.hostNet = true
		r.attributes["force-network-mode"] = mode
	case "none":
		r.attributes["force-network-mode"] = mode
	default:
		return failure.Invalid("network mode %q is not supported for builds: choose default, host or none", mode)
	}
	var hosts []string
	for _, text := range q["extrahosts"] {
		// docker's CLI sends one JSON array, docker-py an object.
		more, err := parseHosts(text)
		if err != nil {
			return err
		}
		hosts = append(hosts, more...)
	}
	if len(hosts) > 0 {
		r.attributes["add-hosts"] = strings.Join(hosts, ",")
	}
	return nil
}

// parseHosts reads additional hosts: a JSON array or object, or one plain HOST:ADDRESS.
func parseHosts(text string) ([]string, error) {
	var list []string
	var table map[string]string
	switch {
	case text == "" || text == "null":
		return nil, nil
	case json.Unmarshal([]byte(text), &list) == nil:
	case json.Unmarshal([]byte(text), &table) == nil:
		for host, address := range table {
			list = append(list, host+":"+address)
		}
		slices.Sort(list)
	default:
		list = []string{text}
	}
	for i, entry := range list {
		at := strings.IndexAny(entry, ":=")
		if at <= 0 || at == len(entry)-1 {
			return nil, failure.Invalid("bad format for add-host: %q: write HOST:ADDRESS", entry)
		}
		list[i] = entry[:at] + "=" + strings.Trim(entry[at+1:], "[]")
	}
	return list, nil
}

func (r *Request) parsePlatform(q url.Values) error {
	text := q.Get("platform")
	if text == "" {
		return nil
	}
	p, err := platforms.Parse(text)
	if err != nil {
		return failure.Invalid("invalid platform %q: %w", text, err)
	}
	r.Platform = platforms.Format(p)
	r.attributes["platform"] = r.Platform
	return nil
}

func (r *Request) parseCacheFrom(q url.Values) error {
	if err := parseJSON(q, "cachefrom", &r.cacheFrom); err != nil {
		return err
	}
	for i, text := range r.cacheFrom {
		named, err := reference.ParseNormalizedNamed(text)
		if err != nil {
			return failure.Invalid("invalid cachefrom: %q: %w", text, err)
		}
		r.cacheFrom[i] = reference.TagNameOnly(named).String()
	}
	return nil
}

// parseJSON decodes a parameter that holds JSON; an absent or empty one is none.
func parseJSON(q url.Values, key string, value any) error {
	text := q.Get(key)
	if text == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(text), value); err != nil {
		return failure.Invalid("invalid JSON in %s: %w", key, err)
	}
	return nil
}

// parseAuths reads the header: base64url of a JSON object of credentials by registry.
func parseAuths(header string) (map[string]registry.AuthConfig, error) {
	if header == "" {
		return nil, nil
	}
	data, err := base64.URLEncoding.DecodeString(header)
	if err != nil {
		if data, err = base64.RawURLEncoding.DecodeString(header); err != nil {
			return nil, failure.Invalid("invalid X-Registry-Config header: %w", err)
		}
	}
	auths := map[string]registry.AuthConfig{}
	if err := json.Unmarshal(data, &auths); err != nil {
		return nil, failure.Invalid("invalid X-Registry-Config header: %w", fmt.Errorf("it is no JSON object of credentials"))
	}
	return auths, nil
}
