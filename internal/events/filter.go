package events

import (
	"slices"
	"strings"

	"github.com/moby/moby/api/types/events"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/filter"
)

// objectKeys are the filters that match an object's id or name by prefix.
var objectKeys = []events.Type{
	events.ConfigEventType, events.ContainerEventType, events.DaemonEventType, events.NetworkEventType, events.NodeEventType,
	events.PluginEventType, events.SecretEventType, events.ServiceEventType, events.VolumeEventType,
}

// textActions are actions that carry ": text"; a filter for one of them matches
// by prefix.
var textActions = []string{string(events.ActionExecCreate), string(events.ActionExecStart), string(events.ActionHealthStatus)}

// NewFilter makes the filter of the events endpoint out of its filters
// parameter: different keys are joined by AND, values of one key by OR, labels
// must all match. Unknown keys are passed over, as Docker does. Without any
// filter it is nil, which takes all. A label without a key is an error.
func NewFilter(filters map[string][]string) (func(Message) bool, error) {
	for _, label := range filters["label"] {
		if key, _, _ := strings.Cut(label, "="); key == "" {
			return nil, failure.Invalid("invalid filter 'label=%s': give a key or key=value", label)
		}
	}
	var checks []func(Message) bool
	add := func(key string, check func(m Message, values []string) bool) {
		if values := filters[key]; len(values) > 0 {
			checks = append(checks, func(m Message) bool { return check(m, values) })
		}
	}
	add("event", matchAction)
	add("type", func(m Message, v []string) bool { return slices.Contains(v, string(m.Type)) })
	add("scope", func(m Message, v []string) bool { return slices.Contains(v, m.Scope) })
	add("label", func(m Message, v []string) bool { return filter.HasLabels(m.Actor.Attributes, v) })
	add("image", matchImage)
	for _, key := range objectKeys {
		add(string(key), matchObject)
	}
	if len(checks) == 0 {
		return nil, nil
	}
	return func(m Message) bool {
		for _, check := range checks {
			if !check(m) {
				return false
			}
		}
		return true
	}, nil
}

func matchAction(m Message, values []string) bool {
	if slices.ContainsFunc(values, func(v string) bool { return slices.Contains(textActions, v) }) {
		return hasPrefix(string(m.Action), values)
	}
	return slices.Contains(values, string(m.Action))
}

func matchObject(m Message, values []string) bool {
	return hasPrefix(m.Actor.ID, values) || hasPrefix(m.Actor.Attributes["name"], values)
}

func hasPrefix(s string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) })
}

// matchImage takes an image by id, name or name without tag, and the containers
// of an image by its name.
func matchImage(m Message, values []string) bool {
	name := m.Actor.Attributes["image"]
	if m.Type == events.ImageEventType {
		name = m.Actor.Attributes["name"]
	}
	for _, candidate := range []string{m.Actor.ID, name, stripTag(m.Actor.ID), stripTag(name)} {
		if slices.Contains(values, candidate) {
			return true
		}
	}
	return false
}

// stripTag cuts the digest and the tag from an image's name.
func stripTag(name string) string {
	name, _, _ = strings.Cut(name, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name = name[:i]
	}
	return name
}
