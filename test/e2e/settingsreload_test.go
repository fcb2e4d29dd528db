package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/test/harness"
)

// layerGate is a registry whose layers can be had only as a test wants it.
type layerGate struct {
	registry string
	proxy    *httputil.ReverseProxy

	mu     sync.Mutex
	broken bool
	asked  int // downloads of layers
	inside int // at present
	most   int // at any one time
	apart  time.Duration
	wanted int // downloads that wait for one another, apart at most
	met    chan struct{}
}

func newLayerGate(t *testing.T, images ...string) (g *layerGate, addr string) {
	t.Helper()
	g = &layerGate{registry: "http://" + harness.StartRegistry(t, images...).Addr}
	to, err := url.Parse(g.registry)
	if err != nil {
		t.Fatal(err)
	}
	g.proxy = httputil.NewSingleHostReverseProxy(to)
	s := httptest.NewServer(g)
	t.Cleanup(s.Close)
	return g, s.Listener.Addr().String()
}

// reset says how layers are served from now on.
func (g *layerGate) reset(broken bool, wanted int, apart time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.broken, g.asked, g.most, g.wanted, g.apart, g.met = broken, 0, 0, wanted, apart, make(chan struct{})
}

func (g *layerGate) counts() (asked, most int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.asked, g.most
}

func (g *layerGate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") || !g.isLayer(r.URL.Path) {
		g.proxy.ServeHTTP(w, r)
		return
	}
	g.mu.Lock()
	g.asked++
	g.inside++
	g.most = max(g.most, g.inside)
	broken, met, apart := g.broken, g.met, g.apart
	if g.inside == g.wanted {
		close(met)
		g.wanted = 0
	}
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.inside--
	}()
	if broken {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	select {
	case <-met:
	case <-time.After(apart):
	}
	g.proxy.ServeHTTP(w, r)
}

// isLayer tells layers from configurations, which are small.
func (g *layerGate) isLayer(path string) bool {
	resp, err := http.Head(g.registry + path)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.ContentLength > 8<<10
}

// TestDownloadSettingsAreReadAnew: how often and how many at a time layers are downloaded is what the file says since
// the last SIGHUP.
func TestDownloadSettingsAreReadAnew(t *testing.T) {
	g, addr := newLayerGate(t, "busybox", "hello-world")
	file := filepath.Join(t.TempDir(), "daemon.json")
	settings := func(attempts, downloads int) string {
		return fmt.Sprintf(`{"registry-mirrors": ["http://%s"], "max-download-attempts": %d, "max-concurrent-downloads": %d}`, addr, attempts, downloads)
	}
	writeSettings(t, file, settings(1, 1))
	e := harness.Start(t, harness.Options{Args: []string{"--config-file", file}})
	attempts := func(want int) {
		t.Helper()
		g.reset(true, 0, 0)
		if r := e.Docker(t, "pull", "busybox"); r.Code == 0 {
			t.Error("what cannot be downloaded was pulled")
		}
		if asked, _ := g.counts(); asked != want {
			t.Errorf("the layer was asked for %d times, want %d", asked, want)
		}
	}
	downloads := func(want int, apart time.Duration) {
		t.Helper()
		g.reset(false, 2, apart)
		var wg sync.WaitGroup
		for _, image := range []string{"busybox", "hello-world"} {
			wg.Go(func() {
				if r := e.Docker(t, "pull", image); r.Code != 0 {
					t.Errorf("pull %s: %s", image, r.Stderr)
				}
			})
		}
		wg.Wait()
		if asked, most := g.counts(); most != want || asked != 2 {
			t.Errorf("%d of %d layers were downloaded at one time, want %d", most, asked, want)
		}
		e.OK(t, "docker", "rmi", "busybox", "hello-world")
	}
	attempts(1)
	downloads(1, 300*time.Millisecond) // a second one would have come meanwhile
	writeSettings(t, file, settings(2, 2))
	hangUp(t, e, "settings have been read anew")
	attempts(2)
	downloads(2, time.Minute) // each waits for the other
	g.reset(false, 0, 0)
}
