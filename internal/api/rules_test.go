package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	networktypes "github.com/moby/moby/api/types/network"
	volumetypes "github.com/moby/moby/api/types/volume"

	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/internal/failure"
)

func TestPing(t *testing.T) {
	d := serve(t, &fake{})
	for _, path := range []string{"/_ping", "/v1.24/_ping", "/v1.56/_ping"} {
		for method, body := range map[string]string{"GET": "OK", "HEAD": ""} {
			got := d.call(method, path, "")
			if got.status != http.StatusOK || got.body != body {
				t.Errorf("%s %s: %d %q", method, path, got.status, got.body)
			}
			for key, want := range map[string]string{
				"Content-Type":        "text/plain; charset=utf-8",
				"Cache-Control":       "no-cache, no-store, must-revalidate",
				"Pragma":              "no-cache",
				"Swarm":               "inactive",
				"Builder-Version":     "2",
				"Api-Version":         "1.56",
				"Ostype":              "linux",
				"Server":              "Docker/29.9.3 (linux)",
				"Docker-Experimental": "false",
			} {
				if got.header.Get(key) != want {
					t.Errorf("%s %s: %s is %q, want %q", method, path, key, got.header.Get(key), want)
				}
			}
		}
	}
}

func TestEveryAnswerNamesTheServer(t *testing.T) {
	d := serve(t, &fake{})
	for _, path := range []string{"/info", "/nothing", "/v9.9/info", "/containers/x/json", "/auth", "/images/json?filters={"} {
		header := d.get(path).header
		for _, key := range []string{"Api-Version", "Ostype", "Server", "Docker-Experimental"} {
			if header.Get(key) == "" {
				t.Errorf("GET %s: no %s", path, key)
			}
		}
	}
}

func TestVersions(t *testing.T) {
	d := serve(t, &fake{})
	const tooOld = "client version %s is too old. Minimum supported API version is 1.22, please upgrade your client to a newer version"
	const tooNew = "client version %s is too new. Maximum supported API version is 1.56"
	for _, test := range []struct{ version, refused string }{
		{"1.22", ""}, {"1.24", ""}, {"1.25", ""}, {"1.40", ""}, {"1.56", ""}, {"1.56.3", ""},
		{"1.57", tooNew}, {"1.100", tooNew}, {"2.0", tooNew}, {"10.1", tooNew},
		{"1.21", tooOld}, {"1.9", tooOld}, {"1", tooOld}, {"0.99", tooOld},
	} {
		got := d.get("/v" + test.version + "/info")
		if test.refused == "" {
			if got.status != http.StatusOK {
				t.Errorf("%s: %d %s", test.version, got.status, got.body)
			}
			continue
		}
		want, body, kind := fmt.Sprintf(test.refused, test.version), got.message(), "application/json"
		if test.refused == tooOld {
			body, kind = strings.TrimSuffix(got.body, "\n"), "text/plain; charset=utf-8"
		}
		if got.status != http.StatusBadRequest || body != want || got.header.Get("Content-Type") != kind {
			t.Errorf("%s: %d %q (%s), want 400 %q", test.version, got.status, body, got.header.Get("Content-Type"), want)
		}
	}
	for _, version := range []string{"1..", "99999999999999999999", "1.x"} {
		if got := d.get("/v" + version + "/info"); got.status != http.StatusBadRequest && got.status != http.StatusNotFound {
			t.Errorf("%s: %d %s", version, got.status, got.body)
		}
	}
}

