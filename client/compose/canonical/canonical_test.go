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

// What a service has of each attribute is what is written.
func TestServiceOf(t *testing.T) {
	var s types.ServiceConfig
	from, of := reflect.ValueOf(&s).Elem(), reflect.TypeFor[service]()
	for i := range of.NumField() {
		field := from.FieldByName(of.Field(i).Name)
		switch field.Kind() {
		case reflect.Slice:
			field.Set(reflect.MakeSlice(field.Type(), 1, 1))
		case reflect.Map:
			field.Set(reflect.MakeMap(field.Type()))
		case reflect.Pointer:
			field.Set(reflect.New(field.Type().Elem()))
		case reflect.String:
			field.SetString(of.Field(i).Name)
		case reflect.Bool:
			field.SetBool(true)
		case reflect.Float32:
			field.SetFloat(1)
		case reflect.Int64:
			field.SetInt(1)
		default:
			t.Errorf("%s is a %v, which this test cannot fill", of.Field(i).Name, field.Kind())
		}
	}
	ordered := reflect.ValueOf(serviceOf(s))
	for i := range of.NumField() {
		name := of.Field(i).Name
		if got := ordered.Field(i); name == "Volumes" && got.Len() != 1 || name != "Volumes" && !reflect.DeepEqual(got.Interface(), from.FieldByName(name).Interface()) {
			t.Errorf("%s is %v", name, got)
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
