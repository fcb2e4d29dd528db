package registryclient_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/cleatlabs/cleat/internal/registryclient"
	"github.com/cleatlabs/cleat/test/expect"
)

// receiver is a registry that takes one blob, as it is told to.
type receiver struct {
	t *testing.T
	// before, if not nil, may answer a request itself.
	before func(w http.ResponseWriter, r *http.Request, n int) bool
	// breakAfter is how many bytes of a body are taken before the connection is cut, once
	// for each element.
	breakAfter []int
	// forgetful registries know nothing of an upload that broke off.
	forgetful bool
	elsewhere string // the upload is sent to this base URL

	mu       sync.Mutex
	log      []string
	auth     []string
	received []byte
	stored   map[string][]byte
	requests int
}

func (f *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.requests++
	n := f.requests
	f.log = append(f.log, r.Method+" "+strings.SplitN(r.URL.RequestURI(), "&digest", 2)[0])
	f.auth = append(f.auth, r.Header.Get("Authorization"))
	f.mu.Unlock()
	if f.before != nil && f.before(w, r, n) {
		return
	}
	location := f.elsewhere + "/v2/lab/x/blobs/uploads/1"
	switch {
	case r.Method == http.MethodHead:
		f.mu.Lock()
		_, ok := f.stored[r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]]
		f.mu.Unlock()
		if !ok {
			w.WriteHeader(http.StatusNotFound)
		}
	case r.Method == http.MethodPost:
		f.mu.Lock()
		f.received = nil
		f.mu.Unlock()
		w.Header().Set("Location", location)
		w.WriteHeader(http.StatusAccepted)
	case r.Method == http.MethodGet:
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.forgetful {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, len(f.received)-1)))
		w.Header().Set("Location", location+"?state=new")
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPatch, r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/uploads/"):
		f.take(w, r, location)
	case r.Method == http.MethodPut:
		f.manifest(w, r)
	case r.Method == http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
	}
}

func (f *receiver) take(w http.ResponseWriter, r *http.Request, location string) {
	f.mu.Lock()
	limit := -1
	if len(f.breakAfter) > 0 {
		limit, f.breakAfter = f.breakAfter[0], f.breakAfter[1:]
	}
	have := len(f.received)
	f.mu.Unlock()
	if cr := r.Header.Get("Content-Range"); cr != "" && !strings.HasPrefix(cr, fmt.Sprintf("%d-", have)) {
		f.t.Errorf("Content-Range %q, but %d bytes are here", cr, have)
	}
	var body []byte
	if limit >= 0 {
		body, _ = io.ReadAll(io.LimitReader(r.Body, int64(limit)))
	} else {
		body, _ = io.ReadAll(r.Body)
	}
	f.mu.Lock()
	f.received = append(f.received, body...)
	f.mu.Unlock()
	if limit >= 0 {
		panic(http.ErrAbortHandler)
	}
	if r.Method == http.MethodPatch {
		w.Header().Set("Location", location+"?state=patched")
		w.WriteHeader(http.StatusAccepted)
		return
	}
	want := r.URL.Query().Get("digest")
	f.mu.Lock()
	defer f.mu.Unlock()
	if got := digest.FromBytes(f.received).String(); got != want {
		http.Error(w, `{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match uploaded content"}]}`, http.StatusBadRequest)
		return
	}
	if f.stored == nil {
		f.stored = map[string][]byte{}
	}
	f.stored[want] = f.received
	w.WriteHeader(http.StatusCreated)
}

func (f *receiver) manifest(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Docker-Content-Digest", digest.FromBytes(body).String())
	w.WriteHeader(http.StatusCreated)
}

func (f *receiver) has(d digest.Digest) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.stored[d.String()]
	return ok
}

func (f *receiver) calls() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.log, "\n")
}

func (f *receiver) serve() *httptest.Server {
	ts := httptest.NewServer(f)
	ts.Config.ErrorLog = nil
	f.t.Cleanup(ts.Close)
	return ts
}

// pusher opens a session about lab/x at ts that does not pause, and waits for a busy machine.
func pusher(t *testing.T, ts *httptest.Server, auth *registry.AuthConfig) *registryclient.Session {
	t.Helper()
	return stallPusher(t, ts, auth, expect.Patience)
}