func TestErrorClasses(t *testing.T) {
	f := &fake{}
	d := serve(t, f)
	const text = `it says "no" to <b> & </b>`
	for _, test := range []struct {
		err    error
		status int
	}{
		{failure.NotFound(text), 404},
		{failure.Invalid(text), 400},
		{failure.Conflict(text), 409},
		{failure.Forbidden(text), 403},
		{failure.Unavailable(text), 503},
		{failure.NotImplemented(text), 501},
		{failure.New(errdefs.ErrAlreadyExists, text), 409},
		{failure.New(errdefs.ErrFailedPrecondition, text), 409},
		{failure.New(errdefs.ErrUnauthenticated, text), 401},
		{failure.New(errdefs.ErrInternal, text), 500},
		{errors.New(text), 500},
		{failure.Wrap(errdefs.ErrConflict, failure.NotFound(text)), 409}, // the outer class decides
	} {
		f.verb = func(context.Context, string, string) error { return test.err }
		got := d.call("POST", "/containers/x/start", "")
		if got.status != test.status || got.message() != text || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("%v: %d %q, want %d with the same text", test.err, got.status, got.body, test.status)
		}
		if strings.Contains(got.body, `\u003c`) {
			t.Errorf("HTML escapes in %s", got.body)
		}
	}
}

func TestStatusesOfVerbs(t *testing.T) {
	f := &fake{resize: func(uint16, uint16) error { return nil }}
	var answer error
	f.verb = func(context.Context, string, string) error { return answer }
	f.volumes.remove = func(string, bool) error { return answer }
	f.images.tag = func(string, string, string) error { return answer }
	d := serve(t, f)
	for _, test := range []struct {
		method, path string
		err          error
		status       int
	}{
		{"POST", "/containers/x/start", nil, 204},
		{"POST", "/containers/x/start", failure.NotModified("running"), 304},
		{"POST", "/containers/x/stop", nil, 204},
		{"POST", "/containers/x/stop?t=10", failure.NotModified("stopped"), 304},
		{"POST", "/containers/x/restart", nil, 204},
		{"POST", "/containers/x/kill?signal=TERM", nil, 204},
		{"POST", "/containers/x/rename?name=y", nil, 204},
		{"DELETE", "/containers/x?force=1&v=1", nil, 204},
		{"POST", "/containers/x/resize?h=24&w=80", nil, 200},
		{"POST", "/exec/x/resize?h=24&w=80", nil, 200},
		{"DELETE", "/volumes/x", nil, 204},
		{"POST", "/images/x/tag?repo=y", nil, 201},
	} {
		answer = test.err
		got := d.call(test.method, test.path, "")
		if got.status != test.status || got.body != "" {
			t.Errorf("%s %s: %d %q, want %d without a body", test.method, test.path, got.status, got.body, test.status)
		}
	}
}

// What changes a container is not cut short by a client that leaves.
func TestVerbsOutliveTheirClient(t *testing.T) {
	entered, left, result := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	f := &fake{verb: func(ctx context.Context, _, _ string) error {
		close(entered)
		<-left
		result <- ctx.Err()
		return nil
	}}
	d := serve(t, f)
	w := d.dial()
	w.send("POST /containers/x/stop HTTP/1.1\r\nHost: x\r\n\r\n")
	<-entered
	w.Close()
	// The server has seen the end when it also has for a later client.
	d.get("/_ping")
	close(left)
	if err := <-result; err != nil {
		t.Errorf("stop's context ended with its client: %v", err)
	}
}

func TestStopOptions(t *testing.T) {
	var got engine.StopOptions
	f := &fake{
		verb:        func(context.Context, string, string) error { return nil },
		stopOptions: func(o engine.StopOptions) { got = o },
	}
	d := serve(t, f)
	text := func(o engine.StopOptions) string {
		if o.Timeout == nil {
			return o.Signal + " default"
		}
		return fmt.Sprint(o.Signal, " ", *o.Timeout)
	}
	for _, verb := range []string{"stop", "restart"} {
		for query, want := range map[string]string{
			"/v1.42/containers/x/%s?t=0&signal=INT": "INT 0",
			"/v1.41/containers/x/%s?t=7&signal=INT": " 7",
			"/v1.56/containers/x/%s?t=-1":           " -1",
			"/containers/x/%s":                      " default",
			"/containers/x/%s?t=":                   " default",
		} {
			reply := d.call("POST", fmt.Sprintf(query, verb), "")
			if reply.status != 204 || text(got) != want {
				t.Errorf("%s: %d, options %q, want %q", fmt.Sprintf(query, verb), reply.status, text(got), want)
			}
		}
		if reply := d.call("POST", "/containers/x/"+verb+"?t=soon", ""); reply.status != 400 {
			t.Errorf("%s with a bad t: %d %s", verb, reply.status, reply.body)
		}
	}
}

