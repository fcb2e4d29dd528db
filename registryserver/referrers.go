package registryserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// maxManifest is how large a manifest is that can be about another one, in bytes:
// distribution takes no larger one.
const maxManifest = 4 << 20

// referrers answers which manifests of a repository are about another one (signatures,
// attestations), which distribution does not. What a manifest is about never changes, so
// each is read once.
type referrers struct {
	mu    sync.Mutex
	known map[digest.Digest]about
}

// about is a manifest and its subject, "" if it has none.
type about struct {
	subject digest.Digest
	desc    ocispec.Descriptor
}

// maxKnown bounds what is remembered of manifests; one more forgets all.
const maxKnown = 100_000

// referrersPath tells repository and digest of GET /v2/NAME/referrers/DIGEST.
func referrersPath(path string) (name string, subject string, ok bool) {
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return "", "", false
	}
	i := strings.LastIndex(rest, "/referrers/")
	if i < 0 {
		return "", "", false
	}
	subject = rest[i+len("/referrers/"):]
	// A part of a repository's name may be called so, too.
	return rest[:i], subject, !strings.Contains(subject, "/")
}

// listReferrers answers for whoever may read the repository.
func (s *Server) listReferrers(w http.ResponseWriter, r *http.Request, name, text string) {
	subject, err := digest.Parse(text)
	if _, nerr := reference.WithName(name); err != nil || nerr != nil {
		http.Error(w, `{"errors":[{"code":"DIGEST_INVALID","message":"the repository or the digest is none"}]}`, http.StatusBadRequest)
		return
	}
	if answer := s.within(r, "/v2/"+name+"/tags/list?n=1"); answer.status != http.StatusOK && answer.status != http.StatusNotFound {
		answer.copyTo(w)
		return
	}
	list, err := s.referrersOf(r, name, subject)
	if err != nil {
		s.log(fmt.Sprintf("referrers of %s@%s: %v", name, subject, err))
		http.Error(w, `{"errors":[{"code":"UNKNOWN","message":"unknown error"}]}`, http.StatusInternalServerError)
		return
	}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	index.SchemaVersion = 2
	wanted := r.URL.Query().Get("artifactType")
	for _, d := range list {
		if wanted == "" || d.ArtifactType == wanted {
			index.Manifests = append(index.Manifests, d)
		}
	}
	if wanted != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	_ = json.NewEncoder(w).Encode(index) // a client that has gone does not read it
}

func (s *Server) referrersOf(r *http.Request, name string, subject digest.Digest) ([]ocispec.Descriptor, error) {
	revisions := filepath.Join(s.data, repositoriesDir, filepath.FromSlash(name), "_manifests/revisions")
	entries, err := os.ReadDir(filepath.Join(revisions, subject.Algorithm().String()))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []ocispec.Descriptor
	for _, e := range entries {
		d := digest.NewDigestFromEncoded(subject.Algorithm(), e.Name())
		if d.Validate() != nil {
			continue
		}
		// A manifest that was deleted keeps its directory, without the link in it.
		if _, err := os.Stat(filepath.Join(revisions, subject.Algorithm().String(), e.Name(), "link")); err != nil {
			continue
		}
		if a, ok := s.about(r, name, d); ok && a.subject == subject {
			list = append(list, a.desc)
		}
	}
	return list, nil
}

// about reads what a manifest is about.
func (s *Server) about(r *http.Request, name string, d digest.Digest) (about, bool) {
	s.referrers.mu.Lock()
	a, ok := s.referrers.known[d]
	s.referrers.mu.Unlock()
	if ok {
		return a, true
	}
	r = r.Clone(r.Context())
	r.Header.Set("Accept", ocispec.MediaTypeImageManifest+", "+ocispec.MediaTypeImageIndex+", application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json")
	answer := s.within(r, "/v2/"+name+"/manifests/"+d.String())
	if answer.status != http.StatusOK {
		return about{}, false
	}
	a = readAbout(answer.body.Bytes())
	a.desc.Digest, a.desc.Size = d, int64(answer.body.Len())
	if a.desc.MediaType == "" {
		a.desc.MediaType = answer.header.Get("Content-Type")
	}
	s.referrers.mu.Lock()
	defer s.referrers.mu.Unlock()
	if s.referrers.known == nil || len(s.referrers.known) >= maxKnown {
		s.referrers.known = map[digest.Digest]about{}
	}
	s.referrers.known[d] = a
	return a, true
}

// readAbout reads a manifest or index; one that is not to be understood is about nothing.
func readAbout(document []byte) about {
	var m struct {
		MediaType    string              `json:"mediaType"`
		ArtifactType string              `json:"artifactType"`
		Config       ocispec.Descriptor  `json:"config"`
		Subject      *ocispec.Descriptor `json:"subject"`
		Annotations  map[string]string   `json:"annotations"`
	}
	if json.Unmarshal(document, &m) != nil || m.Subject == nil || m.Subject.Digest.Validate() != nil {
		return about{}
	}
	if m.ArtifactType == "" {
		m.ArtifactType = m.Config.MediaType
	}
	return about{m.Subject.Digest, ocispec.Descriptor{MediaType: m.MediaType, ArtifactType: m.ArtifactType, Annotations: m.Annotations}}
}

// tellSubject says, in the answer to a manifest that is about another one, that its
// subject was understood: without that, clients keep a list of their own under a tag.
// The manifest is read by who answers the request that is returned, if he lets the client in.
func tellSubject(w *statusWriter, r *http.Request) *http.Request {
	if r.Method != http.MethodPut || !strings.HasPrefix(r.URL.Path, "/v2/") || !strings.Contains(r.URL.Path, "/manifests/") || r.Body == nil {
		return r
	}
	var manifest beginning
	r = r.WithContext(r.Context()) // net/http goes by the body of its own
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.TeeReader(r.Body, &manifest), r.Body}
	w.created = func(h http.Header) {
		if subject := readAbout(manifest.Bytes()).subject; subject != "" {
			h["Oci-Subject"] = []string{subject.String()}
		}
	}
	return r
}

// beginning keeps as much of what is written as a manifest can be long.
type beginning struct{ bytes.Buffer }

func (b *beginning) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), maxManifest-b.Len())])
	return len(p), nil
}