// stallPusher is a pusher that gives up an upload which takes no byte for so long.
func stallPusher(t *testing.T, ts *httptest.Server, auth *registry.AuthConfig, stall time.Duration) *registryclient.Session {
	t.Helper()
	c, err := registryclient.New(registryclient.Config{})
	if err != nil {
		t.Fatal(err)
	}
	c.Hasten(time.Millisecond, stall, expect.Patience)
	named, err := reference.ParseNormalizedNamed(hostOf(ts.URL) + "/lab/x:1")
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.OpenPush(named, auth)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// blobOf makes an upload of so many random bytes.
func blobOf(size int) registryclient.Upload {
	b := make([]byte, size)
	rand.Read(b)
	return registryclient.Upload{
		Descriptor: ocispec.Descriptor{Digest: digest.FromBytes(b), Size: int64(size)},
		Open: func(offset int64) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(b[offset:])), nil
		},
	}
}

func TestBrokenUploadGoesOn(t *testing.T) {
	f := &receiver{t: t, breakAfter: []int{300_000, 200_000}}
	u := blobOf(1 << 20)
	var waits int
	u.Retrying = func(time.Duration) { waits++ }
	outcome, err := pusher(t, f.serve(), nil).PushBlob(context.Background(), u)
	if err != nil || outcome != registryclient.Uploaded || !f.has(u.Digest) || waits != 2 {
		t.Errorf("%v, %v, %d waits\n%s", outcome, err, waits, f.calls())
	}
	if n := strings.Count(f.calls(), "POST"); n != 1 {
		t.Errorf("it began %d times:\n%s", n, f.calls())
	}
	if !strings.Contains(f.calls(), "PATCH /v2/lab/x/blobs/uploads/1?state=new") || !strings.Contains(f.calls(), "PUT /v2/lab/x/blobs/uploads/1?") || strings.Contains(f.calls(), "DELETE") {
		t.Errorf("%s", f.calls())
	}
}

func TestBrokenUploadBeginsAnew(t *testing.T) {
	f := &receiver{t: t, breakAfter: []int{300_000}, forgetful: true}
	u := blobOf(1 << 20)
	if _, err := pusher(t, f.serve(), nil).PushBlob(context.Background(), u); err != nil || !f.has(u.Digest) || strings.Count(f.calls(), "POST") != 2 {
		t.Errorf("%v\n%s", err, f.calls())
	}
}

// TestUploadThatNeverWorksEnds also when each attempt gets nowhere.
func TestUploadThatNeverWorksEnds(t *testing.T) {
	f := &receiver{t: t, forgetful: true}
	for range 100 {
		f.breakAfter = append(f.breakAfter, 10)
	}
	s := pusher(t, f.serve(), nil)
	_, err := s.PushBlob(context.Background(), blobOf(1<<20))
	if err == nil || !errdefs.IsUnavailable(s.ExplainPush(err)) || !strings.Contains(s.ExplainPush(err).Error(), "cannot reach the registry at 127.0.0.1") {
		t.Errorf("%v", s.ExplainPush(err))
	}
	if n := strings.Count(f.calls(), "PUT"); n != 6 {
		t.Errorf("%d attempts", n)
	}
}

func TestBusyRegistryIsAskedAgain(t *testing.T) {
	for _, status := range []int{429, 500, 502, 503, 504, 408} {
		f, refused := &receiver{t: t}, map[string]bool{}
		f.before = func(w http.ResponseWriter, r *http.Request, _ int) bool {
			if refused[r.Method] {
				return false
			}
			refused[r.Method] = true
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(status)
			return true
		}
		u := blobOf(1000)
		if _, err := pusher(t, f.serve(), nil).PushBlob(context.Background(), u); err != nil || !f.has(u.Digest) {
			t.Errorf("%d: %v\n%s", status, err, f.calls())
		}
	}
	for _, status := range []int{400, 403, 404, 405, 413, 501, 507} {
		f := &receiver{t: t}
		f.before = func(w http.ResponseWriter, r *http.Request, _ int) bool { w.WriteHeader(status); return true }
		s := pusher(t, f.serve(), nil)
		_, err := s.PushBlob(context.Background(), blobOf(1000))
		if err == nil || strings.Count(f.calls(), "HEAD") != 1 {
			t.Errorf("%d: %v\n%s", status, s.ExplainPush(err), f.calls())
		}
	}
}

