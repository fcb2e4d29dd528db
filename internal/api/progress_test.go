package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/jsonstream"

	"github.com/cleatlabs/cleat/internal/image"
)

// A client that reads nothing for a while, as one that was suspended, does not hold up the work: all pulls share their
// downloads. It gets each step in its turn and of the counts the newest.
func TestAPullDoesNotWaitForItsClient(t *testing.T) {
	const counts = 20_000
	done := make(chan struct{})
	d := serve(t, &fake{images: fakeImages{pull: func(_ context.Context, _ image.PullRequest, emit func(jsonstream.Message)) error {
		defer close(done)
		for _, layer := range []string{"aaa", "bbb"} {
			emit(jsonstream.Message{ID: layer, Status: "Pulling fs layer", Progress: &jsonstream.Progress{}})
			for i := range counts {
				emit(jsonstream.Message{ID: layer, Status: "Downloading", Progress: &jsonstream.Progress{Current: int64(i) + 1, Total: counts}})
			}
			emit(jsonstream.Message{ID: layer, Status: "Pull complete", Progress: &jsonstream.Progress{}})
		}
		return errors.New("at last")
	}}})
	w := d.dial()
	w.send("POST /images/create?fromImage=busybox HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	ended(t, "the pull", done)
	resp, err := http.ReadResponse(w.in, nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp, err)
	}
	defer resp.Body.Close()
	records := json.NewDecoder(resp.Body)
	var steps []string
	last, most := int64(0), 0
	for {
		var m jsonstream.Message
		if err := records.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if m.Progress != nil && m.Progress.Current > 0 {
			if most++; m.Progress.Current <= last {
				t.Fatalf("%d comes after %d", m.Progress.Current, last)
			}
			last = m.Progress.Current
			continue
		}
		if m.Status == "Pull complete" && last != counts {
			t.Errorf("%s is complete after %d of %d", m.ID, last, counts)
		}
		last = 0
		steps = append(steps, strings.TrimSpace(m.ID+" "+m.Status))
		if m.Error != nil {
			steps = append(steps, m.Error.Message)
		}
	}
	want := []string{"aaa Pulling fs layer", "aaa Pull complete", "bbb Pulling fs layer", "bbb Pull complete", "", "at last"}
	if fmt.Sprint(steps) != fmt.Sprint(want) {
		t.Errorf("steps %q", steps)
	}
	if most > counts/2 {
		t.Errorf("%d counts wait for a client that reads nothing", most)
	}
}
