package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"github.com/cleatlabs/cleat/test/harness"
)

// plain is an HTTP client of an engine that hides nothing: some promises are
// about status codes and bodies that client libraries do not show.
type plain struct {
	*testing.T
	http *http.Client
}

func plainly(t *testing.T, e *harness.Engine) *plain {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", e.Socket)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &plain{t, &http.Client{Transport: transport, Timeout: harness.Patience}}
}

func (p *plain) call(method, path, body string) (int, string) {
	p.Helper()
	req, err := http.NewRequest(method, "http://engine"+path, bytes.NewBufferString(body))
	if err != nil {
		p.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := p.http.Do(req)
	if err != nil {
		p.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		p.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, string(text)
}

// want calls and compares the status; a text must be in the body, "" is no body.
func (p *plain) want(status int, method, path, body string, text ...string) string {
	p.Helper()
	got, answer := p.call(method, path, body)
	if got != status {
		p.Errorf("%s %s %s: %d %s, want %d", method, path, body, got, answer, status)
	}
	for _, s := range text {
		if s == "" && answer != "" || !strings.Contains(answer, s) {
			p.Errorf("%s %s: %q, want %q in it", method, path, answer, s)
		}
	}
	return answer
}

func (p *plain) create(body string) string {
	p.Helper()
	var created struct{ Id string }
	answer := p.want(201, "POST", "/containers/create", body)
	if err := json.Unmarshal([]byte(answer), &created); err != nil || len(created.Id) != 64 {
		p.Fatalf("create: %s", answer)
	}
	p.Cleanup(func() { p.call("DELETE", "/containers/"+created.Id+"?force=1&v=1", "") })
	return created.Id
}

// TestPlacesWhereNothingCanBe: what an image has in a mount's way, or a name that is too long, is no failure of the engine's.
func TestPlacesWhereNothingCanBe(t *testing.T) {
	p := plainly(t, engine(t, "busybox"))
	for _, place := range []string{"/etc/passwd/x", "/" + strings.Repeat("n", 256)} {
		for _, asked := range []string{`"HostConfig":{"Binds":["/tmp:%s"]}`, `"HostConfig":{"Tmpfs":{"%s":""}}`, `"Volumes":{"%s":{}}`} {
			id := p.create(`{"Image":"busybox","Cmd":["true"],` + fmt.Sprintf(asked, place) + `}`)
			p.want(400, "POST", "/containers/"+id+"/start", "")
			if !strings.Contains(asked, "Tmpfs") { // which there is none of in a stopped container
				p.want(400, "GET", "/containers/"+id+"/archive?path="+place, "")
			}
			p.want(204, "DELETE", "/containers/"+id+"?v=1", "", "")
		}
	}
}

func TestStatusCodesOfAContainersLife(t *testing.T) {
	p := plainly(t, engine(t, "busybox"))
	n := name(t)
	id := p.create(`{"Image":"busybox","Cmd":["sleep","600"]}`)
	at := "/containers/" + id
	p.want(304, "POST", at+"/stop", "", "")
	p.want(409, "POST", at+"/kill", "", "is not running")
	p.want(409, "POST", at+"/resize?h=1&w=1", "")
	p.want(409, "POST", at+"/exec", `{"Cmd":["true"]}`, "is not running")
	p.want(204, "POST", at+"/start", "", "")
	p.want(304, "POST", at+"/start", "", "")
	p.want(409, "DELETE", at, "", "running")
	p.want(400, "POST", at+"/kill?signal=NOPE", "", "NOPE")
	p.want(204, "POST", at+"/kill?signal=SIGCONT", "", "")
	p.want(204, "POST", at+"/kill?signal=18", "", "")
	p.want(204, "POST", at+"/restart?t=0", "", "")
	for _, body := range []string{`{"Cmd":["echo","a\u0000b"]}`, `{"Cmd":["true"],"Env":["A=\u0000"]}`, `{"Cmd":["true"],"WorkingDir":"/tmp\u0000"}`} {
		p.want(400, "POST", at+"/exec", body, "zero byte")
	}
	p.want(204, "POST", at+"/rename?name="+n, "", "")
	p.want(400, "POST", at+"/rename?name=", "")
	p.want(400, "POST", at+"/rename?name="+n, "")
	p.want(400, "POST", at+"/rename?name=a/b", "")
	other := p.create(`{"Image":"busybox"}`)
	p.want(409, "POST", "/containers/"+other+"/rename?name="+n, "", id)
	p.want(409, "POST", "/containers/create?name="+n, `{"Image":"busybox"}`, "is already in use by container", id)
	p.want(200, "GET", "/containers/"+n+"/json", "", `"Id":"`+id+`"`)
	p.want(200, "GET", "/containers/%2F"+n+"/json", "", `"Id":"`+id+`"`)
	p.want(200, "GET", "/containers/"+id[:10]+"/json", "", `"Id":"`+id+`"`)
	p.want(204, "POST", at+"/stop?t=0", "", "")
	p.want(200, "POST", at+"/wait", "", `{"StatusCode":137}`)
	p.want(204, "POST", at+"/restart", "", "") // a stopped one is started
	p.want(204, "POST", at+"/kill", "", "")
	p.want(409, "POST", at+"/kill", "") // it has ended when kill has answered
	p.want(204, "DELETE", at, "", "")
	for _, call := range []string{
		"GET /json", "POST /start", "POST /stop", "POST /restart", "POST /kill", "POST /wait", "POST /rename?name=y", "POST /resize?h=1&w=1",
		"POST /attach?stream=1", "GET /logs?stdout=1", "DELETE ", "DELETE ?force=1", "GET /attach/ws",
	} {
		method, suffix, _ := strings.Cut(call, " ")
		p.want(404, method, at+suffix, "", `{"message":"No such container: `+id+`"}`)
	}
	p.want(404, "POST", at+"/exec", `{"Cmd":["true"]}`, "No such container: "+id)
	p.want(404, "POST", "/exec/"+id+"/start", "", "No such exec instance: "+id)
	p.want(404, "GET", "/exec/"+id+"/json", "", "No such exec instance: "+id)
}

// A failed create leaves nothing, and tells what is wrong.
func TestBadCreates(t *testing.T) {
	e := engine(t, "busybox")
	p, before := plainly(t, e), e.Things(t)
	for _, test := range []struct {
		status     int
		body, text string
	}{
		{404, `{"Image":"nosuch"}`, `No such image: nosuch:latest`},
		{400, `{"Image":"Ubuntu"}`, `lowercase`},
		{400, `{"Image":"busybox","Cmd":[],"Entrypoint":[""]}`, `no command specified`},
		{400, `{"Image":"busybox","WorkingDir":"relative"}`, `relative`},
		{400, `{"Image":"busybox","HostConfig":{"CapAdd":["NET_NONSENSE"]}}`, `NET_NONSENSE`},
		{400, `{"Image":"busybox","HostConfig":{"AutoRemove":true,"RestartPolicy":{"Name":"always"}}}`, `restart policy`},
		{400, `{"Image":"busybox","HostConfig":{"RestartPolicy":{"Name":"sometimes"}}}`, `sometimes`},
		{400, `{"Image":"busybox","HostConfig":{"Binds":["/a:relative"]}}`, `relative`},
		{400, `{"Image":"busybox","HostConfig":{"Binds":["/a:/b:bogus"]}}`, `bogus`},
		{400, `{"Image":"busybox","HostConfig":{"Mounts":[{"Type":"bind","Source":"/no/such/source","Target":"/b"}]}}`, `/no/such/source`},
		{400, `{"Image":"busybox","HostConfig":{"Mounts":[{"Type":"tmpfs","Target":"/b"},{"Type":"tmpfs","Target":"/b/"}]}}`, `Duplicate mount point`},
		{400, `{"Image":"busybox","Volumes":{"/v":{}},"HostConfig":{"LogConfig":{"Type":"splunk"}}}`, `splunk`},
		{400, `{"Image":"busybox","HostConfig":{"LogConfig":{"Type":"json-file","Config":{"bogus":"1"}}}}`, `bogus`},
		{400, `{"Image":"busybox","HostConfig":{"Memory":1}}`, `Minimum memory limit`},
		{400, `{"Image":"busybox","HostConfig":{"Sysctls":{"kernel.bogus":"1"}}}`, `kernel.bogus`},
		{400, `{"Image":"busybox","HostConfig":{"SecurityOpt":["bogus=1"]}}`, `bogus`},
	} {
		p.want(test.status, "POST", "/containers/create", test.body, test.text, `{"message":"`)
	}
	// Options whose effect is not to be had are refused by name.
	for _, test := range []struct {
		status     int
		host, text string
	}{
		{400, `"NetworkMode":"container:nosuch"`, "No such container: nosuch"},
		{400, `"Runtime":"kata"`, "unknown or invalid runtime name: kata"},
		{400, `"Links":["nosuch:b"]`, "nosuch"},
		{400, `"Mounts":[{"Type":"volume","Source":"vol","Target":"/v","VolumeOptions":{"DriverConfig":{"Name":"nosuch"}}}]`, `plugin \"nosuch\" not found`},
		{400, `"Mounts":[{"Type":"npipe","Source":"x","Target":"/v"}]`, `type \"npipe\"`},
		{400, `"Mounts":[{"Type":"cluster","Source":"vol","Target":"/v"}]`, `type \"cluster\"`},
		{400, `"UsernsMode":"odd"`, "invalid userns mode: odd"},
		{400, `"Isolation":"hyperv"`, "hyperv"},
		{501, `"CpuCount":3`, "HostConfig.CpuCount is not supported"},
		{501, `"CpuPercent":3`, "HostConfig.CpuPercent is not supported"},
		{501, `"IOMaximumIOps":3`, "HostConfig.IOMaximumIOps is not supported"},
		{501, `"IOMaximumBandwidth":3`, "HostConfig.IOMaximumBandwidth is not supported"},
		{400, `"StorageOpt":{"odd":"1"}`, "odd"},
		{400, `"SecurityOpt":["seccomp={\"defaultAction\":\"NONE\"}"]`, `{"message":"seccomp profile: default action: unknown action \"NONE\""}`},
	} {
		p.want(test.status, "POST", "/containers/create", `{"Image":"busybox","HostConfig":{`+test.host+`}}`, test.text, `{"message":"`)
	}
	e.NothingNew(t, before)
}

// The same container as clients of each version see it.
func TestEveryVersionIsServed(t *testing.T) {
	p := plainly(t, engine(t, "busybox"))
	id := p.create(`{"Image":"busybox","Cmd":["sleep","600"],"ExposedPorts":{"80/tcp":{}}}`)
	p.want(204, "POST", "/containers/"+id+"/start", "")
	for minor := 24; minor <= 56; minor++ {
		base := fmt.Sprintf("/v1.%d", minor)
		var inspected struct {
			Id              string
			NetworkSettings map[string]any
			State           struct{ Status string }
		}
		answer := p.want(200, "GET", base+"/containers/"+id+"/json", "")
		if err := json.Unmarshal([]byte(answer), &inspected); err != nil {
			t.Fatalf("1.%d: %v", minor, err)
		}
		networks, _ := inspected.NetworkSettings["Networks"].(map[string]any)
		bridge, _ := networks["bridge"].(map[string]any)
		address, _ := bridge["IPAddress"].(string)
		top, found := inspected.NetworkSettings["IPAddress"]
		if inspected.Id != id || inspected.State.Status != "running" || address == "" || found != (minor < 52) || found && top != address {
			t.Errorf("1.%d: %s %s, address %q, at the top %v", minor, inspected.Id, inspected.State.Status, address, top)
		}
		for _, path := range []string{"/containers/json", "/images/json", "/images/busybox/json", "/info", "/version", "/networks", "/networks/bridge", "/volumes", "/events?until=1"} {
			answer := p.want(200, "GET", base+path, "")
			if !json.Valid([]byte(answer)) && path != "/events?until=1" {
				t.Errorf("%s%s: %q", base, path, answer)
			}
		}
		var created struct{ Id string }
		answer = p.want(201, "POST", base+"/containers/create", `{"Image":"busybox","Cmd":["true"],"HostConfig":{"NetworkMode":"none"}}`)
		if err := json.Unmarshal([]byte(answer), &created); err != nil {
			t.Fatalf("1.%d: %v", minor, err)
		}
		p.want(204, "POST", base+"/containers/"+created.Id+"/start", "", "")
		p.want(200, "POST", base+"/containers/"+created.Id+"/wait", "", `"StatusCode":0`)
		p.want(204, "DELETE", base+"/containers/"+created.Id, "", "")
	}
}

func TestFailedStarts(t *testing.T) {
	p := plainly(t, engine(t, "busybox"))
	for command, code := range map[string]int{"no-such-command": 127, "/etc/passwd": 126} {
		id := p.create(fmt.Sprintf(`{"Image":"busybox","Cmd":[%q]}`, command))
		p.want(400, "POST", "/containers/"+id+"/start", "", command)
		p.want(200, "GET", "/containers/"+id+"/json", "", fmt.Sprintf(`"ExitCode":%d`, code), `"Status":"created"`, command)
	}
}

// A terminal in a browser: attach in WebSocket frames.
func TestAttachByWebsocket(t *testing.T) {
	e := engine(t, "busybox")
	p := plainly(t, e)
	id := p.create(`{"Image":"busybox","Cmd":["cat"],"OpenStdin":true}`)
	p.want(204, "POST", "/containers/"+id+"/start", "")
	for _, text := range []string{"first visit\n", "second visit\n"} {
		config, err := websocket.NewConfig("ws://engine/v1.44/containers/"+id+"/attach/ws?stream=1&stdin=1&stdout=1", "http://engine")
		if err != nil {
			t.Fatal(err)
		}
		raw, err := net.Dial("unix", e.Socket)
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		if err := raw.SetDeadline(time.Now().Add(harness.Patience)); err != nil {
			t.Fatal(err)
		}
		conn, err := websocket.NewClient(config, raw)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(text))
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
			t.Errorf("%q %v, want %q", got, err, text)
		}
		conn.Close()
		p.want(200, "GET", "/containers/"+id+"/json", "", `"Running":true`) // it does not end with its visitor
	}
}

