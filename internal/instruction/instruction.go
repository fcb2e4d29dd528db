// Package instruction applies Dockerfile instructions to the configuration of an image,
// as `commit --change` and `import --change` do: those that need no build.
//
// Quotes, escapes, JSON forms and variables mean what they mean in a Dockerfile. An
// instruction that cannot be applied is errdefs.ErrInvalidArgument with a text that
// names it, and leaves the configuration as the ones before it made it.
package instruction

import (
	"encoding/json"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/failure"
)

// Apply changes config by the instructions, in their order. What config points at is
// not changed but replaced, so that it may be shared.
func Apply(config *container.Config, lines []string) error {
	s := &state{config: config}
	for _, line := range lines {
		line = strings.TrimSpace(strings.ReplaceAll(line, "\\\n", " "))
		if line == "" {
			continue
		}
		name, rest := cutWord(line)
		apply, ok := instructions[strings.ToUpper(name)]
		if !ok {
			return failure.Invalid("%s is not a valid change command", strings.ToLower(name))
		}
		if err := apply(s, strings.TrimSpace(rest)); err != nil {
			return failure.Invalid("invalid change %q: %w", line, err)
		}
	}
	return nil
}

type state struct {
	config *container.Config
	cmdSet bool // by an instruction: a later ENTRYPOINT keeps it
}

var instructions = map[string]func(*state, string) error{
	"CMD": cmd, "ENTRYPOINT": entrypoint, "ENV": env, "EXPOSE": expose, "HEALTHCHECK": healthcheck, "LABEL": label,
	"ONBUILD": onBuild, "STOPSIGNAL": stopSignal, "USER": user, "VOLUME": volume, "WORKDIR": workdir,
}

// cutWord cuts off the first word.
func cutWord(s string) (word, rest string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimLeft(s[i:], " \t")
}

// jsonForm reads the form of a list; ok is false for the shell's form.
func jsonForm(rest string) (list []string, ok bool) {
	if !strings.HasPrefix(rest, "[") {
		return nil, false
	}
	err := json.Unmarshal([]byte(rest), &list)
	return list, err == nil
}

// command reads a command in either form.
func (s *state) command(rest string) []string {
	if list, ok := jsonForm(rest); ok {
		return list
	}
	if rest == "" {
		return nil
	}
	shell := s.config.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(shell), rest)
}

func cmd(s *state, rest string) error {
	s.config.Cmd, s.cmdSet = s.command(rest), true
	return nil
}

func entrypoint(s *state, rest string) error {
	s.config.Entrypoint = s.command(rest)
	if !s.cmdSet {
		s.config.Cmd = nil // it was meant for another program
	}
	return nil
}

func env(s *state, rest string) error {
	pairs, err := s.pairs(rest)
	if err != nil {
		return err
	}
	list := slices.Clone(s.config.Env)
	for _, p := range pairs {
		set := p[0] + "=" + p[1]
		i := slices.IndexFunc(list, func(e string) bool { return strings.HasPrefix(e, p[0]+"=") || e == p[0] })
		if i < 0 {
			list = append(list, set)
		} else {
			list[i] = set
		}
	}
	s.config.Env = list
	return nil
}

func label(s *state, rest string) error {
	pairs, err := s.pairs(rest)
	if err != nil {
		return err
	}
	labels := maps.Clone(s.config.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	for _, p := range pairs {
		labels[p[0]] = p[1]
	}
	s.config.Labels = labels
	return nil
}

// pairs reads key=value …, or the old form of one key and its value.
func (s *state) pairs(rest string) ([][2]string, error) {
	words, err := split(rest)
	if err != nil {
		return nil, err
	}
	if len(words) == 0 {
		return nil, failure.Invalid("it needs at least one argument")
	}
	if !strings.Contains(words[0], "=") {
		key, value := cutWord(rest)
		if value == "" {
			return nil, failure.Invalid("%s has no value", key)
		}
		expanded, err := s.expand(value)
		return [][2]string{{key, expanded}}, err
	}
	var pairs [][2]string
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if !ok {
			return nil, failure.Invalid("can't find = in %q: must be of the form name=value", w)
		}
		if key, err = s.expand(key); err == nil {
			value, err = s.expand(value)
		}
		if err != nil {
			return nil, err
		}
		if key == "" {
			return nil, failure.Invalid("names can not be blank")
		}
		pairs = append(pairs, [2]string{key, value})
	}
	return pairs, nil
}

func expose(s *state, rest string) error {
	words, err := s.words(rest)
	if err != nil {
		return err
	}
	ports := maps.Clone(s.config.ExposedPorts)
	if ports == nil {
		ports = network.PortSet{}
	}
	for _, w := range words {
		r, err := network.ParsePortRange(w)
		if err != nil {
			return failure.Invalid("invalid containerPort: %s", w)
		}
		for p := range r.All() {
			ports[p] = struct{}{}
		}
	}
	s.config.ExposedPorts = ports
	return nil
}

