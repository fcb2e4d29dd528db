package command

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/compose/label"
	"github.com/cleatlabs/cleat/client/compose/operate"
)

// What was started again while the session was held is told by an event that comes after the answer: until it has come,
// nothing is known to run, and the session goes on all the same.
func TestASessionWaitsForTheEventsOfWhatRuns(t *testing.T) {
	state := container.StateRunning
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode([]container.Summary{{
			ID: "1", Names: []string{"/p-web-1"}, State: state, Labels: map[string]string{label.Project: "p", label.Service: "web", label.OneOff: "False"},
		}})
	}))
	defer engine.Close()
	api, err := client.New(client.WithHost("tcp://"+engine.Listener.Addr().String()), client.WithAPIVersion("1.50"))
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	s := &session{
		o: &operate.Operator{API: api}, p: &types.Project{Name: "p", Services: types.Services{"web": {Name: "web"}}},
		live: map[string]int{}, due: map[string]bool{}, ended: make(chan struct{}),
	}
	over := func() bool {
		select {
		case <-s.ended:
			return true
		default:
			return false
		}
	}
	s.hold()
	s.settle()
	if over() {
		t.Fatal("ended while it was held")
	}
	s.release()
	if over() {
		t.Fatal("ended before the event of a container that runs has come")
	}
	state = container.StateExited
	s.settle()
	if !over() {
		t.Fatal("goes on though nothing runs")
	}
}
