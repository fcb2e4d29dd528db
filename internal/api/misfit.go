package api

import (
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/failure"
)

// misfit is a value of a request that its field cannot hold.
type misfit struct {
	path  string // of the field: HostConfig.PortBindings["80/tcp"][0].HostIp
	value json.RawMessage
	field reflect.Type
	err   error // the decoder's
}

// findMisfit looks in raw, which cannot be decoded into a t, for the value that is to blame. The decoder names no field
// where the field's own type decodes it, and where it names one, it is by types that only a programmer knows.
func findMisfit(raw json.RawMessage, t reflect.Type, path string) *misfit {
	err := json.Unmarshal(raw, reflect.New(t).Interface())
	if err == nil {
		return nil
	}
	if t.Kind() == reflect.Pointer {
		return findMisfit(raw, t.Elem(), path)
	}
	var in *misfit
	if !decodesItself(t) {
		switch t.Kind() {
		case reflect.Struct, reflect.Map:
			in = findInObject(raw, t, path)
		case reflect.Slice, reflect.Array:
			in = findInList(raw, t, path)
		}
	}
	if in != nil {
		return in
	}
	return &misfit{path: path, value: raw, field: t, err: err}
}

func decodesItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(reflect.TypeFor[json.Unmarshaler]()) || p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

func findInObject(raw json.RawMessage, t reflect.Type, path string) *misfit {
	var object map[string]json.RawMessage
	if json.Unmarshal(raw, &object) != nil {
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		var in *misfit
		if t.Kind() == reflect.Map {
			in = findInEntry(key, object[key], t, path)
		} else if field, ok := fieldOf(t, key); ok {
			in = findMisfit(object[key], field, strings.TrimPrefix(path+"."+key, "."))
		}
		if in != nil {
			return in
		}
	}
	return nil
}

// findInEntry looks in a map's key, too.
func findInEntry(key string, value json.RawMessage, t reflect.Type, path string) *misfit {
	quoted, _ := json.Marshal(key)
	if in := findMisfit(quoted, t.Key(), path); in != nil {
		return in
	}
	return findMisfit(value, t.Elem(), path+"["+strconv.Quote(key)+"]")
}

func findInList(raw json.RawMessage, t reflect.Type, path string) *misfit {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		return nil
	}
	for i, value := range list {
		if in := findMisfit(value, t.Elem(), fmt.Sprintf("%s[%d]", path, i)); in != nil {
			return in
		}
	}
	return nil
}

// fieldOf finds what the decoder puts a key of an object into.
func fieldOf(t reflect.Type, key string) (reflect.Type, bool) {
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" && !f.Anonymous {
			name = f.Name
		}
		if f.IsExported() && strings.EqualFold(name, key) {
			return f.Type, true
		}
	}
	return nil, false
}

// wanted says what values of these types are.
var wanted = map[reflect.Type]string{
	reflect.TypeFor[netip.Prefix]():         "no subnet such as 10.1.0.0/24",
	reflect.TypeFor[netip.Addr]():           "no IP address",
	reflect.TypeFor[network.HardwareAddr](): "no MAC address such as 02:42:0a:01:00:02",
	reflect.TypeFor[time.Time]():            "no time such as 2006-01-02T15:04:05Z",
	reflect.TypeFor[time.Duration]():        "no number of nanoseconds",
}

func (m *misfit) fault() string {
	if text, ok := wanted[m.field]; ok {
		return text
	}
	if decodesItself(m.field) {
		return "not valid: " + m.err.Error()
	}
	switch m.field.Kind() {
	case reflect.String:
		return "no string"
	case reflect.Bool:
		return "neither true nor false"
	case reflect.Slice, reflect.Array:
		return "no list"
	case reflect.Struct, reflect.Map:
		return "no object"
	case reflect.Float32, reflect.Float64:
		return "no number"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "no whole number from 0 on that fits"
	}
	return "no whole number that fits"
}

// error is the client's.
func (m *misfit) error() error {
	const most = 80
	value := string(m.value)
	if len(value) > most {
		value = strings.ToValidUTF8(value[:most], "") + "…"
	}
	if m.path == "" {
		return failure.Invalid("invalid JSON: %s is %s", value, m.fault())
	}
	return failure.Invalid("invalid value of %s: %s is %s", m.path, value, m.fault())
}