func TestStartWithABody(t *testing.T) {
	d := serve(t, &fake{verb: func(context.Context, string, string) error { return nil }})
	for body, status := range map[string]int{"": 204, "{}": 204, "null": 204, `{"Binds":[]}`: 400} {
		if got := d.call("POST", "/containers/x/start", body); got.status != status {
			t.Errorf("body %q: %d %s, want %d", body, got.status, got.body, status)
		}
	}
	w := d.dial()
	w.send("POST /containers/x/start HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n")
	if status, _ := w.head(); status != "HTTP/1.1 400 Bad Request" {
		t.Errorf("chunked body: %s, want 400", status)
	}
	if got := d.call("POST", "/containers/x/start?checkpoint=c", ""); got.status != 501 || !strings.Contains(got.message(), "checkpoint") {
		t.Errorf("checkpoint: %d %s", got.status, got.body)
	}
}

func TestTerminalSizes(t *testing.T) {
	var got [2]uint16
	d := serve(t, &fake{resize: func(rows, cols uint16) error { got = [2]uint16{rows, cols}; return nil }})
	for _, base := range []string{"/containers/x/resize", "/exec/x/resize"} {
		if reply := d.call("POST", base+"?h=40&w=120", ""); reply.status != 200 || got != [2]uint16{40, 120} {
			t.Errorf("%s: %d, rows and columns %v", base, reply.status, got)
		}
		for _, query := range []string{"", "?h=1", "?w=1", "?h=a&w=1", "?h=1&w=-1", "?h=65536&w=1", "?h=1.5&w=2"} {
			if reply := d.call("POST", base+query, ""); reply.status != 400 || !strings.Contains(reply.message(), "invalid resize") {
				t.Errorf("%s%s: %d %s, want 400", base, query, reply.status, reply.body)
			}
		}
	}
}