// words reads one argument at least, with variables.
func (s *state) words(rest string) ([]string, error) {
	words, err := split(rest)
	if err != nil {
		return nil, err
	}
	for i := range words {
		if words[i], err = s.expand(words[i]); err != nil {
			return nil, err
		}
	}
	if len(words) == 0 {
		return nil, failure.Invalid("it needs at least one argument")
	}
	return words, nil
}

func (s *state) word(rest string) (string, error) {
	words, err := s.words(rest)
	if err != nil {
		return "", err
	}
	if len(words) != 1 {
		return "", failure.Invalid("it needs exactly one argument")
	}
	return words[0], nil
}

func onBuild(s *state, rest string) error {
	name, _ := cutWord(rest)
	switch strings.ToUpper(name) {
	case "":
		return failure.Invalid("it needs at least one argument")
	case "ONBUILD":
		return failure.Invalid("chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
	case "MAINTAINER", "FROM":
		return failure.Invalid("%s isn't allowed as an ONBUILD trigger", strings.ToUpper(name))
	}
	s.config.OnBuild = append(slices.Clone(s.config.OnBuild), rest)
	return nil
}

func stopSignal(s *state, rest string) (err error) {
	w, err := s.word(rest)
	if err == nil {
		s.config.StopSignal = w
	}
	return err
}

func user(s *state, rest string) error {
	w, err := s.word(rest)
	if err == nil {
		s.config.User = w
	}
	return err
}

func workdir(s *state, rest string) error {
	w, err := s.expandAll(rest)
	if err != nil {
		return err
	}
	if w == "" {
		return failure.Invalid("it needs exactly one argument")
	}
	if !path.IsAbs(w) {
		w = path.Join("/", s.config.WorkingDir, w)
	}
	s.config.WorkingDir = path.Clean(w)
	return nil
}

// expandAll reads one argument that may hold blanks.
func (s *state) expandAll(rest string) (string, error) {
	if list, ok := jsonForm(rest); ok && len(list) == 1 {
		return list[0], nil
	}
	return s.expand(rest)
}

func volume(s *state, rest string) error {
	list, ok := jsonForm(rest)
	if !ok {
		var err error
		if list, err = s.words(rest); err != nil {
			return err
		}
	}
	volumes := maps.Clone(s.config.Volumes)
	if volumes == nil {
		volumes = map[string]struct{}{}
	}
	for _, v := range list {
		v = strings.TrimSpace(v)
		if v == "" {
			return failure.Invalid("VOLUME specified can not be an empty string")
		}
		volumes[v] = struct{}{}
	}
	s.config.Volumes = volumes
	return nil
}

func healthcheck(s *state, rest string) error {
	h := &container.HealthConfig{}
	for strings.HasPrefix(rest, "--") {
		var flag string
		flag, rest = cutWord(rest)
		if err := healthFlag(h, flag); err != nil {
			return err
		}
	}
	kind, rest := cutWord(rest)
	switch strings.ToUpper(kind) {
	case "NONE":
		if rest != "" {
			return failure.Invalid("HEALTHCHECK NONE takes no arguments")
		}
		h = &container.HealthConfig{Test: []string{"NONE"}}
	case "CMD":
		list, ok := jsonForm(rest)
		switch {
		case ok && len(list) > 0:
			h.Test = append([]string{"CMD"}, list...)
		case rest == "" || ok:
			return failure.Invalid("missing command after HEALTHCHECK CMD")
		default:
			h.Test = []string{"CMD-SHELL", rest}
		}
	default:
		return failure.Invalid("unknown type %q in HEALTHCHECK (try CMD)", kind)
	}
	s.config.Healthcheck = h
	return nil
}

func healthFlag(h *container.HealthConfig, flag string) error {
	name, value, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
	if name == "retries" {
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			return failure.Invalid("invalid number of retries %q", value)
		}
		h.Retries = n
		return nil
	}
	field := map[string]*time.Duration{
		"interval": &h.Interval, "timeout": &h.Timeout, "start-period": &h.StartPeriod, "start-interval": &h.StartInterval,
	}[name]
	if field == nil {
		return failure.Invalid("unknown flag: --%s", name)
	}
	d, err := time.ParseDuration(value)
	if err != nil {
		return failure.Invalid("invalid duration of --%s: %q", name, value)
	}
	if d != 0 && d < time.Millisecond {
		return failure.Invalid("interval %q cannot be less than 1ms", name)
	}
	*field = d
	return nil
}
