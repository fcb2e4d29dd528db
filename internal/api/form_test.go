package api_test

import (
	"context"
	"slices"
	"testing"

	"github.com/moby/moby/api/types/jsonstream"

	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/internal/image"
)

// Parameters may come as a form, as dockerd takes them.
func TestForms(t *testing.T) {
	const kind = "application/x-www-form-urlencoded"
	for _, test := range []struct{ path, body, kind, call string }{
		{"/containers/x/kill", "signal=HUP", kind, "kill:HUP x"},
		{"/containers/x/kill?signal=TERM", "", kind, "kill:TERM x"},
		{"/containers/x/kill?signal=TERM", "signal=HUP", kind, "kill:HUP x"},
		{"/containers/x/kill?signal=TERM", "x=1", kind + "; charset=utf-8", "kill:TERM x"},
		{"/containers/x/kill?signal=TERM", "signal=HUP", "text/plain", "kill:TERM x"},
		{"/containers/x/rename", "name=a%2Bb", kind, "rename:a+b x"},
	} {
		f := &fake{verb: func(context.Context, string, string) error { return nil }}
		got := serve(t, f).call("POST", test.path, test.body, "Content-Type", test.kind)
		if got.status != 204 || !slices.Equal(f.calls, []string{test.call}) {
			t.Errorf("%s with %q: %d %s, called %q, want %q", test.path, test.body, got.status, got.body, f.calls, test.call)
		}
	}
	f := &fake{verb: func(context.Context, string, string) error { return nil }}
	if got := serve(t, f).call("POST", "/containers/x/kill", "signal=%zz", "Content-Type", kind); got.status != 400 || f.callCount() > 0 {
		t.Errorf("a form that is none: %d %s, called %q", got.status, got.body, f.calls)
	}
}

// What is posted to an import is an archive, whatever it is called: curl calls all that it sends a form.
func TestFormsOfImageCreate(t *testing.T) {
	const kind = "application/x-www-form-urlencoded"
	f := &fake{}
	var pulled, imported string
	f.images.pull = func(_ context.Context, req image.PullRequest, _ func(jsonstream.Message)) error {
		pulled = req.Ref + ":" + req.Tag
		return nil
	}
	f.images.imported = func(req engine.ImportRequest, body string) { imported = req.Repo + " of " + body }
	d := serve(t, f)
	if got := d.call("POST", "/images/create", "fromImage=nginx&tag=1", "Content-Type", kind); got.status != 200 || pulled != "nginx:1" {
		t.Errorf("a pull: %d %s, pulled %s", got.status, got.body, pulled)
	}
	if got := d.call("POST", "/images/create?fromSrc=-&repo=x", "a=b&%zz", "Content-Type", kind); got.status != 200 || imported != "x of a=b&%zz" {
		t.Errorf("an import: %d %s, imported %s", got.status, got.body, imported)
	}
}