func TestBodies(t *testing.T) {
	d := serve(t, &fake{
		execCreate: func(string, container.ExecCreateRequest) (string, error) { return strings.Repeat("ab", 32), nil },
		create:     func(engine.CreateRequest) (string, []string, error) { return strings.Repeat("cd", 32), nil, nil },
	})
	for _, test := range []struct {
		path, body, kind string
		status           int
		text             string
	}{
		{"/containers/x/exec", `{"Cmd":["a"]}`, "application/json", 201, ""},
		{"/containers/x/exec", `{"Cmd":["a"],"Unknown":1}`, "application/json; charset=utf-8", 201, ""},
		{"/containers/x/exec?unknown=1", `{"Cmd":["a"]} `, "application/json", 201, ""},
		{"/containers/x/exec", `{"Cmd":["a"]}`, "text/plain", 400, "unsupported Content-Type header (text/plain): must be 'application/json'"},
		{"/containers/x/exec", `{"Cmd":["a"]}`, ";;", 400, "malformed Content-Type header"},
		{"/containers/x/exec", `{"Cmd":["a"]}{}`, "application/json", 400, "unexpected content after JSON"},
		{"/containers/x/exec", `{"Cmd":`, "application/json", 400, "invalid JSON"},
		{"/containers/x/exec", `{"Cmd":"a"}`, "application/json", 400, `invalid value of Cmd: "a" is no list`},
		{"/containers/x/exec", ` `, "application/json", 400, "invalid JSON: got EOF while reading request body"},
		{"/containers/x/exec", ``, "text/plain", 400, "unsupported Content-Type header (text/plain): must be 'application/json'"},
		{"/containers/x/update", ``, "application/json", 404, "No such thing: update:0:"},
		{"/containers/x/update", `{`, "application/json", 400, "invalid JSON: unexpected EOF"},
		{"/containers/x/exec", ``, "application/json", 400, "No exec command specified"},
		{"/containers/x/exec", `{"Cmd":[]}`, "application/json", 400, "No exec command specified"},
		{"/containers/create", ``, "application/json", 400, "invalid JSON: got EOF while reading request body"},
		{"/containers/create", `{}`, "application/json", 400, "config cannot be empty in order to create a container"},
		{"/containers/create", `{"HostConfig":{}}`, "application/json", 400, "config cannot be empty in order to create a container"},
		{"/containers/create", `{"Image":"x"}`, "application/json", 201, ""},
		{"/containers/create?%zz", `{"Image":"x"}`, "application/json", 400, "invalid query"},
	} {
		got := d.call("POST", test.path, test.body, "Content-Type", test.kind)
		if got.status != test.status || test.text != "" && !strings.HasPrefix(got.message(), test.text) {
			t.Errorf("%s %q (%s): %d %s, want %d %q", test.path, test.body, test.kind, got.status, got.body, test.status, test.text)
		}
	}
	big := `{"Cmd":["` + strings.Repeat("a", 17<<20) + `"]}`
	if got := d.call("POST", "/containers/x/exec", big); got.status != 400 || !strings.Contains(got.message(), "larger than 16 MiB") {
		t.Errorf("17 MiB body: %d %.100s", got.status, got.body)
	}
}

// A value that its field cannot hold is named with the field, whoever decodes it.
func TestValuesThatNoFieldCanHold(t *testing.T) {
	d := serve(t, &fake{})
	for _, test := range [][3]string{
		{"/networks/create", `{"IPAM":{"Config":[{},{"Subnet":"rubbish"}]}}`, `IPAM.Config[1].Subnet: "rubbish" is no subnet such as 10.1.0.0/24`},
		{"/networks/create", `{"ipam":{"config":[{"subnet":7}]}}`, `ipam.config[0].subnet: 7 is no subnet such as 10.1.0.0/24`},
		{"/networks/create", `{"IPAM":{"Config":[{"AuxiliaryAddresses":{"a":"x"}}]}}`, `IPAM.Config[0].AuxiliaryAddresses["a"]: "x" is no IP address`},
		{"/networks/x/connect", `{"EndpointConfig":{"MacAddress":"x"}}`, `EndpointConfig.MacAddress: "x" is no MAC address such as 02:42:0a:01:00:02`},
		{"/networks/x/connect", `{"EndpointConfig":{"IPAMConfig":{"LinkLocalIPs":["169.254.1.1","x"]}}}`, `EndpointConfig.IPAMConfig.LinkLocalIPs[1]: "x" is no IP address`},
		{"/containers/create", `{"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"x"}]}}}`, `HostConfig.PortBindings["80/tcp"][0].HostIp: "x" is no IP address`},
		{"/containers/create", `{"HostConfig":{"Memory":"1g"}}`, `HostConfig.Memory: "1g" is no whole number that fits`},
		{"/containers/create", `{"HostConfig":{"ConsoleSize":[-1,2]}}`, `HostConfig.ConsoleSize[0]: -1 is no whole number from 0 on that fits`},
		{"/containers/create", `{"HostConfig":{"Init":"yes"}}`, `HostConfig.Init: "yes" is neither true nor false`},
		{"/containers/create", `{"HostConfig":{"IpcMode":7}}`, `HostConfig.IpcMode: 7 is no string`},
		{"/containers/create", `{"HostConfig":{"RestartPolicy":"always"}}`, `HostConfig.RestartPolicy: "always" is no object`},
		{"/containers/create", `{"Healthcheck":{"Interval":"5s"}}`, `Healthcheck.Interval: "5s" is no number of nanoseconds`},
		{"/containers/create", `{"Env":"` + strings.Repeat("A", 100) + `"}`, `Env: "` + strings.Repeat("A", 79) + `… is no list`},
		{"/containers/x/update", `{"NanoCpus":1.5}`, `NanoCpus: 1.5 is no whole number that fits`},
	} {
		if got := d.call("POST", test[0], test[1]); got.status != 400 || got.message() != "invalid value of "+test[2] {
			t.Errorf("%s %s: %d %s", test[0], test[1], got.status, got.message())
		}
	}
	if got := d.call("POST", "/networks/create", `[]`); got.status != 400 || got.message() != "invalid JSON: [] is no object" {
		t.Errorf("a list: %d %s", got.status, got.message())
	}
}

