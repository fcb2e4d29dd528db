package operate

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
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
	api := answering(t, func(w http.ResponseWriter, r *http.Request) {
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
	})
	w := &warnings{}
	o := &Operator{API: api, Report: w}
	n := o.watch(t.Context(), "p")
	defer n.close()
	err := o.await(t.Context(), n, Container{Summary: container.Summary{ID: "1"}, Name: "p-db-1", Service: "db"}, "service_healthy")
	if err != nil {
		t.Error(err)
	}
	const want = "container p-db-1, which others wait for, ends again and again: 'compose logs db' shows why; it said:\n    cannot open database"
	if len(w.said) != 1 || w.said[0] != want {
		t.Errorf("warned of %q", w.said)
	}
}

// Who waits for a dependency keeps nobody from what he does, however few may do something at a time: what it lacks may be
// just that.
func TestWaitingIsNotCounted(t *testing.T) {
	looked, comes := make(chan struct{}, 100), make(chan struct{})
	api := answering(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/events") {
			_ = http.NewResponseController(w).Flush()
			select {
			case <-comes:
				_ = json.NewEncoder(w).Encode(events.Message{Type: events.ContainerEventType, Action: events.ActionHealthStatus})
				_ = http.NewResponseController(w).Flush()
			case <-r.Context().Done():
			}
			<-r.Context().Done()
			return
		}
		state := &container.State{Status: container.StateRunning, Running: true, Health: &container.Health{Status: container.Starting}}
		select {
		case <-comes:
			state.Health.Status = container.Healthy
		default:
		}
		_ = json.NewEncoder(w).Encode(container.InspectResponse{ID: "1", Config: &container.Config{}, State: state})
		looked <- struct{}{}
	})
	o := &Operator{API: api, Report: &warnings{}, Parallel: 1}
	n := o.watch(t.Context(), "p")
	defer n.close()
	waited := make(chan error, 1)
	go func() {
		list := []Container{{Summary: container.Summary{ID: "1"}, Name: "p-db-1", Service: "db"}}
		web := types.ServiceConfig{Name: "web"}
		web.DependsOn = types.DependsOnConfig{"db": {Condition: types.ServiceConditionHealthy, Required: true}}
		waited <- o.awaitDependencies(t.Context(), n, list, &types.Project{}, web)
	}()
	<-looked
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	free, err := o.slot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	close(comes)
	if err := <-waited; err != nil {
		t.Error(err)
	}
	free()
}
