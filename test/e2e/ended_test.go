package e2e

import "testing"

// TestEndedIsNotRunning: who was told of an exit, as by a wait, finds a container that does not run, though the engine
// still deals with the exit. go-dockerclient's users ask by a kill whether anything is left to kill.
func TestEndedIsNotRunning(t *testing.T) {
	p := plainly(t, engine(t, "busybox"))
	id := p.create(`{"Image":"busybox","Cmd":["true"]}`)
	at := "/containers/" + id
	for range 3 {
		for _, ask := range []struct{ method, path, body string }{
			{"POST", at + "/kill", ""}, {"POST", at + "/kill?signal=HUP", ""}, {"POST", at + "/exec", `{"Cmd":["true"]}`},
			{"POST", at + "/pause", ""}, {"GET", at + "/top", ""}, {"POST", at + "/resize?h=1&w=1", ""},
		} {
			p.want(204, "POST", at+"/start", "")
			p.want(200, "POST", at+"/wait", "", `"StatusCode":0`)
			p.want(409, ask.method, ask.path, ask.body, "not running")
			if t.Failed() {
				return
			}
		}
	}
}
