package operate

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
)

// Who interrupts while a container is replaced loses neither container: what is asked of the engine by then is waited
// for. One whose predecessor may be gone is not removed with the anonymous volumes that it has from it.
func TestReplacementThatIsInterrupted(t *testing.T) {
	for _, refused := range []bool{false, true} {
		ctx, interrupt := context.WithCancel(t.Context())
		var mu sync.Mutex // requests come over several connections, and the one that is broken off may still be under way
		var asked []string
		api := answering(t, func(w http.ResponseWriter, r *http.Request) {
			_, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
			mu.Lock()
			asked = append(asked, r.Method+" "+path+"?"+r.URL.RawQuery)
			mu.Unlock()
			switch {
			case path == "containers/old/json":
				_ = json.NewEncoder(w).Encode(container.InspectResponse{ID: "old", HostConfig: &container.HostConfig{}})
			case path == "containers/create":
				w.WriteHeader(http.StatusCreated)
				_ = json.NewEncoder(w).Encode(container.CreateResponse{ID: "new"})
			case r.Method == http.MethodDelete && path == "containers/old":
				interrupt()
				if refused {
					panic(http.ErrAbortHandler) // nobody knows what has become of it
				}
				w.WriteHeader(http.StatusNoContent)
			default:
				w.WriteHeader(http.StatusNoContent)
			}
		})
		o := &Operator{API: api, Report: &saidSteps{}, Separator: "-"}
		web := types.ServiceConfig{Name: "web", ContainerSpec: types.ContainerSpec{Image: "web"}}
		c := &converging{Operator: o, project: &types.Project{Name: "p", Services: types.Services{"web": web}}}
		made, err := c.exchange(ctx, web, Container{Summary: container.Summary{ID: "old"}, Name: "p-web-1", Service: "web", Number: 1})
		mu.Lock()
		all := strings.Join(asked, "\n")
		mu.Unlock()
		switch {
		case refused && (err == nil || strings.Contains(all, "v=1")):
			t.Errorf("refused: %v\n%s", err, all)
		case !refused && (err != nil || made.ID != "new" || strings.Contains(all, "DELETE containers/new") || !strings.Contains(all, "POST containers/new/rename")):
			t.Errorf("%v\n%s", err, all)
		}
		interrupt()
	}
}
