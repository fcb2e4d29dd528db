package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/test/harness"
)

// What follows holds the habits of programs that were seen to fail for them: each is
// the bare request that the program makes.

// TestExecStartDecidesAboutFrames has what Ansible's docker_container_exec does: it
// never asks for a TTY at create, and reads frames only if it asks for none at start.
func TestExecStartDecidesAboutFrames(t *testing.T) {
	e := engine(t, "busybox")
	p := plainly(t, e)
	const name = "ecosystem-frames"
	e.OK(t, "cleat", "run", "-d", "--name", name, "busybox", "sleep", "1000")
	defer e.OK(t, "cleat", "rm", "-f", name)
	for _, test := range []struct{ create, start, want string }{
		{"false", `{"Tty":true}`, "out\n"},
		{"false", `{"Tty":false}`, "\x01\x00\x00\x00\x00\x00\x00\x04out\n"},
		{"false", `{}`, "\x01\x00\x00\x00\x00\x00\x00\x04out\n"},
		{"true", `{"Tty":true}`, "out\r\n"},
		{"true", `{"Tty":false}`, "\x01\x00\x00\x00\x00\x00\x00\x05out\r\n"},
	} {
		made := p.want(201, "POST", "/v1.41/containers/"+name+"/exec",
			`{"AttachStdout":true,"AttachStderr":true,"Tty":`+test.create+`,"Cmd":["echo","out"]}`, `"Id"`)
		var exec struct{ Id string }
		if err := json.Unmarshal([]byte(made), &exec); err != nil {
			t.Fatal(err)
		}
		if _, got := p.call("POST", "/v1.41/exec/"+exec.Id+"/start", test.start); got != test.want {
			t.Errorf("created with Tty %s, started with %s: %q, want %q", test.create, test.start, got, test.want)
		}
	}
}

// TestBuildsUponAnID has what Ruby's docker-api does in insert_local and scripts with
// what `docker build -q` printed: an image without a name is the base of the next.
func TestBuildsUponAnID(t *testing.T) {
	e := engine(t, "busybox")
	build := func(from, then string) (image string) {
		dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + from + "\n" + then + "\n"})
		out, stderr, code := classicBuild(t, e, dir, "-q", ".")
		if image = strings.TrimSpace(out); code != 0 {
			t.Fatalf("docker build FROM %s: %s", from, stderr)
		}
		if of := e.OK(t, "cleat", "build", "-q", dir); of != image {
			t.Errorf("FROM %s: cleat build made %s, docker build %s", from, of, image)
		}
		removeImages(t, e, image)
		return image
	}
	id := build("busybox", "RUN echo base >/base")
	digits := strings.TrimPrefix(id, "sha256:")
	for _, from := range []string{id, "sha256:" + digits[:10], digits[:12]} {
		build(from, "COPY --from="+from+" /base /copy\nRUN cat /copy")
	}
	dir := contextDir(t, map[string]string{"Dockerfile": "FROM sha256:" + strings.Repeat("0", 64) + "\n"})
	if _, _, code := classicBuild(t, e, dir, "-q", "."); code == 0 {
		t.Error("an image was built upon an id that no image has")
	}
}

// TestAnswersHaveTheKeysThatProgramsTake asks with no client in between, which sends
// `{}` for labels, and in the versions that programs pin: they take what is there.
func TestAnswersHaveTheKeysThatProgramsTake(t *testing.T) {
	e := engine(t, "busybox")
	p := plainly(t, e)
	const name = "ecosystem-keys"
	p.want(201, "POST", "/containers/create?name="+name, `{"Image":"busybox","Cmd":["sleep","1000"]}`, `"Id"`)
	defer e.OK(t, "cleat", "rm", "-f", name)
	for _, test := range []struct{ path, want string }{
		{"/v1.24/containers/" + name + "/json", `"Labels":{}`},
		{"/v1.56/containers/" + name + "/json", `"Labels":{}`},
		{"/v1.41/networks", `"Containers":{}`},
		{"/v1.41/images/busybox/json", `"GraphDriver":{"Data":null,"Name":"overlay2"}`},
		{"/v1.41/system/df", `"VirtualSize":`},
	} {
		p.want(200, "GET", test.path, "", test.want)
	}
	for path, unwanted := range map[string]string{
		"/v1.56/networks": `"Containers"`, "/v1.56/images/busybox/json": `"GraphDriver"`, "/v1.44/system/df": `"VirtualSize"`,
	} {
		if answer := p.want(200, "GET", path, "", "{"); strings.Contains(answer, unwanted) {
			t.Errorf("GET %s has %s, which this version has not", path, unwanted)
		}
	}
}

