package command

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/client/compose/operate"
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
	_, err = a.firstExit(t.Context(), &operate.Operator{API: api}, []operate.Container{{Summary: container.Summary{ID: "1"}, Name: "p-web-1"}})
	if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "lost the connection to the engine") {
		t.Error(err)
	}
}