func TestRegistrySaysHowLongToWait(t *testing.T) {
	f := &receiver{t: t}
	f.before = func(w http.ResponseWriter, _ *http.Request, n int) bool {
		if n == 1 {
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(429)
		}
		return n == 1
	}
	u := blobOf(10)
	ctx, cancel := context.WithCancel(context.Background())
	var waited time.Duration
	u.Retrying = func(d time.Duration) { waited = d; cancel() }
	_, err := pusher(t, f.serve(), nil).PushBlob(ctx, u)
	if !errors.Is(err, context.Canceled) || waited != time.Minute {
		t.Errorf("%v, waited %v", err, waited)
	}
}

func TestStalledUploadIsGivenUp(t *testing.T) {
	f := &receiver{t: t, forgetful: true}
	release := make(chan struct{})
	f.before = func(w http.ResponseWriter, r *http.Request, n int) bool {
		if r.Method != http.MethodPut || n > 5 {
			return false
		}
		<-release // takes no byte more than the kernel does
		panic(http.ErrAbortHandler)
	}
	ts := f.serve()
	t.Cleanup(func() { close(release) })
	u := blobOf(24 << 20)
	if _, err := stallPusher(t, ts, nil, 500*time.Millisecond).PushBlob(context.Background(), u); err != nil || !f.has(u.Digest) {
		t.Errorf("%v\n%s", err, f.calls())
	}
}

func TestCancelledUploadIsForgotten(t *testing.T) {
	f := &receiver{t: t}
	ctx, cancel := context.WithCancel(context.Background())
	u := blobOf(24 << 20)
	f.before = func(_ http.ResponseWriter, r *http.Request, _ int) bool {
		if r.Method == http.MethodPut {
			cancel()
			_, _ = io.Copy(io.Discard, r.Body)
			panic(http.ErrAbortHandler)
		}
		return false
	}
	_, err := pusher(t, f.serve(), nil).PushBlob(ctx, u)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if !strings.HasSuffix(f.calls(), "DELETE /v2/lab/x/blobs/uploads/1?state=new") {
		t.Errorf("the registry still has it:\n%s", f.calls())
	}
}

func TestMounts(t *testing.T) {
	for name, c := range map[string]struct {
		answer int // to the wish to mount
		want   registryclient.Outcome
		posts  int
	}{
		"mounted":    {http.StatusCreated, registryclient.Mounted, 1},
		"not there":  {http.StatusAccepted, registryclient.Uploaded, 1},
		"forbidden":  {http.StatusForbidden, registryclient.Uploaded, 2},
		"not served": {http.StatusMethodNotAllowed, registryclient.Uploaded, 2},
	} {
		f := &receiver{t: t}
		f.before = func(w http.ResponseWriter, r *http.Request, _ int) bool {
			if r.URL.Query().Get("from") != "other/y" {
				return false
			}
			w.Header().Set("Location", "/v2/lab/x/blobs/uploads/1")
			w.WriteHeader(c.answer)
			return true
		}
		u := blobOf(1000)
		u.From = "other/y"
		outcome, err := pusher(t, f.serve(), nil).PushBlob(context.Background(), u)
		if err != nil || outcome != c.want || strings.Count(f.calls(), "POST") != c.posts || (c.want == registryclient.Uploaded) != f.has(u.Digest) {
			t.Errorf("%s: %v, %v\n%s", name, outcome, err, f.calls())
		}
	}
}