// TestSizeOfNoTerminal: Portainer's console tells a container the size of its window
// whether it has a terminal or not.
func TestSizeOfNoTerminal(t *testing.T) {
	e := engine(t, "busybox")
	p := plainly(t, e)
	const name = "ecosystem-size"
	e.OK(t, "cleat", "create", "--name", name, "busybox", "sleep", "1000")
	defer e.OK(t, "cleat", "rm", "-f", name)
	p.want(409, "POST", "/containers/"+name+"/resize?h=24&w=80", "", "is not running")
	e.OK(t, "cleat", "start", name)
	p.want(200, "POST", "/containers/"+name+"/resize?h=24&w=80", "", "")
}

// TestCommandLinesAreStrings: dockerode-compose and hand-written requests send a command
// as one string, which the API's description allows; it is one word.
func TestCommandLinesAreStrings(t *testing.T) {
	e := engine(t, "busybox")
	p := plainly(t, e)
	const name = "ecosystem-words"
	for _, test := range []struct{ fields, want string }{
		{`"Cmd":"true"`, `["true"] null`}, {`"Cmd":["sh","-c","true"]`, `["sh","-c","true"] null`}, {`"Cmd":"true","Entrypoint":"env"`, `["true"] ["env"]`},
		{`"Entrypoint":[],"Cmd":"true"`, `["true"] []`}, {`"Cmd":null`, `["sh"] null`},
	} {
		p.want(201, "POST", "/containers/create?name="+name, `{"Image":"busybox",`+test.fields+`}`, `"Id"`)
		e.OK(t, "cleat", "start", "-a", name)
		if got := e.OK(t, "docker", "inspect", "-f", "{{json .Config.Cmd}} {{json .Config.Entrypoint}}", name); got != test.want {
			t.Errorf("%s: %s, want %s", test.fields, got, test.want)
		}
		p.want(201, "POST", "/commit?container="+name+"&repo="+name, `{`+test.fields+`}`, `"Id"`)
		e.OK(t, "cleat", "rmi", name)
		e.OK(t, "cleat", "rm", name)
	}
	p.want(400, "POST", "/containers/create", `{"Image":"busybox","Cmd":5}`, "Cmd")
	p.want(400, "POST", "/containers/create", `{"Cmd":"true"}`, "no image")
}

// TestOptionsInAnAttachsBody: dockerode, and what is built on it, sends the parameters
// of an attach in the request's body, too. What the request declares as its body is no
// input, whether it comes together with the head or after it; what follows is.
func TestOptionsInAnAttachsBody(t *testing.T) {
	e := engine(t, "busybox")
	p := plainly(t, e)
	const options = `{"stream":true,"stdin":true,"stdout":true,"hijack":true}`
	for _, test := range []struct{ upgrade, withHead, after string }{
		{"Connection: Upgrade\r\nUpgrade: tcp\r\n", options, "hello\n"},
		{"Connection: Upgrade\r\nUpgrade: tcp\r\n", "", options + "hello\n"},
		{"", options + "hello\n", ""},
	} {
		id := p.create(`{"Image":"busybox","Cmd":["cat"],"OpenStdin":true,"StdinOnce":true}`)
		raw := dialSocket(t, e)
		fmt.Fprintf(raw, "POST /containers/%s/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\n%sContent-Type: application/json\r\n"+
			"Content-Length: %d\r\n\r\n%s", id, test.upgrade, len(options), test.withHead)
		p.want(204, "POST", "/containers/"+id+"/start", "")
		fmt.Fprint(raw, test.after)
		if err := raw.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(raw)
		if _, output, _ := strings.Cut(string(rest), "\r\n\r\n"); err != nil || output != "\x01\x00\x00\x00\x00\x00\x00\x06hello\n" {
			t.Errorf("%+v: %q %v", test, rest, err)
		}
	}
}

