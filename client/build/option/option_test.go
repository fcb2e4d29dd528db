package option_test

import (
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/client/build/option"
)

// check holds what a parser makes of each value against what it should, or against a part
// of its error's text.
func check[T any](t *testing.T, parse func([]string) (T, error), cases map[string]any) {
	t.Helper()
	for _, in := range slices.Sorted(maps.Keys(cases)) {
		got, err := parse([]string{in})
		if text, wrong := cases[in].(error); wrong {
			if err == nil || !strings.Contains(err.Error(), text.Error()) {
				t.Errorf("%q: %v, %v; want an error with %q", in, got, err, text)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(any(got), cases[in]) {
			t.Errorf("%q:\n got %+v, %v\nwant %+v", in, got, err, cases[in])
		}
	}
}

type attrs = map[string]string

func TestOutputs(t *testing.T) {
	one := func(kind, dest string, a attrs) []option.Output {
		return []option.Output{{Type: kind, Dest: dest, Attrs: a}}
	}
	check(t, option.Outputs, map[string]any{
		"out":                                one("local", "out", attrs{}),
		"-":                                  one("tar", "-", attrs{}),
		"type=local,dest=out":                one("local", "out", attrs{}),
		"type=docker":                        one("docker", "", attrs{}),
		"type=registry,name=a":               one("registry", "", attrs{"name": "a"}),
		"Type=image, PUSH=true":              one("image", "", attrs{"push": "true"}),
		`type=image,"name=a,b",dest=-`:       one("image", "-", attrs{"name": "a,b"}),
		"":                                   []option.Output(nil),
		"type=local,out":                     errors.New("expected key=value"),
		`type=local,"dest=out`:               errors.New("invalid output"),
		"type=,dest=out":                     errors.New("type is required"),
		"name=x,dest=y":                      errors.New("type is required for output"),
		"type=oci,dest=a=b,compression=zstd": one("oci", "a=b", attrs{"compression": "zstd"}),
	})
}

func TestCaches(t *testing.T) {
	check(t, option.Caches, map[string]any{
		"user/app":                     []option.Cache{{Type: "registry", Attrs: attrs{"ref": "user/app"}}},
		"a,b":                          []option.Cache{{Type: "registry", Attrs: attrs{"ref": "a"}}, {Type: "registry", Attrs: attrs{"ref": "b"}}},
		"type=local,src=x":             []option.Cache{{Type: "local", Attrs: attrs{"src": "x"}}},
		"type=inline":                  []option.Cache{{Type: "inline", Attrs: attrs{}}},
		"type=registry,Ref=x,mode=max": []option.Cache{{Type: "registry", Attrs: attrs{"ref": "x", "mode": "max"}}},
		"src=x":                        errors.New("type required"),
		"type=local,x":                 errors.New("expected key=value"),
		"":                             []option.Cache(nil),
	})
}

func TestSecrets(t *testing.T) {
	check(t, option.Secrets, map[string]any{
		"id=a":                 []option.Secret{{ID: "a"}},
		"id=a,src=f":           []option.Secret{{ID: "a", File: "f"}},
		"id=a,source=f":        []option.Secret{{ID: "a", File: "f"}},
		"type=file,id=a,src=f": []option.Secret{{ID: "a", File: "f"}},
		"id=a,env=V":           []option.Secret{{ID: "a", Env: "V"}},
		"type=env,id=a,src=V":  []option.Secret{{ID: "a", Env: "V"}},
		"id=a,x=y":             errors.New("unexpected key 'x'"),
		"id":                   errors.New("key=value pair"),
		"src=f":                errors.New("no id"),
		"type=vault,id=a":      errors.New(`unsupported secret type "vault"`),
	})
}

func TestSSHs(t *testing.T) {
	check(t, option.SSHs, map[string]any{
		"default": []option.SSH{{ID: "default"}},
		"a=k1,k2": []option.SSH{{ID: "a", Paths: []string{"k1", "k2"}}},
		"a=/x=y":  []option.SSH{{ID: "a", Paths: []string{"/x=y"}}},
		"":        []option.SSH(nil),
	})
}

func TestAttests(t *testing.T) {
	for _, c := range []struct {
		attest           []string
		provenance, sbom string
		want             map[string]string // "-" is off
		err              string
	}{
		{nil, "", "", map[string]string{}, ""},
		{nil, "true", "false", map[string]string{"provenance": "", "sbom": "-"}, ""},
		{nil, "mode=max", "", map[string]string{"provenance": "mode=max"}, ""},
		{[]string{"type=sbom,generator=img"}, "", "", map[string]string{"sbom": "generator=img"}, ""},
		{[]string{"type=sbom"}, "", "false", map[string]string{"sbom": "-"}, ""},
		{[]string{"type=provenance,disabled=true"}, "", "", map[string]string{"provenance": "-"}, ""},
		{[]string{"generator=img"}, "", "", nil, "type not specified"},
		{[]string{"type=sbom,disabled=maybe"}, "", "", nil, "invalid value disabled=maybe"},
		{[]string{"sbom"}, "", "", nil, "expected key=value"},
	} {
		got, err := option.Attests(c.attest, c.provenance, c.sbom)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%+v: %v", c, err)
			}
			continue
		}
		flat := map[string]string{}
		for k, v := range got {
			flat[k] = "-"
			if v != nil {
				flat[k] = *v
			}
		}
		if err != nil || !maps.Equal(flat, c.want) {
			t.Errorf("%+v: %v, %v", c, flat, err)
		}
	}
}

