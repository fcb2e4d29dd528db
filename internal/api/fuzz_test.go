package api

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/registry"
)

func FuzzFilters(f *testing.F) {
	for _, seed := range []string{"", "{}", "null", `{"a":["b"]}`, `{"a":{"b":true}}`, `{"a":{"b":false}}`, `{"a":1}`, "[", `{"a":null}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		filters, err := parseFilters(text)
		if err != nil {
			if statusOf(err) != http.StatusBadRequest {
				t.Errorf("%q: status %d", text, statusOf(err))
			}
			return
		}
		if filters == nil {
			t.Errorf("%q: nil", text)
		}
		for key, values := range filters {
			if !slices.IsSorted(values) || len(slices.Compact(slices.Clone(values))) != len(values) {
				t.Errorf("%q: the values of %q are %q", text, key, values)
			}
		}
	})
}

func FuzzPath(f *testing.F) {
	for _, seed := range []string{"/", "/v1.40/info", "/v1.40", "/v9/images/a/b/json", "/v/x", "/v1..2/info", "/images/%2F/json", "/containers//x/json", "/vv1.2/info"} {
		f.Add(seed)
	}
	h := &Handler{}
	table := newRouter(append(h.routes(), h.refusals()...))
	f.Fuzz(func(t *testing.T, path string) {
		text, rest := splitVersion(path)
		if text != "" && "/v"+text+rest != path {
			t.Errorf("%q was split into %q and %q", path, text, rest)
		}
		if asked, err := negotiate(text); err == nil && (asked.less(minVersion) || maxVersion.less(asked)) {
			t.Errorf("version %q is taken", text)
		}
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE"} {
			handle, params := table.find(method, rest)
			for name, value := range params {
				if handle == nil || strings.Trim(value, "/") == "" {
					t.Errorf("%s %q: %s is %q", method, path, name, value)
				}
			}
		}
	})
}

func FuzzRegistryAuth(f *testing.F) {
	for _, seed := range []string{"", "e30=", "eyJ1c2VybmFtZSI6ImEifQ", "eyJ1c2VybmFtZSI6ImEifQ==", "????", "-_-_", "+/+/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		auth := decodeAuth(header)
		if auth == nil {
			return
		}
		if *auth == (registry.AuthConfig{}) {
			t.Errorf("%q: empty credentials instead of none", header)
		}
		if _, err := json.Marshal(auth); err != nil {
			t.Error(err)
		}
	})
}

func FuzzTimestamp(f *testing.F) {
	for _, seed := range []string{"", "0", "1.5", "1.0000000019", "-1", "1.-5", "1.", ".5", "99999999999999999999", "1e3"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		at, err := parseTimestamp("since", text)
		if err == nil && text != "" && at.IsZero() {
			t.Errorf("%q is no time", text)
		}
	})
}

func FuzzCreate(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"Image":"x"}`, `{"Image":"x","HostConfig":{"Mounts":[{"Type":"bind"}],"PortBindings":{"80":null}}}`,
		`{"Image":"x","MacAddress":"02:42:ac:11:00:02","NetworkingConfig":{"EndpointsConfig":{"a":null,"default":{}}}}`,
		`{"Image":"x","HostConfig":{"Sysctls":{"net.a.b.eth0.c":"1"},"NetworkMode":"default"}}`,
	} {
		f.Add(seed, 24)
		f.Add(seed, 47)
		f.Add(seed, 56)
	}
	h := &Handler{}
	f.Fuzz(func(t *testing.T, body string, minor int) {
		if minor < minVersion.minor || minor > maxVersion.minor {
			return
		}
		req, _, err := h.decodeCreate([]byte(body), &request{version: v(minor), query: url.Values{}})
		if err != nil {
			if statusOf(err) != http.StatusBadRequest {
				t.Errorf("status %d: %v", statusOf(err), err)
			}
			return
		}
		if req.Config == nil || req.HostConfig == nil || req.HostConfig.NetworkMode.IsDefault() {
			t.Errorf("%q: incomplete request", body)
		}
		for name, endpoint := range req.NetworkingConfig.EndpointsConfig {
			if endpoint == nil {
				t.Errorf("%q: no settings for %q", body, name)
			}
		}
	})
}
