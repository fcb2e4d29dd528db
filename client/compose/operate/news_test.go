package operate

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/moby/moby/client"
)

// answering is the client of an engine that answers by handler.
func answering(t *testing.T, handler http.HandlerFunc) *client.Client {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	api, err := client.New(client.WithHost("tcp://"+s.Listener.Addr().String()), client.WithAPIVersion("1.50"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { api.Close() })
	return api
}

// Whoever waits for something to happen is told when nothing will be heard of it any more, also where the engine, which
// has returned at once, answers all that it is asked.
func TestNewsThatBreakOff(t *testing.T) {
	api := answering(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	n := (&Operator{API: api}).watch(t.Context(), "p")
	defer n.close()
	if err := n.until(t.Context(), func() (bool, error) { return false, nil }); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}