func TestContexts(t *testing.T) {
	check(t, option.Contexts, map[string]any{
		"app=dir":                        attrs{"app": "dir"},
		"alpine:latest=docker-image://x": attrs{"alpine": "docker-image://x"},
		"base=https://h/r.git#a=b":       attrs{"base": "https://h/r.git#a=b"},
		"app":                            errors.New("expected key=value"),
		"App=x":                          errors.New("invalid context name App"),
	})
}

func TestAnnotations(t *testing.T) {
	check(t, option.Annotations, map[string]any{
		"a=b":                       attrs{"annotation.a": "b"},
		"index:a=b=c":               attrs{"annotation-index.a": "b=c"},
		"index,manifest:a=b":        attrs{"annotation-index.a": "b", "annotation-manifest.a": "b"},
		"manifest[linux/amd64]:a=b": attrs{"annotation-manifest[linux/amd64].a": "b"},
		"a":                         errors.New("expected key=value"),
		"blah:a=b":                  errors.New("unknown annotation type"),
		"manifest[]:a=b":            errors.New("invalid annotation type"),
		"manifest[a/b/c/d/e]:a=b":   errors.New("invalid platform"),
	})
}

func TestPlatforms(t *testing.T) {
	check(t, option.Platforms, map[string]any{
		"linux/amd64":              []string{"linux/amd64"},
		"linux/amd64, linux/arm64": []string{"linux/amd64", "linux/arm64"},
		"linux/amd64,linux/amd64":  []string{"linux/amd64"},
		"linux/arm/v7":             []string{"linux/arm/v7"},
		"":                         []string(nil),
		"a/b/c/d/e":                errors.New("invalid platform"),
	})
}

func TestCalls(t *testing.T) {
	for in, want := range map[string]any{
		"":                             (*option.Call)(nil),
		"build":                        (*option.Call)(nil),
		"check":                        &option.Call{Name: "lint"},
		"outline,format=json":          &option.Call{Name: "outline", Format: "json"},
		"check,ignorestatus=true":      &option.Call{Name: "lint", IgnoreStatus: true},
		"a,b":                          "two methods",
		"outline,colour=red":           "invalid field",
		"outline,ignorestatus=perhaps": "true or false",
	} {
		got, err := option.Calls(in)
		if text, wrong := want.(string); wrong {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%q: %v, %v", in, got, err)
			}
		} else if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
}

func TestHosts(t *testing.T) {
	gateway := func() (string, error) { return "172.17.0.1", nil }
	for in, want := range map[string]string{
		"a:1.2.3.4":      "a=1.2.3.4",
		"a=1.2.3.4":      "a=1.2.3.4",
		"a:::1":          "a=::1",
		"a=[::1]":        "a=::1",
		"a:host-gateway": "a=172.17.0.1",
		"a=1.2.3.4,::1":  "a=1.2.3.4,a=::1",
	} {
		if got, err := option.Hosts([]string{in}, gateway); err != nil || got != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"a", "a:", ":1.2.3.4", "a:b"} {
		if got, err := option.Hosts([]string{in}, gateway); err == nil {
			t.Errorf("%q: %q, no error", in, got)
		}
	}
	if _, err := option.Hosts([]string{"a:host-gateway"}, func() (string, error) { return "", errors.New("none") }); err == nil || !strings.Contains(err.Error(), "host-gateway: none") {
		t.Error(err)
	}
}