// attachInOneWrite attaches to streams of a container with one write, which has the input behind the request, and closes
// its half at once. It returns what comes behind the status line.
func attachInOneWrite(t *testing.T, e *harness.Engine, id, streams, input string) *bufio.Reader {
	t.Helper()
	raw, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: e.Socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	if err := raw.SetDeadline(time.Now().Add(harness.Patience)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(raw, "POST /v1.44/containers/%s/attach?stream=1&%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n%s", id, streams, input)
	if err := raw.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(raw)
	if status, err := in.ReadString('\n'); err != nil || status != "HTTP/1.1 101 UPGRADED\r\n" {
		t.Fatalf("%q %v", status, err)
	}
	return in
}

// A program that has closed its output has nothing more to say: who attaches then waits for its end, and not for the next
// run. At the end of every program there is such a moment.
func TestAttachEndsWithTheRun(t *testing.T) {
	e := engine(t, "busybox")
	p := plainly(t, e)
	id := e.OK(t, "cleat", "run", "-d", "busybox", "sh", "-c", "echo last words; exec sleep 1000 >/dev/null 2>&1")
	harness.Eventually(t, func() (bool, string) {
		said := e.Cleat(t, "logs", id).Stdout
		return said == "last words\n", said
	})
	in := attachInOneWrite(t, e, id, "stdout=1&stderr=1", "")
	p.want(204, "POST", "/containers/"+id+"/kill", "")
	if _, err := io.ReadAll(in); err != nil {
		t.Errorf("the attachment has not ended: %v", err)
	}
}

// Input that comes together with the request, and a client that half-closes at
// once, as `nc -N` does.
func TestAttachInOneWrite(t *testing.T) {
	e := engine(t, "busybox")
	p := plainly(t, e)
	id := p.create(`{"Image":"busybox","Cmd":["cat"],"OpenStdin":true,"StdinOnce":true}`)
	in := attachInOneWrite(t, e, id, "stdin=1&stdout=1", "all at once")
	p.want(204, "POST", "/containers/"+id+"/start", "")
	rest, err := io.ReadAll(in)
	if err != nil || !strings.HasSuffix(string(rest), "\r\n\r\n\x01\x00\x00\x00\x00\x00\x00\x0ball at once") {
		t.Errorf("%q %v", rest, err)
	}
	p.want(200, "POST", "/containers/"+id+"/wait", "", `{"StatusCode":0}`)
}