func TestCreateAnswer(t *testing.T) {
	id := strings.Repeat("0f", 32)
	f := &fake{create: func(engine.CreateRequest) (string, []string, error) { return id, nil, nil }}
	d := serve(t, f)
	if got := d.call("POST", "/containers/create?name=web", `{"Image":"x"}`); got.status != 201 || got.body != `{"Id":"`+id+`","Warnings":[]}`+"\n" {
		t.Errorf("create: %d %s", got.status, got.body)
	}
	f.create = func(engine.CreateRequest) (string, []string, error) { return id, []string{"a < b"}, nil }
	if got := d.call("POST", "/containers/create", `{"Image":"x"}`); !strings.Contains(got.body, `"Warnings":["a < b"]`) {
		t.Errorf("create with a warning: %s", got.body)
	}
}

func TestBooleans(t *testing.T) {
	var got bool
	d := serve(t, &fake{list: func(o engine.ListOptions) ([]*container.Summary, error) { got = o.All; return nil, nil }})
	for text, want := range map[string]bool{
		"": false, "0": false, "no": false, "No": false, "false": false, "FALSE": false, "none": false, "None": false, "%20": false,
		"1": true, "true": true, "True": true, "yes": true, "t": true, "on": true, "2": true, "-1": true, "anything": true,
	} {
		if d.get("/containers/json?all=" + text); got != want {
			t.Errorf("all=%s is %t, want %t", text, got, want)
		}
	}
}

func TestFilters(t *testing.T) {
	var got map[string][]string
	f := &fake{list: func(o engine.ListOptions) ([]*container.Summary, error) { got = o.Filters; return nil, nil }}
	d := serve(t, f)
	for text, want := range map[string]string{
		"":                                 "map[]",
		"{}":                               "map[]",
		"null":                             "map[]",
		`{"label":["b=1","a"]}`:            "map[label:[a b=1]]",
		`{"label":{"a":true,"b":true}}`:    "map[label:[a b]]",
		`{"label":{"a":true,"b":false}}`:   "map[label:[a]]",
		`{"name":["x","x"],"status":null}`: "map[name:[x] status:[]]",
	} {
		reply := d.call("GET", "/containers/json?filters="+escape(text), "")
		if reply.status != 200 || fmt.Sprint(got) != want {
			t.Errorf("filters %s: %d %v, want %s", text, reply.status, got, want)
		}
	}
	// Every list refuses what it does not know, and JSON that is none.
	known := map[string]string{
		"/containers/json": "ancestor before exited expose health id is-task label name network publish since status volume",
		"/images/json":     "before dangling label label! reference since until",
		"/volumes":         "dangling driver label name",
		"/networks":        "dangling driver id label name scope type",
	}
	for path, keys := range known {
		for _, key := range strings.Fields(keys) {
			if reply := d.get(path + "?filters=" + escape(`{"`+key+`":["1"]}`)); reply.status != 200 {
				t.Errorf("%s with %s: %d %s", path, key, reply.status, reply.body)
			}
		}
		for _, bad := range []string{"{", "[]", `"x"`, "1", `{"label":1}`, `{"label":"x"}`, `{"label":[1]}`, `{}{}`, `{"label":{"a":1}}`} {
			if reply := d.get(path + "?filters=" + escape(bad)); reply.status != 400 {
				t.Errorf("%s with filters %s: %d %s, want 400", path, bad, reply.status, reply.body)
			}
		}
		if reply := d.get(path + "?filters=" + escape(`{"bogus":["1"]}`)); reply.status != 400 || !strings.HasPrefix(reply.message(), "invalid filter 'bogus'") {
			t.Errorf("%s with an unknown filter: %d %s", path, reply.status, reply.body)
		}
	}
	if reply := d.get("/v1.55/containers/json?filters=" + escape(`{"annotation":["1"]}`)); reply.status != 400 {
		t.Errorf("annotation below 1.56: %d", reply.status)
	}
	if reply := d.get("/v1.56/containers/json?filters=" + escape(`{"annotation":["1"]}`)); reply.status != 200 {
		t.Errorf("annotation from 1.56: %d", reply.status)
	}
	if reply := d.get("/events?filters=" + escape(`{"bogus":["1"]}`)); reply.status != 200 {
		t.Errorf("an unknown filter of events: %d, want 200", reply.status)
	}
}

