package cli_test

import (
	"net/http"
	"strings"
	"testing"
)

// Templates that ask for what versions of the API have dropped, one after the other, are answered by the last that has it.
func TestTemplatesOfFormerFields(t *testing.T) {
	host := serveUnix(t, func(w http.ResponseWriter, r *http.Request) {
		switch version := strings.Split(r.URL.Path, "/")[1]; version {
		case "v1.43":
			_, _ = w.Write([]byte(`{"Id":"i","Size":7,"VirtualSize":7,"ContainerConfig":{"Cmd":["sh"]},"Parent":"p"}`))
		case "v1.51":
			_, _ = w.Write([]byte(`{"Id":"i","Size":7,"Parent":"p"}`))
		default:
			_, _ = w.Write([]byte(`{"Id":"i","Size":7}`))
		}
	})
	for template, want := range map[string]string{"{{.VirtualSize}}": "7", "{{.Parent}}/{{.VirtualSize}}": "p/7", "{{.Parent}}": "p", "{{.ContainerConfig.Cmd}}": "[sh]", "{{.Size}}": "7"} {
		if r := call(t, program, host, "", "image", "inspect", "-f", template, "nginx"); r.code != 0 || r.stdout != want+"\n" {
			t.Errorf("%s: %+v", template, r)
		}
	}
	if r := call(t, program, host, "", "image", "inspect", "-f", "{{.Nope}}", "nginx"); r.code != 1 || !strings.Contains(r.stderr, `"Nope"`) {
		t.Errorf("what no version has: %+v", r)
	}
}
