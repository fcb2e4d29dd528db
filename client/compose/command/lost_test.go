package command

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/compose/operate"
	"github.com/cleatlabs/cleat/client/term"
)

// A wait whose engine goes away says so, and what can be done.
func TestWaitForAnEngineThatGoesAway(t *testing.T) {
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	defer engine.Close()
	api, err := client.New(client.WithHost("tcp://"+engine.Listener.Addr().String()), client.WithAPIVersion("1.50"))
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	a := &app{program: "cleat"}
	_, err = a.exits(t.Context(), &operate.Operator{API: api}, []operate.Container{{Summary: container.Summary{ID: "1"}, Name: "p-web-1"}}, 1)
	if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "lost the connection to the engine") {
		t.Error(err)
	}
}

// A wait is for all, and one that takes the project down for the first.
func TestWaitForSeveral(t *testing.T) {
	told := make(chan struct{})
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code := 3
		if strings.Contains(r.URL.Path, "/two/") {
			<-told
			code = 4
		}
		_, _ = fmt.Fprintf(w, `{"StatusCode": %d}`, code)
	}))
	defer engine.Close()
	api, err := client.New(client.WithHost("tcp://"+engine.Listener.Addr().String()), client.WithAPIVersion("1.50"))
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	list := []operate.Container{{Summary: container.Summary{ID: "one"}}, {Summary: container.Summary{ID: "two"}}}
	a := &app{out: term.NewOutput(io.Discard)}
	if code, err := a.exits(t.Context(), &operate.Operator{API: api}, list, 1); code != 3 || err != nil {
		t.Errorf("the first: %d, %v", code, err)
	}
	close(told)
	var said strings.Builder
	a.out = term.NewOutput(&said)
	if _, err := a.exits(t.Context(), &operate.Operator{API: api}, list, 2); err != nil ||
		!strings.Contains(said.String(), "\"one\" exited with status code 3\n") || !strings.Contains(said.String(), "\"two\" exited with status code 4\n") {
		t.Errorf("all: %q, %v", said.String(), err)
	}
}
