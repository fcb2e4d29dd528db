package command

import (
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
)

// builds are build sections that together have every attribute.
func builds() []types.BuildConfig {
	value := "v"
	mode := types.FileMode(0o400)
	ulimits := map[string]*types.UlimitsConfig{"nofile": {Soft: 1, Hard: 2}, "nproc": {Single: 3}}
	return []types.BuildConfig{
		{Context: "/src", DockerfileInline: "FROM scratch"},
		{
			Context: "/src", Dockerfile: "Alt", Entitlements: []string{"network.host"}, Args: types.MappingWithEquals{"A": &value, "FROM_ENV": nil},
			Provenance: "mode=max", SBOM: "true", SSH: types.SSHConfig{{ID: "default"}, {ID: "k", Path: "/key"}}, Labels: types.Labels{"l": "v"},
			CacheFrom: types.StringList{"from"}, CacheTo: types.StringList{"to"}, NoCache: true, NoCacheFilter: types.StringList{"stage"},
			AdditionalContexts: types.Mapping{"dir": "/other", "svc": "service:base"}, Pull: true, ExtraHosts: types.HostsList{"h": {"1.2.3.4"}},
			Network: "host", Target: "t", Secrets: []types.ServiceSecretConfig{{Source: "file"}, {Source: "env", Target: "id", Mode: &mode}},
			ShmSize: 1024, Tags: types.StringList{"more"}, Ulimits: ulimits, Platforms: types.StringList{"linux/amd64"}, Privileged: true,
		},
	}
}

// said are the arguments of a build, and what it reads.
func said(t *testing.T, c types.BuildConfig) string {
	t.Helper()
	var base, s types.ServiceConfig
	base.Name, base.Build = "base", &types.BuildConfig{Context: "/base"}
	s.Name, s.Image, s.Build = "a", "named", &c
	p := &types.Project{
		Name: "x", Services: types.Services{"base": base, "a": s}, Environment: types.Mapping{"FROM_ENV": "e"},
		Secrets: types.Secrets{"file": {File: "/file"}, "env": {Environment: "E"}},
	}
	args, in, err := building{}.arguments(p, s, "-")
	if err != nil {
		t.Fatal(err)
	}
	if in != nil {
		text, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, string(text))
	}
	slices.Sort(args)
	return strings.Join(args, " ")
}

// Without any of its attributes a build is another one: none is read and forgotten.
func TestEveryBuildAttributeHasItsEffect(t *testing.T) {
	seen := map[string]bool{"Isolation": true, "Extensions": true} // refused; nobody's
	for _, c := range builds() {
		whole := said(t, c)
		of := reflect.ValueOf(&c).Elem()
		for i := range of.NumField() {
			if of.Field(i).IsZero() {
				continue
			}
			name := of.Type().Field(i).Name
			seen[name] = true
			kept := of.Field(i).Interface()
			of.Field(i).SetZero()
			if said(t, c) == whole {
				t.Errorf("%s: nothing changes without it", name)
			}
			of.Field(i).Set(reflect.ValueOf(kept))
		}
	}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[types.BuildConfig]()) {
		if !seen[f.Name] {
			t.Errorf("%s: it is not among the builds of this test", f.Name)
		}
	}
	whole := said(t, builds()[1])
	for _, want := range []string{
		"nofile=1:2", "nproc=3:3", "id=file,type=file,src=/file", "id=id,type=env,env=E", "svc=docker-image://x-base", "A=v", "FROM_ENV=e", "com.docker.compose.service=a", "--tag named",
	} {
		if want = strings.TrimPrefix(want, "--tag "); !strings.Contains(whole, want) {
			t.Errorf("no %s in %s", want, whole)
		}
	}
}

func TestBuildsUponEachOther(t *testing.T) {
	service := func(name, from string) types.ServiceConfig {
		s := types.ServiceConfig{Name: name}
		s.Build = &types.BuildConfig{Context: "."}
		if from != "" {
			s.Build.AdditionalContexts = types.Mapping{"c": "service:" + from}
		}
		return s
	}
	p := &types.Project{Services: types.Services{"a": service("a", "b"), "x": service("x", "y"), "y": service("y", "x"), "z": service("z", "none")}, DisabledServices: types.Services{"b": service("b", "")}}
	with, names, err := withContexts(p, []string{"a"})
	if err != nil || fmt.Sprint(names) != "[a b]" || with.Services["b"].Build == nil {
		t.Errorf("%v %v", names, err)
	}
	for _, wrong := range []string{"x", "z"} {
		if _, _, err := withContexts(p, []string{wrong}); err == nil || !strings.Contains(err.Error(), "additional_contexts") {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}