func escape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

func TestListLimits(t *testing.T) {
	var got engine.ListOptions
	d := serve(t, &fake{list: func(o engine.ListOptions) ([]*container.Summary, error) { got = o; return nil, nil }})
	for query, want := range map[string]int{"": 0, "?limit=": 0, "?limit=0": 0, "?limit=3": 3, "?limit=-1": 0} {
		if reply := d.get("/containers/json" + query); reply.status != 200 || got.Limit != want {
			t.Errorf("%q: %d, limit %d, want %d", query, reply.status, got.Limit, want)
		}
	}
	if reply := d.get("/containers/json?limit=few"); reply.status != 400 {
		t.Errorf("limit=few: %d", reply.status)
	}
	d.get("/v1.24/containers/json?since=a&before=b&size=1")
	if !got.Size || !slices.Equal(got.Filters["since"], []string{"a"}) || !slices.Equal(got.Filters["before"], []string{"b"}) {
		t.Errorf("since, before and size as parameters: %+v", got)
	}
}

// Empty lists and maps are [] and {}, never null.
func TestNothingIsNull(t *testing.T) {
	f := &fake{
		list: func(engine.ListOptions) ([]*container.Summary, error) { return nil, nil },
	}
	d := serve(t, f)
	for path, want := range map[string]string{
		"/containers/json": "[]\n", "/images/json": "[]\n", "/v1.40/images/json": "[]\n", "/networks": "[]\n", "/networks/": "[]\n", "/v1.24/networks": "[]\n",
		"/plugins": "[]\n", "/volumes": `{"Volumes":[],"Warnings":[]}` + "\n",
	} {
		if got := d.get(path); got.status != 200 || got.body != want {
			t.Errorf("GET %s: %d %q, want %q", path, got.status, got.body, want)
		}
	}
	f.list = func(engine.ListOptions) ([]*container.Summary, error) { return []*container.Summary{{ID: "a"}}, nil }
	f.inspect = func(string, bool) (*container.InspectResponse, error) {
		return &container.InspectResponse{ID: "a"}, nil
	}
	f.networks.inspect = func(string) (networktypes.Inspect, error) { return networktypes.Inspect{}, nil }
	f.networks.list = func(map[string][]string) ([]networktypes.Summary, error) { return make([]networktypes.Summary, 1), nil }
	f.volumes.list = func(map[string][]string) ([]*volumetypes.Volume, error) {
		return []*volumetypes.Volume{{Name: "v"}}, nil
	}
	for path, keys := range map[string]string{
		"/containers/json":         `"Names":[] "Ports":[] "Labels":{} "Mounts":[] "Networks":{}`,
		"/containers/a/json":       `"Args":[] "Mounts":[] "Networks":{} "Ports":{}`,
		"/v1.24/containers/a/json": `"Args":[] "Mounts":[] "Networks":{} "Ports":{}`,
		"/networks":                `"Options":{} "Labels":{} "Config":[]`,
		"/networks/x":              `"Options":{} "Labels":{} "Config":[] "Containers":{}`,
		"/volumes":                 `"Options":{} "Labels":{}`,
	} {
		got := d.get(path)
		for _, key := range strings.Fields(keys) {
			if !strings.Contains(got.body, key) {
				t.Errorf("GET %s: no %s in %s", path, key, got.body)
			}
		}
	}
}