func dialSocket(t *testing.T, e *harness.Engine) *net.UnixConn {
	t.Helper()
	raw, err := net.Dial("unix", e.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	if err := raw.SetDeadline(time.Now().Add(harness.Patience)); err != nil {
		t.Fatal(err)
	}
	return raw.(*net.UnixConn)
}

// TestWaitAfterOutput has what dockerode's run() does: it attaches, starts, waits, and
// hands over what has come when the wait is answered. The answer does not come before
// the output; nor, to a program that says no name, before that was read.
func TestWaitAfterOutput(t *testing.T) {
	e := engine(t, "busybox")
	p := plainly(t, e)
	run := func(agent string) (attach, wait *net.UnixConn, id string) {
		id = p.create(`{"Image":"busybox","Cmd":["echo","hi"],"Tty":true}`)
		attach, wait = dialSocket(t, e), dialSocket(t, e)
		fmt.Fprintf(attach, "POST /containers/%s/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\n%s\r\n", id, agent)
		if err := readTo(attach, "\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		p.want(204, "POST", "/containers/"+id+"/start", "")
		fmt.Fprintf(wait, "POST /containers/%s/wait HTTP/1.1\r\nHost: x\r\n\r\n", id)
		return attach, wait, id
	}
	for range 10 {
		attach, wait, _ := run("User-Agent: some\r\n")
		if err := readTo(wait, `"StatusCode":0`); err != nil {
			t.Fatal(err)
		}
		if got := present(t, attach); got != "hi\r\n" {
			t.Errorf("when the wait was answered the output was %q", got)
		}
	}
	_, wait, id := run("")
	err := readTo(wait, `"StatusCode":0`)
	answered := time.Now()
	var state struct {
		State struct{ FinishedAt time.Time }
	}
	if err := json.Unmarshal([]byte(p.want(200, "GET", "/containers/"+id+"/json", "", "FinishedAt")), &state); err != nil {
		t.Fatal(err)
	}
	// Its patience is a second.
	if after := answered.Sub(state.State.FinishedAt); err != nil || after < 900*time.Millisecond {
		t.Errorf("the wait was answered %v after the exit, while the output was unread: %v", after, err)
	}
}

// readTo reads from a connection until it has given text.
func readTo(from io.Reader, text string) error {
	var got []byte
	for one := make([]byte, 1); !strings.HasSuffix(string(got), text); got = append(got, one...) {
		if _, err := from.Read(one); err != nil {
			return fmt.Errorf("%q: %w", got, err)
		}
	}
	return nil
}

// TestPullFromNowhereIsFinal: testcontainers tries a pull that was answered with 503 again
// for a quarter of an hour.
func TestPullFromNowhereIsFinal(t *testing.T) {
	p := plainly(t, engine(t))
	p.want(500, "POST", "/images/create?fromImage=127.0.0.1:1/some&tag=1", "", "cannot reach the registry at")
}

// present is what has arrived on a connection by now.
func present(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	buf, n := make([]byte, 4096), 0
	if err := raw.Control(func(fd uintptr) { n, _, _ = unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT) }); err != nil {
		t.Fatal(err)
	}
	return string(buf[:max(n, 0)])
}

// TestMonitorsFindFiles has what cAdvisor reads of a container beside its answers: the name of its writable layer, below the
// storage driver's directory, and the bytes there. Without the name it leaves the container out. An engine makes up for
// what an earlier one has not made.
func TestMonitorsFindFiles(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	e.OK(t, "cleat", "create", "--name", "ahead", "busybox") // of a directory that lay ready, as the next may not be
	e.OK(t, "cleat", "run", "--name", "written", "busybox", "sh", "-c", "echo said > /file")
	check := func(name string) {
		t.Helper()
		root, driver := e.OK(t, "cleat", "info", "-f", "{{.DockerRootDir}}"), e.OK(t, "cleat", "info", "-f", "{{.Driver}}")
		id := e.OK(t, "cleat", "inspect", "-f", "{{.Id}}", name)
		mount := readFile(filepath.Join(root, "image", driver, "layerdb", "mounts", id, "mount-id"))
		if mount != id {
			t.Errorf("the layer of container %s is named %q, not %s", name, mount, id)
		}
		layer, err := os.Stat(filepath.Join(root, driver, mount, "diff"))
		if err != nil {
			t.Error(err)
			return
		}
		upper, err := os.Stat(e.OK(t, "cleat", "inspect", "-f", "{{.GraphDriver.Data.UpperDir}}", name))
		if err != nil || !os.SameFile(layer, upper) {
			t.Errorf("the layer of container %s is not its writable one: %v", name, err)
		}
	}
	check("ahead")
	check("written")
	id := e.OK(t, "cleat", "inspect", "-f", "{{.Id}}", "written")
	e.Stop(t)
	for _, made := range []string{"image", "overlay2", "containers/" + id + "/mount-id", "containers/" + id + "/diff"} {
		if err := os.RemoveAll(filepath.Join(e.DataRoot, made)); err != nil {
			t.Fatal(err)
		}
	}
	e.Run(t)
	check("ahead")
	check("written")
}
