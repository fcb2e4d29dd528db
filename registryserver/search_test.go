package registryserver_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/cleatlabs/cleat/registryserver"
)

// put makes a repository with one small image.
func put(t *testing.T, addr, repository string) {
	t.Helper()
	resp, err := http.Post("http://"+addr+"/v2/"+repository+"/blobs/uploads/", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	const config, digest = "{}", "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
	send(t, http.MethodPut, resp.Header.Get("Location")+"&digest="+url.QueryEscape(digest), "application/octet-stream", config)
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":2},"layers":[]}`, digest)
	send(t, http.MethodPut, "http://"+addr+"/v2/"+repository+"/manifests/latest", "application/vnd.oci.image.manifest.v1+json", manifest)
}

func send(t *testing.T, method, to, mediaType, body string) *http.Response {
	t.Helper()
	req, err := http.NewRequest(method, to, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", mediaType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode > 299 {
		t.Fatalf("%s %s: %s %s", method, to, resp.Status, b)
	}
	return resp
}

func TestSearch(t *testing.T) {
	addr, _ := serve(t, registryserver.Config{Data: t.TempDir()})
	for _, r := range []string{"library/nginx", "team/my-nginx", "team/nginx-extra", "library/redis", "a/nginx/b"} {
		put(t, addr, r)
	}
	for query, want := range map[string]string{
		"q=nginx":               "library/nginx* team/nginx-extra a/nginx/b team/my-nginx",
		"q=NGINX":               "library/nginx* team/nginx-extra a/nginx/b team/my-nginx",
		"q=library/red":         "library/redis*",
		"q=team/":               "team/my-nginx team/nginx-extra",
		"q=nginx&n=2":           "library/nginx* team/nginx-extra",
		"q=nginx&n=2&page=2":    "a/nginx/b team/my-nginx",
		"q=nginx&n=2&page=99":   "",
		"q=nginx&n=-1&page=bad": "library/nginx* team/nginx-extra a/nginx/b team/my-nginx",
		"q=none":                "",
	} {
		resp, err := http.Get("http://" + addr + "/v1/search?" + query)
		if err != nil {
			t.Fatal(err)
		}
		var answer struct {
			Results []struct {
				Name     string
				Official bool `json:"is_official"`
			}
		}
		err = json.NewDecoder(resp.Body).Decode(&answer)
		resp.Body.Close()
		var got []string
		for _, r := range answer.Results {
			if r.Official {
				r.Name += "*"
			}
			got = append(got, r.Name)
		}
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %v, %v", query, got, err)
		}
	}
	if resp, err := http.Post("http://"+addr+"/v1/search", "", nil); err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("%v, %v", resp, err)
	}
}

func TestSearchNeedsThePassword(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("pw"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(file, []byte("alice:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	addr, _ := serve(t, registryserver.Config{Data: t.TempDir(), Htpasswd: file})
	for user, status := range map[string]int{"": 401, "alice": 200} {
		req, _ := http.NewRequest(http.MethodGet, "http://"+addr+"/v1/search?q=x", nil)
		if user != "" {
			req.SetBasicAuth(user, "pw")
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != status || status == 401 && !strings.Contains(resp.Header.Get("WWW-Authenticate"), "Basic") {
			t.Errorf("%q gets %s, %v", user, resp.Status, resp.Header)
		}
	}
}
