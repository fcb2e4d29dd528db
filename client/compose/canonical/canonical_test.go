package canonical

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
)

// An attribute that the library learns must not be lost in what is written.
func TestEveryAttributeIsWritten(t *testing.T) {
	ordered := reflect.TypeFor[service]()
	var check func(of reflect.Type)
	check = func(of reflect.Type) {
		for i := range of.NumField() {
			f := of.Field(i)
			if f.Anonymous {
				check(f.Type)
				continue
			}
			if f.Tag.Get("json") == "-" && f.Name != "Extensions" {
				continue
			}
			has, ok := ordered.FieldByName(f.Name)
			if !ok {
				t.Errorf("the attribute %s of a service is not written", f.Name)
				continue
			}
			if f.Name != "Volumes" && (has.Type != f.Type || has.Tag != f.Tag) {
				t.Errorf("%s is %v %s, want %v %s", f.Name, has.Type, has.Tag, f.Type, f.Tag)
			}
		}
	}
	check(reflect.TypeFor[types.ServiceConfig]())
	for ours, theirs := range map[reflect.Type]reflect.Type{
		reflect.TypeFor[volume]():  reflect.TypeFor[types.ServiceVolumeConfig](),
		reflect.TypeFor[bind]():    reflect.TypeFor[types.ServiceVolumeBind](),
		reflect.TypeFor[project](): reflect.TypeFor[types.Project](),
	} {
		for i := range theirs.NumField() {
			f := theirs.Field(i)
			if _, ok := ours.FieldByName(f.Name); !ok && f.Tag.Get("yaml") != "-" {
				t.Errorf("the attribute %s of %v is not written", f.Name, theirs)
			}
		}
	}
}

// Hashes are an interface: containers of earlier versions carry them. These are those of
// docker compose v2.40.3.
func TestServiceHash(t *testing.T) {
	two := 2
	s := types.ServiceConfig{Name: "web"}
	s.Image = "nginx"
	s.Volumes = []types.ServiceVolumeConfig{{Type: "bind", Source: "/src", Target: "/app", Bind: &types.ServiceVolumeBind{CreateHostPath: true}}}
	plain, err := ServiceHash(s)
	if err != nil {
		t.Fatal(err)
	}
	s.Scale, s.Profiles, s.PullPolicy = &two, []string{"p"}, "always"
	if scaled, err := ServiceHash(s); err != nil || scaled != plain {
		t.Errorf("%v: %s, want %s", err, scaled, plain)
	}
	s.Volumes = []types.ServiceVolumeConfig{{Type: "volume", Source: "data", Target: "/app", Bind: &types.ServiceVolumeBind{SELinux: "Z", CreateHostPath: true}}}
	if text, err := json.Marshal(serviceOf(s).Volumes); err != nil || strings.Contains(string(text), "create_host_path") {
		t.Errorf("%v: a volume is written as %s", err, text)
	}
	s.Image = "nginx:1"
	if changed, err := ServiceHash(s); err != nil || changed == plain {
		t.Errorf("%v: a changed image has the hash %s, too", err, changed)
	}
}
