package operate

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"
)

// warnings are what a reporter was warned of.
type warnings struct{ said []string }

func (*warnings) Report(string, string, string) {}

func (w *warnings) Warn(text string) { w.said = append(w.said, text) }

// A container that ends again and again is told of once, with what it said last, and waited for all the same: what it
// lacks may come. How often it was started again before anybody waited for it does not count.
func TestContainerThatEndsAgainAndAgain(t *testing.T) {
	looked := make(chan struct{}, 100)
	count := 50
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/events"):
			_ = http.NewResponseController(w).Flush()
			for {
				select {
				case <-looked:
				case <-r.Context().Done():
					return
				}
				_ = json.NewEncoder(w).Encode(events.Message{Type: events.ContainerEventType, Action: events.ActionDie})
				_ = http.NewResponseController(w).Flush()
			}
		case strings.HasSuffix(r.URL.Path, "/logs"):
			_, _ = w.Write([]byte("cannot open database\n"))
		default:
			state := &container.State{Status: container.StateRestarting, Running: true, Health: &container.Health{Status: container.Unhealthy}}
			if count == 70 {
				state.Status, state.Health.Status = container.StateRunning, container.Healthy
			}
			_ = json.NewEncoder(w).Encode(container.InspectResponse{ID: "1", RestartCount: count, Config: &container.Config{Tty: true}, State: state})
			count++
			looked <- struct{}{}
		}
	}))
	defer s.Close()
	api, err := client.New(client.WithHost("tcp://"+s.Listener.Addr().String()), client.WithAPIVersion("1.50"))
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	w := &warnings{}
	o := &Operator{API: api, Report: w}
	n := o.watch(t.Context(), "p")
	defer n.close()
	err = o.await(t.Context(), n, Container{Summary: container.Summary{ID: "1"}, Name: "p-db-1", Service: "db"}, "service_healthy")
	if err != nil {
		t.Error(err)
	}
	const want = "container p-db-1, which others wait for, ends again and again: 'compose logs db' shows why; it said:\n    cannot open database"
	if len(w.said) != 1 || w.said[0] != want {
		t.Errorf("warned of %q", w.said)
	}
}
