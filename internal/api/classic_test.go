package api_test

import (
	"context"
	"encoding/base64"
	"io"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/jsonstream"

	"github.com/cleatlabs/cleat/internal/classic"
	"github.com/cleatlabs/cleat/internal/failure"
)

// fakeClassic is a classic builder that prints its context and ends with an error.
type fakeClassic struct {
	request classic.Request
	err     error
}

func (f *fakeClassic) Build(_ context.Context, req classic.Request, emit func(jsonstream.Message)) error {
	body, err := io.ReadAll(req.Context)
	if err != nil {
		return err
	}
	f.request = req
	if len(body) > 0 {
		emit(jsonstream.Message{Stream: string(body)})
	}
	return f.err
}

func TestClassicBuilds(t *testing.T) {
	const stream = `{"stream":"the files"}` + "\n"
	step := &jsonstream.Error{Code: 3, Message: "the command failed"}
	record := `{"errorDetail":{"code":3,"message":"the command failed"},"error":"the command failed"}` + "\n"
	for _, c := range []struct {
		name, path, body string
		err              error
		status           int
		answer           string
	}{
		{"by version", "/v1.50/build?version=1", "the files", nil, 200, stream},
		{"by default", "/v1.50/build", "the files", nil, 200, stream},
		{"before BuildKit", "/v1.24/build?version=2", "the files", nil, 200, stream},
		{"a failing step", "/build", "the files", step, 200, stream + record},
		{"a step that fails silently", "/build", "", step, 200, record},
		{"a bad request", "/build", "", failure.Invalid("unknown instruction"), 400, `{"message":"unknown instruction"}` + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fake{classic: fakeClassic{err: c.err}}
			got := serve(t, f).call("POST", c.path, c.body)
			if got.status != c.status || got.body != c.answer {
				t.Errorf("%d %s", got.status, got.body)
			}
		})
	}
}

func TestClassicBuildOptions(t *testing.T) {
	f := &fake{}
	d := serve(t, f)
	if got := d.call("POST", "/build?q=1&t=a&dockerfile=D", ""); got.status != 200 || !f.classic.request.Quiet || f.classic.request.Tags[0] != "a" || f.classic.request.Dockerfile != "D" {
		t.Errorf("%d %+v", got.status, f.classic.request)
	}
	header := base64.URLEncoding.EncodeToString([]byte(`{"registry.test":{"username":"u"}}`))
	if got := d.call("POST", "/build", "", "X-Registry-Config", header); got.status != 200 || f.classic.request.Credentials["registry.test"].Username != "u" {
		t.Errorf("%d %+v", got.status, f.classic.request)
	}
	if got := d.call("POST", "/build", "", "X-Registry-Config", "%"); got.status != 400 || !strings.Contains(got.message(), "X-Registry-Config") {
		t.Errorf("%d %s", got.status, got.body)
	}
}