// TestCredentialsStayWithTheRegistry when it sends uploads to another host, by an address
// or a redirect.
func TestCredentialsStayWithTheRegistry(t *testing.T) {
	for _, byRedirect := range []bool{false, true} {
		store := &receiver{t: t}
		other := store.serve()
		f := &receiver{t: t, elsewhere: other.URL}
		f.before = func(w http.ResponseWriter, r *http.Request, _ int) bool {
			if r.Header.Get("Authorization") != basic("alice", "pw") {
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			if byRedirect && r.Method == http.MethodPut {
				http.Redirect(w, r, other.URL+r.URL.RequestURI(), http.StatusTemporaryRedirect)
				return true
			}
			return false
		}
		if byRedirect {
			f.elsewhere = ""
		}
		u := blobOf(100_000)
		if _, err := pusher(t, f.serve(), &registry.AuthConfig{Username: "alice", Password: "pw"}).PushBlob(context.Background(), u); err != nil || !store.has(u.Digest) {
			t.Errorf("redirect %v: %v\n%s\nelsewhere:\n%s", byRedirect, err, f.calls(), store.calls())
		}
		for _, a := range store.auth {
			if a != "" {
				t.Errorf("redirect %v: the other host got %q", byRedirect, a)
			}
		}
	}
}

func TestNoUploadWithoutEncryption(t *testing.T) {
	c, err := registryclient.New(registryclient.Config{})
	if err != nil {
		t.Fatal(err)
	}
	named, _ := reference.ParseNormalizedNamed("registry.example:5000/lab/x")
	s, err := c.OpenPush(named, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for location, want := range map[string]string{
		"/v2/lab/x/blobs/uploads/1":                "https://registry.example:5000",
		"http://registry.example:5000/upload":      "https://registry.example:5000",
		"https://storage.example/upload":           "https://storage.example",
		"//storage.example/upload":                 "https://storage.example",
		"http://storage.example/upload":            "",
		"ftp://storage.example/upload":             "",
		"https://user:secret@storage.example/":     "",
		"http://registry.example:5001/upload":      "",
		"":                                         "",
		"https:///upload":                          "",
		"javascript:alert(1)":                      "",
		"http://[::1":                              "",
		"https://registry.example:5000/\x00upload": "",
	} {
		got, err := registryclient.SendsCredentials(c, s, location)
		if got != want || (want == "") != (err != nil) {
			t.Errorf("%q: %q, %v", location, got, err)
		}
	}
}

// TestExpiredTokenIsRenewed: a token that is refused in the midst of a push is fetched anew, whether or not the registry
// says what is wrong with it.
func TestExpiredTokenIsRenewed(t *testing.T) {
	for _, fault := range []string{`,error="invalid_token"`, ""} {
		f := &receiver{t: t}
		var tokens int
		var url string
		valid := func() string { return fmt.Sprintf("Bearer token-%d", tokens) }
		expired := false
		f.before = func(w http.ResponseWriter, r *http.Request, _ int) bool {
			if r.URL.Path == "/token" {
				tokens++
				if scope := r.FormValue("scope"); scope != "repository:lab/x:pull,push" {
					t.Errorf("a token for %q is asked for", scope)
				}
				json.NewEncoder(w).Encode(map[string]string{"token": fmt.Sprintf("token-%d", tokens), "access_token": fmt.Sprintf("token-%d", tokens)})
				return true
			}
			if r.Method == http.MethodPut && !expired {
				expired = true
				tokens++ // what was given is no good any more
			}
			if r.Header.Get("Authorization") != valid() {
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="x"%s`, url, fault))
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			return false
		}
		ts := f.serve()
		url = ts.URL
		u := blobOf(100_000)
		if _, err := pusher(t, ts, &registry.AuthConfig{Username: "alice", Password: "pw"}).PushBlob(context.Background(), u); err != nil || !f.has(u.Digest) || !expired {
			t.Errorf("%q: %v\n%s", fault, err, f.calls())
		}
	}
}

// TestRefusedTokenIsFetchedOnce: a registry that refuses the token which it has just been given is not asked without end.
func TestRefusedTokenIsFetchedOnce(t *testing.T) {
	f := &receiver{t: t}
	var tokens atomic.Int32
	var url string
	f.before = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		if r.URL.Path == "/token" {
			tokens.Add(1)
			json.NewEncoder(w).Encode(map[string]string{"token": "one", "access_token": "one"})
			return true
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="x"`, url))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	ts := f.serve()
	url = ts.URL
	s := pusher(t, ts, &registry.AuthConfig{Username: "alice", Password: "pw"})
	if _, err := s.PushBlob(context.Background(), blobOf(1000)); !errdefs.IsPermissionDenied(s.ExplainPush(err)) {
		t.Errorf("%v", err)
	}
	if n := tokens.Load(); n != 1 {
		t.Errorf("%d tokens were fetched", n)
	}
}

// TestTokenServerThatFails: a fault of the token server that may pass is not remembered for the rest of the push; that it
// refuses the credentials is.
func TestTokenServerThatFails(t *testing.T) {
	f := &receiver{t: t}
	var mu sync.Mutex
	answers := []int{http.StatusServiceUnavailable, 0, http.StatusTooManyRequests}
	last, asked := http.StatusOK, 0
	var url string
	f.before = func(w http.ResponseWriter, r *http.Request, _ int) bool {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path != "/token" {
			if r.Header.Get("Authorization") == "Bearer good" {
				return false
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="x"`, url))
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		asked++
		answer := last
		if len(answers) > 0 {
			answer, answers = answers[0], answers[1:]
		}
		switch answer {
		case 0:
			panic(http.ErrAbortHandler)
		case http.StatusOK:
			json.NewEncoder(w).Encode(map[string]string{"token": "good", "access_token": "good"})
		default:
			w.WriteHeader(answer)
		}
		return true
	}
	ts := f.serve()
	url = ts.URL
	alice := &registry.AuthConfig{Username: "alice", Password: "pw"}
	u := blobOf(1000)
	if _, err := pusher(t, ts, alice).PushBlob(context.Background(), u); err != nil || !f.has(u.Digest) {
		t.Errorf("%v\n%s", err, f.calls())
	}
	mu.Lock()
	last, asked = http.StatusForbidden, 0
	mu.Unlock()
	s := pusher(t, ts, alice)
	for range 3 {
		if _, err := s.PushBlob(context.Background(), blobOf(1000)); !errdefs.IsPermissionDenied(s.ExplainPush(err)) {
			t.Errorf("%v", err)
		}
	}
	if asked != 1 {
		t.Errorf("a refusal was asked for %d times", asked)
	}
}

func TestManifests(t *testing.T) {
	body := []byte(`{"schemaVersion":2}`)
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(body), Size: int64(len(body))}
	f := &receiver{t: t}
	s := pusher(t, f.serve(), nil)
	for _, tag := range []string{"v1", ""} {
		if err := s.PushManifest(context.Background(), desc, body, tag, nil); err != nil {
			t.Error(err)
		}
	}
	if f.calls() != "PUT /v2/lab/x/manifests/v1\nPUT /v2/lab/x/manifests/"+desc.Digest.String() {
		t.Errorf("%s", f.calls())
	}
	lying := &receiver{t: t}
	lying.before = func(w http.ResponseWriter, _ *http.Request, _ int) bool {
		w.Header().Set("Docker-Content-Digest", digest.FromString("other").String())
		w.WriteHeader(http.StatusCreated)
		return true
	}
	s = pusher(t, lying.serve(), nil)
	if err := s.ExplainPush(s.PushManifest(context.Background(), desc, body, "v1", nil)); !errdefs.IsDataLoss(err) {
		t.Errorf("%v", err)
	}
}

// TestWordsOfRegistries are told as Docker tells them, and cannot do harm.
func TestWordsOfRegistries(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		header http.Header
		body   string
		text   string
	}{
		"denied":       {403, nil, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`, "denied: requested access to the resource is denied: you may not push to 127.0.0.1"},
		"says nothing": {403, nil, ``, "denied: requested access to the resource is denied"},
		"basic":        {401, http.Header{"Www-Authenticate": {`Basic realm="x"`}}, ``, "no basic auth credentials"},
		"unauthorized": {401, nil, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, "unauthorized: authentication required"},
		"unknown name": {404, nil, `{"errors":[{"code":"NAME_UNKNOWN","message":"The repository does not exist"}]}`, "name unknown: The repository does not exist (answered by "},
		"too large":    {413, nil, `<html>413</html>`, "takes no layer of this size"},
		"no registry":  {405, nil, `<html>405</html>`, "is it a registry that images can be pushed to?"},
		"control":      {400, nil, `{"errors":[{"code":"X","message":"\u001b[2Jgone\u0007\nnew"}]}`, "x: [2Jgone new"},
		"long":         {400, nil, `{"errors":[{"code":"X","message":"` + strings.Repeat("long", 1000) + `"}]}`, "long…"},
		"huge":         {400, nil, strings.Repeat("x", 10<<20), "answers 400 Bad Request"},
	} {
		ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for k, v := range c.header {
				w.Header()[k] = v
			}
			w.WriteHeader(c.status)
			io.WriteString(w, c.body)
		}))
		s := pusher(t, ts, nil)
		err := s.ExplainPush(s.PushManifest(context.Background(), ocispec.Descriptor{Digest: digest.FromString("")}, nil, "v1", nil))
		if err == nil || !strings.Contains(err.Error(), c.text) || len(err.Error()) > 600 || strings.ContainsFunc(err.Error(), unicode.IsControl) {
			t.Errorf("%s: %v", name, err)
		}
		ts.Close()
	}
}

func TestPushOverTLS(t *testing.T) {
	f := &receiver{t: t}
	ts := httptest.NewUnstartedServer(f)
	ts.TLS = &tls.Config{}
	ts.StartTLS()
	t.Cleanup(ts.Close)
	u := blobOf(1000)
	if _, err := pusher(t, ts, nil).PushBlob(context.Background(), u); err != nil || !f.has(u.Digest) {
		t.Errorf("%v\n%s", err, f.calls())
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add("0-100", "10", "</v2/x/tags/list?n=1&last=a>; rel=\"next\"", `{"errors":[{"code":"DENIED","message":"no"}]}`, "/v2/upload?x=y")
	f.Add("bytes=0-1", "Wed, 21 Oct 2015 07:28:00 GMT", "<http://other/>; rel=next", `{"errors":null}`, "http://elsewhere.example/")
	f.Add("0--1", "-1", "<", `[]`, "https://a@b/")
	c, err := registryclient.New(registryclient.Config{})
	if err != nil {
		f.Fatal(err)
	}
	named, _ := reference.ParseNormalizedNamed("registry.example/lab/x")
	s, err := c.OpenPush(named, nil)
	if err != nil {
		f.Fatal(err)
	}
	now := time.Unix(1e9, 0)
	f.Fuzz(func(t *testing.T, bounds, after, link, body, location string) {
		if n, ok := registryclient.LastByte(bounds); ok && n <= 0 {
			t.Errorf("%q: %d", bounds, n)
		}
		if d, ok := registryclient.RetryAfter(after, now); ok && d < 0 {
			t.Errorf("%q: %v", after, d)
		}
		if p := registryclient.NextPage(link, ""); p != "" && !strings.HasPrefix(p, "/tags/list?") {
			t.Errorf("%q: %q", link, p)
		}
		if text := registryclient.RegistrySays([]byte(body)); len(text) > 4*1000*3 || strings.ContainsFunc(text, unicode.IsControl) {
			t.Errorf("%q: %q", body, text)
		}
		if at, err := registryclient.SendsCredentials(c, s, location); err == nil && !strings.HasPrefix(at, "https://") {
			t.Errorf("%q leads to %q", location, at)
		}
	})
}

// FuzzChallenge sends whatever a registry may ask for: it must end, without credentials
// for anybody else.
func FuzzChallenge(f *testing.F) {
	for _, seed := range []string{`Basic realm="x"`, `Bearer realm="http://127.0.0.1:1/token",service="x",scope="a"`, `Bearer`, `Bearer realm="`, `Digest a=b, Basic`, "", `Bearer error="insufficient_scope",realm=":"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, challenge string) {
		if strings.Contains(challenge, "://") && !strings.Contains(challenge, "://127.0.0.1:1/") {
			t.Skip("leads away from this machine")
		}
		ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Www-Authenticate"] = []string{strings.Map(func(r rune) rune {
				if r < ' ' {
					return -1
				}
				return r
			}, challenge)}
			w.WriteHeader(http.StatusUnauthorized)
		}))
		defer ts.Close()
		s := pusher(t, ts, &registry.AuthConfig{Username: "alice", Password: "pw"})
		ctx, cancel := context.WithTimeout(context.Background(), expect.Patience)
		defer cancel()
		err := s.ExplainPush(s.PushManifest(ctx, ocispec.Descriptor{Digest: digest.FromString("")}, nil, "v1", nil))
		if err == nil || ctx.Err() != nil || strings.Contains(err.Error(), "pw") && !strings.Contains(challenge, "pw") {
			t.Errorf("%q: %v", challenge, err)
		}
	})
}
