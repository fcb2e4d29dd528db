package metrics

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestWhatIsTold(t *testing.T) {
	r := New(Engine{ID: "x", Version: "28.0.0", OS: `De"bi\an`, CPUs: 2, Memory: 1 << 30}, func() Counts { return Counts{Running: 3, Stopped: 1} })
	events := make(chan int, 2)
	events <- 1
	events <- 2
	close(events)
	CountEvents(context.Background(), r, events)
	status := http.StatusNoContent
	timed := r.Time(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	ask := func(method, path string) {
		timed.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(method, path, nil))
	}
	ask("POST", "/v1.47/containers/abc/start")
	ask("POST", "/containers/abc/start")
	ask("POST", "/v1.47/containers/abc/stop")
	ask("POST", "/containers/create?name=x")
	ask("DELETE", "/v1.24/containers/abc")
	ask("GET", "/")
	status = http.StatusConflict
	ask("POST", "/containers/abc/start")
	rec := httptest.NewRecorder()
	r.ServeHTTP(rec, nil)
	text := rec.Body.String()
	for _, line := range []string{
		`engine_daemon_engine_info{architecture="",commit="",daemon_id="x",graphdriver="",kernel="",os="De\"bi\\an",os_type="",os_version="",version="28.0.0"} 1`,
		`engine_daemon_engine_cpus_cpus 2`, `engine_daemon_engine_memory_bytes 1.073741824e+09`,
		`engine_daemon_container_states_containers{state="running"} 3`, `engine_daemon_container_states_containers{state="stopped"} 1`,
		`engine_daemon_events_total 2`,
		`engine_daemon_container_actions_seconds_count{action="start"} 2`, `engine_daemon_container_actions_seconds_bucket{action="start",le="+Inf"} 2`,
		`engine_daemon_container_actions_seconds_count{action="create"} 1`, `engine_daemon_container_actions_seconds_count{action="delete"} 1`,
		`engine_daemon_container_actions_seconds_count{action="commit"} 0`, `# TYPE process_cpu_seconds_total counter`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("%s is not told in\n%s", line, text)
		}
	}
}

func TestBucketsAddUp(t *testing.T) {
	h := newHistogram()
	for _, s := range []float64{0.0005, 0.001, 0.0011, 20} {
		h.add(s)
	}
	var b strings.Builder
	h.write(&b, "x", "a")
	for _, line := range []string{`le="0.001"} 2`, `le="0.0025"} 3`, `le="10"} 3`, `le="+Inf"} 4`} {
		if !strings.Contains(b.String(), line+"\n") {
			t.Errorf("%s is not in\n%s", line, b.String())
		}
	}
}
