package e2e

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/test/harness"
)

// rawConn is a connection to the engine's socket on which text was sent, whatever it is.
func rawConn(t *testing.T, e *harness.Engine, text string) *net.UnixConn {
	t.Helper()
	conn, err := net.Dial("unix", e.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(harness.Patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	return conn.(*net.UnixConn)
}

// TestClientsThatStopInTheMiddle: connections that say nothing, half of a header or half of a body, and listeners that
// never read, cost the engine little memory, and others are answered.
func TestClientsThatStopInTheMiddle(t *testing.T) {
	const each, most = 300, 64 << 20
	own := harness.Start(t, harness.Options{})
	own.Load(t, "busybox")
	before := peakMemory(t, own.PID())
	for range each {
		rawConn(t, own, "")
		rawConn(t, own, "GET /_pi")
		rawConn(t, own, "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{\"Im")
		rawConn(t, own, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	label := "big=" + strings.Repeat("x", 10_000)
	for range 20 { // more than the sockets of the listeners hold
		own.OK(t, "cleat", "run", "--rm", "--network", "none", "--label", label, "busybox", "true")
	}
	if used := peakMemory(t, own.PID()) - before; used > most {
		t.Errorf("%d connections have cost %d MiB", 4*each, used>>20)
	}
}

// TestBodiesThatAreTooLarge: each of the calls that take JSON says what of it is too much. What is too much is so little
// that the engine's answer always arrives: of larger ones it hangs up on the sender.
func TestBodiesThatAreTooLarge(t *testing.T) {
	const limit, most = 16 << 20, 128 << 20
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	e.OK(t, "cleat", "create", "--name", "there", "busybox")
	before := peakMemory(t, e.PID())
	body := strings.Repeat(" ", limit+1)
	for _, path := range []string{"/auth", "/containers/create", "/containers/there/update", "/containers/there/exec", "/exec/there/start",
		"/commit?container=there", "/volumes/create", "/networks/create", "/networks/none/connect", "/networks/none/disconnect",
		"/cleat/volumes/there/clone", "/cleat/volumes/there/snapshots", "/cleat/volumes/there/restore"} {
		conn := rawConn(t, e, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"+
			"Content-Length: %d\r\n\r\n%s", path, len(body), body))
		answer, err := io.ReadAll(conn)
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") || !strings.Contains(string(answer), "larger than 16 MiB") {
			t.Errorf("%s: %v, %.300s", path, err, answer)
		}
	}
	if used := peakMemory(t, e.PID()) - before; used > most {
		t.Errorf("the engine has taken %d MiB", used>>20)
	}
}

// TestHalfSentBuildContext: a client that breaks off has made the mistake, and is told so.
func TestHalfSentBuildContext(t *testing.T) {
	e := engine(t)
	whole := string(tarFile('0', "Dockerfile", []byte("FROM scratch\n"))) + string(tarFile('0', "f", make([]byte, 4096)))
	for name, sent := range map[string]string{"in a file": whole[:3000], "in a header": whole[:1300]} {
		conn := rawConn(t, e, fmt.Sprintf("POST /build HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\nContent-Length: %d\r\n\r\n%s", len(whole), sent))
		if err := conn.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(conn)
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") || !strings.Contains(string(answer), "build context") {
			t.Errorf("%s: %v, %s", name, err, answer)
		}
	}
}
