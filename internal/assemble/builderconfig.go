package assemble

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/cleatlabs/cleat/internal/build"
)

// builderKey is the key of daemon.json for builds. No flag says the same.
const builderKey = "builder"

// builderSettings are what the file says of builds; nil is the default.
type builderSettings struct {
	GC           *builderGC           `json:"gc"`
	Entitlements *builderEntitlements `json:"entitlements"`
	History      *builderHistory      `json:"history"`
}

// builderHistory bounds the record of builds. MaxAge is as in "48h", or seconds.
type builderHistory struct {
	MaxAge     string `json:"maxAge"`
	MaxEntries int64  `json:"maxEntries"`
}

// builderGC bounds the build cache. Sizes are as in "10GB".
type builderGC struct {
	Enabled              *bool           `json:"enabled"`
	DefaultKeepStorage   string          `json:"defaultKeepStorage"`
	DefaultReservedSpace string          `json:"defaultReservedSpace"`
	DefaultMaxUsedSpace  string          `json:"defaultMaxUsedSpace"`
	DefaultMinFreeSpace  string          `json:"defaultMinFreeSpace"`
	Policy               []builderGCRule `json:"policy"`
}

// builderGCRule is one rule. keepStorage is the older name of reservedSpace.
type builderGCRule struct {
	All           bool     `json:"all"`
	KeepStorage   string   `json:"keepStorage"`
	ReservedSpace string   `json:"reservedSpace"`
	MaxUsedSpace  string   `json:"maxUsedSpace"`
	MinFreeSpace  string   `json:"minFreeSpace"`
	KeepDuration  string   `json:"keepDuration"`
	Filter        []string `json:"filter"`
}

// builderEntitlements are what a build may ask for beyond what every build may.
type builderEntitlements struct {
	NetworkHost      *bool `json:"network-host"`
	SecurityInsecure *bool `json:"security-insecure"`
	Device           *bool `json:"device"`
}

// parseBuilder reads the key's value. What it means nothing to is an error.
func parseBuilder(raw json.RawMessage) (*builderSettings, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	s := &builderSettings{}
	if err := d.Decode(s); err != nil {
		var misfit *json.UnmarshalTypeError
		if errors.As(err, &misfit) {
			return nil, misfitOf(builderKey, misfit)
		}
		return nil, fmt.Errorf("%q: %s", builderKey, strings.TrimPrefix(err.Error(), "json: "))
	}
	if e := s.Entitlements; e != nil && e.Device != nil && *e.Device {
		return nil, fmt.Errorf("%q: devices for build steps (entitlements.device) are not supported by this engine: leave it out", builderKey)
	}
	if _, err := s.budget(); err != nil {
		return nil, fmt.Errorf("%q: %w", builderKey, err)
	}
	if _, err := s.history(); err != nil {
		return nil, fmt.Errorf("%q: %w", builderKey, err)
	}
	return s, nil
}

// allows says whether a build may have the host's network, and steps without isolation.
// Docker's defaults are yes and no.
func (s *builderSettings) allows() (hostNetwork, insecure bool) {
	hostNetwork = true
	if s == nil || s.Entitlements == nil {
		return hostNetwork, false
	}
	if v := s.Entitlements.NetworkHost; v != nil {
		hostNetwork = *v
	}
	if v := s.Entitlements.SecurityInsecure; v != nil {
		insecure = *v
	}
	return hostNetwork, insecure
}

// history is the bound of the record of builds; nil is the default.
func (s *builderSettings) history() (*build.History, error) {
	if s == nil || s.History == nil {
		return nil, nil
	}
	h := &build.History{Newest: s.History.MaxEntries}
	if h.Newest < 0 {
		return nil, fmt.Errorf("history.maxEntries %d: write a number from 0 on", h.Newest)
	}
	if text := s.History.MaxAge; text != "" {
		age, err := time.ParseDuration(text)
		if seconds, nerr := strconv.ParseUint(text, 10, 32); nerr == nil {
			age, err = time.Duration(seconds)*time.Second, nil
		}
		if err != nil || age < 0 {
			return nil, fmt.Errorf("history.maxAge %q: write the time as in 48h", text)
		}
		h.MaxAge = age
	}
	return h, nil
}

// budget is the bound of the build cache.
func (s *builderSettings) budget() (b build.Budget, err error) {
	if s == nil || s.GC == nil {
		return b, nil
	}
	gc := s.GC
	b.Off = gc.Enabled != nil && !*gc.Enabled
	if b.Reserved, err = firstSize(sized{"gc.defaultReservedSpace", gc.DefaultReservedSpace}, sized{"gc.defaultKeepStorage", gc.DefaultKeepStorage}); err != nil {
		return b, err
	}
	if b.MaxUsed, err = firstSize(sized{"gc.defaultMaxUsedSpace", gc.DefaultMaxUsedSpace}); err != nil {
		return b, err
	}
	if b.MinFree, err = firstSize(sized{"gc.defaultMinFreeSpace", gc.DefaultMinFreeSpace}); err != nil {
		return b, err
	}
	for i, p := range gc.Policy {
		rule, err := p.rule()
		if err != nil {
			return b, fmt.Errorf("gc.policy, rule %d: %w", i+1, err)
		}
		b.Rules = append(b.Rules, rule)
	}
	return b, nil
}

func (p *builderGCRule) rule() (r build.BudgetRule, err error) {
	r.All = p.All
	if r.Reserved, err = firstSize(sized{"reservedSpace", p.ReservedSpace}, sized{"keepStorage", p.KeepStorage}); err != nil {
		return r, err
	}
	if r.MaxUsed, err = firstSize(sized{"maxUsedSpace", p.MaxUsedSpace}); err != nil {
		return r, err
	}
	if r.MinFree, err = firstSize(sized{"minFreeSpace", p.MinFreeSpace}); err != nil {
		return r, err
	}
	if p.KeepDuration != "" {
		if r.KeepFor, err = time.ParseDuration(p.KeepDuration); err != nil {
			return r, fmt.Errorf("keepDuration %q: write it as in 48h", p.KeepDuration)
		}
	}
	for _, f := range p.Filter {
		key, value, found := strings.Cut(f, "=")
		switch {
		case !found:
			return r, fmt.Errorf("filter %q: write KEY=VALUE", f)
		case key == "unused-for" || key == "until":
			if r.KeepFor, err = time.ParseDuration(value); err != nil {
				return r, fmt.Errorf("filter %q: write the time as in 48h", f)
			}
		case key == "id" || key == "type" || key == "description":
			r.Filters = append(r.Filters, key+"=="+strings.TrimPrefix(value, "="))
		default:
			return r, fmt.Errorf("filter %q: it must be one of unused-for, until, id, type, description", f)
		}
	}
	return r, nil
}

// sized is a size under one of its names, "" where it is not given.
type sized struct{ key, text string }

// firstSize reads the first size that is given, 0 if none is.
func firstSize(names ...sized) (int64, error) {
	for _, s := range names {
		if s.text == "" {
			continue
		}
		n, err := units.RAMInBytes(s.text)
		if err != nil || n < 0 {
			return 0, fmt.Errorf("%s %q: write a size as in 10GB", s.key, s.text)
		}
		return n, nil
	}
	return 0, nil
}