func TestJSONIsNotEscapedForHTML(t *testing.T) {
	d := serve(t, &fake{list: func(engine.ListOptions) ([]*container.Summary, error) {
		return []*container.Summary{{Command: "a && b < c > d", Labels: map[string]string{"<&>": "<&>"}}}, nil
	}, inspect: func(string, bool) (*container.InspectResponse, error) {
		return &container.InspectResponse{Config: &container.Config{Env: []string{"A=<&>"}}}, nil
	}})
	for path, want := range map[string]string{
		"/containers/json": `"<&>":"<&>"`, "/containers/x/json": `"A=<&>"`, "/v1.30/containers/x/json": `"A=<&>"`,
	} {
		if got := d.get(path); !strings.Contains(got.body, want) {
			t.Errorf("GET %s: no %s in %s", path, want, got.body)
		}
	}
}

func TestPanicsAreAnswered(t *testing.T) {
	f := &fake{list: func(engine.ListOptions) ([]*container.Summary, error) { panic("the sky fell") }}
	d := serve(t, f)
	for range 3 {
		got := d.get("/containers/json")
		if got.status != 500 || !strings.Contains(got.message(), "the sky fell") {
			t.Errorf("panic: %d %s", got.status, got.body)
		}
	}
	if log := d.log.String(); strings.Count(log, "the sky fell") != 3 || !strings.Contains(log, "rules_test.go") {
		t.Errorf("the log does not tell of the panics and where they were:\n%s", log)
	}
	// In the middle of an answer the connection is cut: the client must not take
	// it for a whole one.
	f.wait = func(ctx context.Context, _ container.WaitCondition) (<-chan engine.WaitResult, error) {
		return nil, nil
	}
	f.subscribe = func(time.Time, time.Time) ([]events.Message, <-chan events.Message, func()) {
		return nil, nil, func() { panic("late") }
	}
	w := d.dial()
	w.send("GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
	if status, _ := w.head(); status != "HTTP/1.1 200 OK" {
		t.Fatal(status)
	}
	d.server.Shutdown(context.Background()) // ends the stream, whose end panics
	if text, _ := io.ReadAll(w.in); strings.Contains(string(text), "0\r\n\r\n") {
		t.Errorf("a broken answer was ended as a whole one: %q", text)
	}
}

func TestErrorsOfTheEngineAreLogged(t *testing.T) {
	f := &fake{verb: func(context.Context, string, string) error { return errors.New("disk on fire") }}
	d := serve(t, f)
	d.call("POST", "/containers/x/start", "")
	if !strings.Contains(d.log.String(), "disk on fire") {
		t.Errorf("nothing in the log: %s", d.log.String())
	}
	f.verb = func(context.Context, string, string) error { return failure.NotFound("nobody home") }
	d.call("POST", "/containers/x/start", "")
	if strings.Contains(d.log.String(), "nobody home") {
		t.Errorf("a client's mistake is logged as an error")
	}
}

func TestOptions(t *testing.T) {
	d := serve(t, &fake{})
	if got := d.call("OPTIONS", "/v1.40/containers/json", ""); got.status != 200 || got.body != "" {
		t.Errorf("OPTIONS: %d %q", got.status, got.body)
	}
}
