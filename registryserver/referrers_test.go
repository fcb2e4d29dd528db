package registryserver_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/cleatlabs/cleat/registryserver"
)

// referrersAt gives the artifact types of what is about a manifest.
func referrersAt(t *testing.T, url string) (types string, header http.Header) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var index struct {
		SchemaVersion int
		Manifests     []struct {
			ArtifactType, Digest string
			Annotations          map[string]string
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&index); err != nil || resp.StatusCode != http.StatusOK || index.SchemaVersion != 2 || index.Manifests == nil {
		t.Fatalf("%s: %+v, %v", resp.Status, index, err)
	}
	var list []string
	for _, m := range index.Manifests {
		list = append(list, m.ArtifactType+m.Annotations["note"])
	}
	return strings.Join(list, " "), resp.Header
}

func TestReferrers(t *testing.T) {
	addr, _ := serve(t, registryserver.Config{Data: t.TempDir()})
	put(t, addr, "team/app")
	req, _ := http.NewRequest(http.MethodHead, "http://"+addr+"/v2/team/app/manifests/latest", nil)
	req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	subject := resp.Header.Get("Docker-Content-Digest")
	at := "http://" + addr + "/v2/team/app/referrers/" + subject
	if got, _ := referrersAt(t, at); got != "" {
		t.Errorf("before: %q", got)
	}
	var signature digest.Digest
	for _, kind := range []string{"sig", "sbom"} {
		manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/%s","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[],"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":%d},"annotations":{"note":"!"}}`, kind, subject, resp.ContentLength)
		signature = digest.FromString(manifest)
		answer := send(t, http.MethodPut, "http://"+addr+"/v2/team/app/manifests/"+signature.String(), "application/vnd.oci.image.manifest.v1+json", manifest)
		if answer.Header.Get("OCI-Subject") != subject {
			t.Errorf("the subject is %q", answer.Header.Get("OCI-Subject"))
		}
	}
	for range 2 { // read, and remembered
		if got, _ := referrersAt(t, at); got != "application/sbom! application/sig!" && got != "application/sig! application/sbom!" {
			t.Errorf("%q", got)
		}
	}
	if got, header := referrersAt(t, at+"?artifactType=application/sig"); got != "application/sig!" || header.Get("OCI-Filters-Applied") != "artifactType" {
		t.Errorf("%q, %v", got, header)
	}
	send(t, http.MethodDelete, "http://"+addr+"/v2/team/app/manifests/"+signature.String(), "", "")
	if got, _ := referrersAt(t, at); got != "application/sig!" {
		t.Errorf("after one was deleted: %q", got)
	}
	for _, unknown := range []string{"/v2/team/app/referrers/" + digest.FromString("x").String(), "/v2/no/such/referrers/" + subject} {
		if got, _ := referrersAt(t, "http://"+addr+unknown); got != "" {
			t.Errorf("%s: %q", unknown, got)
		}
	}
	for _, bad := range []string{"/v2/team/app/referrers/latest", "/v2/team/app/referrers/sha256:zz", "/v2/../../referrers/" + subject, "/v2/UP/referrers/" + subject} {
		req, _ := http.NewRequest(http.MethodGet, "http://"+addr, nil)
		req.URL.Path = bad
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s", bad, resp.Status)
		}
	}
}

// TestRepositoryCalledReferrers: only the end of a path asks for referrers.
func TestRepositoryCalledReferrers(t *testing.T) {
	addr, _ := serve(t, registryserver.Config{Data: t.TempDir()})
	put(t, addr, "team/referrers/app")
	for path, accept := range map[string]string{
		"manifests/latest": "application/vnd.oci.image.manifest.v1+json",
		"blobs/sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a": "*/*",
		"tags/list": "*/*",
	} {
		req, _ := http.NewRequest(http.MethodGet, "http://"+addr+"/v2/team/referrers/app/"+path, nil)
		req.Header.Set("Accept", accept)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	if got, _ := referrersAt(t, "http://"+addr+"/v2/team/referrers/app/referrers/"+digest.FromString("x").String()); got != "" {
		t.Errorf("%q", got)
	}
}
