package command

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/compose/follow"
	"github.com/cleatlabs/cleat/client/compose/label"
	"github.com/cleatlabs/cleat/client/compose/operate"
	"github.com/cleatlabs/cleat/client/compose/show"
)

// startsWhileLogsEnd is an engine that tells of starts of other containers, one after the other, and whose logs are over at
// once.
func startsWhileLogsEnd(w http.ResponseWriter, r *http.Request) {
	switch path := r.URL.Path; {
	case strings.HasSuffix(path, "/events"):
		for i := range 10 {
			_ = json.NewEncoder(w).Encode(events.Message{Type: events.ContainerEventType, Action: events.ActionStart, Actor: events.Actor{
				ID: fmt.Sprint("other", i), Attributes: map[string]string{label.Service: "web", label.OneOff: "False"},
			}})
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
	case strings.HasSuffix(path, "/json"):
		_ = json.NewEncoder(w).Encode(container.InspectResponse{State: &container.State{}, Config: &container.Config{}})
	case strings.HasSuffix(path, "/version"):
		sayVersion(w, "Cleat")
	}
}

// sayVersion answers that the engine is this product.
func sayVersion(w io.Writer, product string) {
	_ = json.NewEncoder(w).Encode(system.VersionResponse{Components: []system.ComponentVersion{{Name: "Engine", Details: map[string]string{"Product": product}}}})
}

// What is followed ends just when something else starts: `logs -f` ends, or follows that, too.
func TestLogsEndWhileOthersStart(t *testing.T) {
	engine := httptest.NewServer(http.HandlerFunc(startsWhileLogsEnd))
	defer engine.Close()
	api, err := client.New(client.WithHost("tcp://"+engine.Listener.Addr().String()), client.WithAPIVersion("1.50"))
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	for range 100 {
		followWeb(t, api, t.Output())
	}
}

// followWeb shows the log of the container 1, which is p-web-1, and of what is started meanwhile.
func followWeb(t *testing.T, api *client.Client, out io.Writer) {
	t.Helper()
	f := &following{
		op: &operate.Operator{API: api}, engine: &follow.Engine{API: api}, logs: &show.Logs{Out: out, Err: out, NoPrefix: true},
		options: client.ContainerLogsOptions{Follow: true, ShowStdout: true},
	}
	c := operate.Container{Name: "p-web-1", Service: "web"}
	c.ID, c.Labels = "1", map[string]string{label.Project: "p"}
	if err := f.run(context.Background(), []operate.Container{c}, nil); err != nil {
		t.Fatal(err)
	}
}

// A container is started again before its log has ended: what it says from then on is shown, too, and nothing twice.
func TestLogsOfAContainerThatIsStartedBeforeItsLogEnds(t *testing.T) {
	const first, second = "2026-01-02T03:04:05.000000001Z one\n", "2026-01-02T03:04:06Z two\n"
	var inspected, opened atomic.Int32
	heard := make(chan struct{})
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; {
		case strings.HasSuffix(path, "/events"):
			_ = json.NewEncoder(w).Encode(events.Message{Type: events.ContainerEventType, Action: events.ActionStart, Actor: events.Actor{
				ID: "1", Attributes: map[string]string{label.Service: "web", label.OneOff: "False"},
			}})
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case strings.HasSuffix(path, "/json"):
			if inspected.Add(1) == 2 { // one of the two is for the event
				close(heard)
			}
			_ = json.NewEncoder(w).Encode(container.InspectResponse{State: &container.State{}, Config: &container.Config{Tty: true}})
		case strings.HasSuffix(path, "/version"):
			sayVersion(w, "Cleat")
		case opened.Add(1) == 1:
			_, _ = io.WriteString(w, first)
			w.(http.Flusher).Flush()
			<-heard
		default:
			_, _ = io.WriteString(w, first+second)
		}
	}))
	defer engine.Close()
	api, err := client.New(client.WithHost("tcp://"+engine.Listener.Addr().String()), client.WithAPIVersion("1.50"))
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	var out bytes.Buffer
	followWeb(t, api, &out)
	if out.String() != "one\ntwo\n" {
		t.Errorf("%q", out.String())
	}
}

// An engine other than Cleat may end a log before its last line: that is read once it has ended, and from Cleat nothing is
// read twice. A container that is gone by then has no more to say.
func TestLogsThatEndEarlyAreReadToTheirEnd(t *testing.T) {
	const first, second = "2026-01-02T03:04:05.000000001Z one\n", "2026-01-02T03:04:06Z two"
	for _, c := range []struct {
		product string
		gone    bool
		want    string
		reads   int32
	}{{"Cleat", false, "one\n", 1}, {"Docker", false, "one\ntwo", 2}, {"Docker", true, "one\n", 2}} {
		var reads atomic.Int32
		engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch path := r.URL.Path; {
			case strings.HasSuffix(path, "/events"):
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			case strings.HasSuffix(path, "/json"):
				_ = json.NewEncoder(w).Encode(container.InspectResponse{State: &container.State{}, Config: &container.Config{Tty: true}})
			case strings.HasSuffix(path, "/version"):
				sayVersion(w, c.product)
			case reads.Add(1) == 1:
				_, _ = io.WriteString(w, first)
			case c.gone:
				http.Error(w, `{"message":"No such container: 1"}`, http.StatusNotFound)
			case r.URL.Query().Get("follow") == "":
				_, _ = io.WriteString(w, first+second)
			}
		}))
		api, err := client.New(client.WithHost("tcp://"+engine.Listener.Addr().String()), client.WithAPIVersion("1.50"))
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		followWeb(t, api, &out)
		if strings.TrimSuffix(out.String(), "\n") != strings.TrimSuffix(c.want, "\n") || reads.Load() != c.reads {
			t.Errorf("%s: %q in %d reads", c.product, out.String(), reads.Load())
		}
		_ = api.Close()
		engine.Close()
	}
}
