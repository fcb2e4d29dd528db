package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestClosedWhileItIsRead: what the reader of an answer is told when the answer is closed beside it is known as that.
// Which of the two it is depends on the moment.
func TestClosedWhileItIsRead(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "x")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	defer srv.Close()
	answer := func() io.ReadCloser {
		r, err := srv.Client().Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		return r.Body
	}
	before := answer()
	_ = before.Close()
	_, err := before.Read(make([]byte, 1))
	if err == nil || !isClosedHere(err) {
		t.Errorf("closed before: %v", err)
	}
	during := answer()
	if _, err := io.ReadFull(during, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	told := make(chan error)
	go func() {
		_, err := during.Read(make([]byte, 1))
		told <- err
	}()
	_ = during.Close()
	if err := <-told; err == nil || !isClosedHere(fmt.Errorf("logs: %w", err)) {
		t.Errorf("closed during: %v", err)
	}
	for _, other := range []error{io.ErrUnexpectedEOF, errors.New("no space left"), context.Canceled} {
		if isClosedHere(other) {
			t.Errorf("%v is taken for it", other)
		}
	}
}
