package registryclient_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/registryclient"
)

// TestSearchOfHostileRegistries gives only what can be shown, and ends.
func TestSearchOfHostileRegistries(t *testing.T) {
	pages := 0
	for name, c := range map[string]struct {
		search  func(w http.ResponseWriter)
		catalog func(w http.ResponseWriter)
		want    string // the names, or a part of the error
	}{
		"control characters": {
			search: func(w http.ResponseWriter) {
				fmt.Fprint(w, `{"results":[{"name":"a\u001b[31mb","description":"x\u0000\ny"}]}`)
			},
			want: "a[31mb(x\ny)",
		},
		"more than asked for": {
			search: func(w http.ResponseWriter) {
				fmt.Fprint(w, `{"results":[`+strings.Repeat(`{"name":"a"},`, 5000)+`{"name":"b"}]}`)
			},
			want: strings.TrimSpace(strings.Repeat("a() ", 25)),
		},
		"a web page": {
			search:  func(w http.ResponseWriter) { fmt.Fprint(w, "<html>welcome</html>") },
			catalog: func(w http.ResponseWriter) { fmt.Fprint(w, `{"repositories":["team/ax","UPPER/x","../x","x y"]}`) },
			want:    "team/ax(in the catalogue of HOST, which has no search)",
		},
		"pages without end": {
			search: func(w http.ResponseWriter) { w.WriteHeader(404) },
			catalog: func(w http.ResponseWriter) {
				pages++
				w.Header().Set("Link", fmt.Sprintf(`</v2/_catalog?last=%d>; rel="next"`, pages))
				fmt.Fprint(w, `{"repositories":["`+strings.Join(strings.Split(strings.Repeat("x", 1000), ""), `","`)+`"]}`)
			},
			want: strings.TrimSpace(strings.Repeat("x(in the catalogue of HOST, which has no search) ", 25)),
		},
		"the same page for ever": {
			search: func(w http.ResponseWriter) { w.WriteHeader(404) },
			catalog: func(w http.ResponseWriter) {
				w.Header().Set("Link", `</v2/_catalog?n=100>; rel="next"`)
				fmt.Fprint(w, `{"repositories":["x"]}`)
			},
			want: "x(in the catalogue of HOST, which has no search)",
		},
		"neither": {
			search:  func(w http.ResponseWriter) { w.WriteHeader(404) },
			catalog: func(w http.ResponseWriter) { w.WriteHeader(405) },
			want:    "can be searched neither by /v1/search nor by /v2/_catalog: it answers 405",
		},
		"nonsense": {
			search:  func(w http.ResponseWriter) { w.WriteHeader(500) },
			catalog: func(w http.ResponseWriter) { io.WriteString(w, strings.Repeat("[", 1<<20)) },
			want:    "is not what the protocol says",
		},
	} {
		ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v1/search" {
				c.search(w)
			} else {
				c.catalog(w)
			}
		}))
		client, err := registryclient.New(registryclient.Config{})
		if err != nil {
			t.Fatal(err)
		}
		results, err := client.Search(context.Background(), registryclient.SearchRequest{Term: hostOf(ts.URL) + "/x"})
		var got []string
		for _, r := range results {
			got = append(got, strings.TrimPrefix(r.Name, hostOf(ts.URL)+"/")+"("+r.Description+")")
		}
		text := strings.ReplaceAll(strings.Join(got, " "), hostOf(ts.URL), "HOST")
		if err != nil {
			text = err.Error()
		}
		if text != c.want && (err == nil || !strings.Contains(text, c.want)) {
			t.Errorf("%s: %.300q, want %q", name, text, c.want)
		}
		ts.Close()
	}
}

// TestInspectOfHostileRegistries believes nothing that does not have its digest.
func TestInspectOfHostileRegistries(t *testing.T) {
	config := `{"os":"linux","architecture":"riscv64"}`
	manifestOf := func(size int64, d digest.Digest) string {
		return fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":%q,"digest":%q,"size":%d}}`, ocispec.MediaTypeImageConfig, d, size)
	}
	good := manifestOf(int64(len(config)), digest.FromString(config))
	for name, c := range map[string]struct {
		manifest, sent, config string
		class                  func(error) bool
	}{
		"good":                    {good, good, config, func(err error) bool { return err == nil }},
		"another manifest":        {good, strings.Replace(good, "2", "3", 1), config, func(err error) bool { return err != nil }},
		"another config":          {good, good, strings.Replace(config, "linux", "plan9", 1), errdefs.IsDataLoss},
		"a config without end":    {manifestOf(1<<40, digest.FromString(config)), "", config, errdefs.IsInvalidArgument},
		"a config that is none":   {manifestOf(3, digest.FromString("[1]")), "", "[1]", func(err error) bool { return err != nil }},
		"a digest that is none":   {manifestOf(3, "sha256:zz"), "", "[1]", func(err error) bool { return err != nil }},
		"a manifest that is none": {"[]", "", "", func(err error) bool { return err != nil }},
	} {
		if c.sent == "" {
			c.sent = c.manifest
		}
		ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/blobs/") {
				fmt.Fprint(w, c.config)
				return
			}
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			w.Header().Set("Docker-Content-Digest", digest.FromString(c.manifest).String())
			w.Header().Set("Content-Length", fmt.Sprint(len(c.sent)))
			if r.Method == http.MethodGet {
				fmt.Fprint(w, c.sent)
			}
		}))
		client, err := registryclient.New(registryclient.Config{})
		if err != nil {
			t.Fatal(err)
		}
		named, _ := reference.ParseNormalizedNamed(hostOf(ts.URL) + "/lab/x:1")
		s, err := client.Open(named, nil)
		if err != nil {
			t.Fatal(err)
		}
		found, err := s.Inspect(context.Background())
		if !c.class(err) || err == nil && found.Platforms[0].Architecture != "riscv64" {
			t.Errorf("%s: %+v, %v", name, found, err)
		}
		s.Close()
		ts.Close()
	}
}
