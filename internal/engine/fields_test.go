package engine

import (
	"reflect"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// A field that a new version of the API types brings must get a decision
// here: accepted and ignored is a defect.
func TestEveryRequestFieldHasADecision(t *testing.T) {
	for _, part := range []struct {
		value any
		table map[string]support
	}{
		{container.Config{}, configFields},
		{container.HostConfig{}, hostConfigFields},
		{network.EndpointSettings{}, endpointFields},
	} {
		typ := reflect.TypeOf(part.value)
		seen := map[string]bool{}
		var visit func(reflect.Type)
		visit = func(typ reflect.Type) {
			for i := range typ.NumField() {
				f := typ.Field(i)
				if f.Anonymous {
					visit(f.Type)
					continue
				}
				seen[f.Name] = true
				if _, ok := part.table[f.Name]; !ok {
					t.Errorf("%s.%s has no decision", typ, f.Name)
				}
			}
		}
		visit(typ)
		for name := range part.table {
			if !seen[name] {
				t.Errorf("%s has no field %s", typ, name)
			}
		}
	}
}

func TestRefusedFieldsAreNamed(t *testing.T) {
	var h container.HostConfig
	v := reflect.ValueOf(&h).Elem()
	for name, s := range hostConfigFields {
		if s != refused {
			continue
		}
		h = container.HostConfig{}
		f := v.FieldByName(name)
		switch f.Kind() {
		case reflect.String:
			f.SetString("x")
		case reflect.Int64:
			f.SetInt(1)
		case reflect.Uint64:
			f.SetUint(1)
		case reflect.Slice:
			f.Set(reflect.MakeSlice(f.Type(), 1, 1))
		case reflect.Map:
			f.Set(reflect.ValueOf(map[string]string{"size": "1"}))
		default:
			t.Fatalf("no test value for %s", name)
		}
		err := refuseUnsupported(&container.Config{}, &h, nil)
		if !errdefs.IsNotImplemented(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	empty := container.HostConfig{Links: []string{}, StorageOpt: map[string]string{}}
	empty.DeviceRequests = []container.DeviceRequest{}
	if err := refuseUnsupported(&container.Config{}, &empty, nil); err != nil {
		t.Errorf("empty lists are refused: %v", err)
	}
}