func TestResources(t *testing.T) {
	check(t, option.Resources, map[string]any{
		"memory=2g":       attrs{"memory": "2147483648"},
		"memory-swap=-1":  attrs{"memswap": "-1"},
		"cpu-quota=50000": attrs{"cpuquota": "50000"},
		"cpuset-cpus=0-1": attrs{"cpusetcpus": "0-1"},
		"cpu-shares=0":    attrs{},
		"memory=much":     errors.New("invalid value"),
		"cpu-period=fast": errors.New("invalid value"),
		"disk=1g":         errors.New("unknown resource"),
		"memory":          errors.New("expected key=value"),
	})
}

func TestKeyValues(t *testing.T) {
	env := func(k string) (string, bool) { return "from the environment", k == "SET" }
	got, err := option.KeyValues([]string{"A=1", "B=", "SET", "UNSET", "C=x=y"}, env)
	if want := (attrs{"A": "1", "B": "", "SET": "from the environment", "C": "x=y"}); err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := option.KeyValues([]string{"A"}, nil); err != nil || !maps.Equal(got, attrs{"A": ""}) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := option.KeyValues([]string{"=x"}, nil); err == nil {
		t.Error("an empty key is taken")
	}
}

func TestJSON(t *testing.T) {
	data, err := json.Marshal([]any{option.Output{Type: "local", Dest: "out"}, option.Cache{Type: "registry", Attrs: attrs{"ref": "x"}}, option.Secret{ID: "a", Env: "B"}})
	if want := `[{"dest":"out","type":"local"},{"ref":"x","type":"registry"},{"id":"a","env":"B"}]`; err != nil || string(data) != want {
		t.Errorf("%s, %v", data, err)
	}
}

// FuzzJoin: what Join writes is what the parsers read.
func FuzzJoin(f *testing.F) {
	f.Add("name", "a,b")
	f.Add("k", `say "x"`)
	f.Add("k", "")
	f.Fuzz(func(t *testing.T, key, value string) {
		if key == "" || strings.ToLower(key) != key || strings.TrimSpace(key) != key || strings.ContainsAny(key, "=\"\r\n") || strings.ContainsAny(value, "\r\n") || key == "type" || key == "dest" {
			return
		}
		got, err := option.Outputs([]string{"type=x," + option.Join(attrs{key: value})})
		if err != nil || len(got) != 1 || got[0].Attrs[key] != value {
			t.Errorf("%q=%q: %+v, %v", key, value, got, err)
		}
	})
}

// FuzzParsers: no value makes a parser panic, and what is understood has what it needs.
func FuzzParsers(f *testing.F) {
	for _, s := range []string{"type=local,dest=out", "id=a,src=b", "a:b", "index[linux/amd64]:a=b", "linux/arm/v7", "check,format=json", "memory=1g", `"`, ",", "=", "type=sbom,disabled=x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if out, err := option.Outputs([]string{s}); err == nil {
			for _, o := range out {
				if o.Type == "" {
					t.Errorf("%q: an output without a type", s)
				}
			}
		}
		if list, err := option.Caches([]string{s}); err == nil {
			for _, c := range list {
				if c.Type == "" {
					t.Errorf("%q: a cache without a type", s)
				}
			}
		}
		if list, err := option.Secrets([]string{s}); err == nil {
			for _, x := range list {
				if x.ID == "" {
					t.Errorf("%q: a secret without an id", s)
				}
			}
		}
		_, _ = option.SSHs([]string{s})
		_, _ = option.Contexts([]string{s})
		_, _ = option.Attests([]string{s}, s, s)
		_, _ = option.Annotations([]string{s})
		_, _ = option.Platforms([]string{s})
		_, _ = option.Calls(s)
		_, _ = option.Resources([]string{s})
		_, _ = option.Hosts([]string{s}, func() (string, error) { return "::1", nil })
	})
}
