package cli_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// A container is offered in whatever state it is, and so are the objects of commands that are Cleat's own.
func TestCompletedNames(t *testing.T) {
	states := []string{"created", "running", "paused", "restarting", "removing", "exited", "dead"}
	host := serveUnix(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/containers/json"):
			var list []string
			for _, s := range states {
				if r.URL.Query().Get("all") == "1" || s == "running" || s == "paused" || s == "restarting" {
					list = append(list, fmt.Sprintf(`{"Names":["/is-%s"],"State":%[1]q}`, s))
				}
			}
			fmt.Fprintf(w, "[%s]", strings.Join(list, ","))
		case strings.HasSuffix(r.URL.Path, "/volumes"):
			fmt.Fprint(w, `{"Volumes":[{"Name":"data"}]}`)
		default:
			http.NotFound(w, r)
		}
	})
	all := "is-created is-dead is-exited is-paused is-removing is-restarting is-running"
	for line, want := range map[string]string{
		"logs": all, "rm": all, "inspect": all, "run --volumes-from": all, "network check": all, "stop": "is-paused is-restarting is-running", "start": "is-created is-exited",
		"volume clone": "data", "volume rename": "data", "volume snapshot": "data", "volume snapshots": "data", "volume restore": "data", "volume export": "data",
	} {
		r := call(t, program, host, "", append(append([]string{"__completeNoDesc"}, strings.Fields(line)...), "")...)
		names, _, _ := strings.Cut(r.stdout, "\n:")
		if got := strings.Join(strings.Fields(names), " "); got != want {
			t.Errorf("%s: %q, want %q (%s)", line, got, want, r.stderr)
		}
	}
}
