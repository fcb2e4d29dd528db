package logsend

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/test/expect"
)

func source() *Source {
	return &Source{
		ID: strings.Repeat("0123456789abcdef", 4), Name: "web", ImageID: "sha256:feed", ImageName: "nginx:1", Command: "nginx -g x",
		Created: time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC), Tag: "web/1", Attrs: map[string]string{"com.example.team": "a\nb", "_LEVEL": "x"}, Run: "first",
	}
}

func messages() []Message {
	at := time.Date(2024, 3, 1, 7, 8, 9, 123456789, time.UTC).UnixNano()
	return []Message{
		{Nano: at, Line: []byte(`plain "text" <&>`), Number: 1},
		{Nano: at + 1, Line: []byte("to stderr \xff"), Stderr: true, Number: 2},
		{Nano: at + 2, Number: 3},
		{Nano: at + 3, Line: []byte("a piece"), Part: 1, Number: 4},
		{Nano: at + 3, Line: []byte("the last"), Part: 2, Last: true, Number: 5},
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	expect.Golden(t, filepath.Join("testdata", "golden", name), string(got))
}

func TestSyslogForms(t *testing.T) {
	t.Setenv("TZ", "UTC")
	local := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = local })
	for _, name := range []string{"", "rfc3164", "rfc5424", "rfc5424micro"} {
		for _, framed := range []bool{false, true} {
			f := syslogFormat{name: name, facility: 3, framed: framed, tag: "web/1", host: "host", pid: "42"}
			var b []byte
			for _, m := range messages() {
				b = f.append(b, &m)
			}
			golden(t, "syslog-"+name+map[bool]string{true: "-framed"}[framed], b)
		}
	}
}

func TestJournalEntry(t *testing.T) {
	s := &journalSender{fields: journalFields(source()), id: source().ID}
	var b []byte
	for _, m := range messages() {
		b = append(s.entry(b, &m), "--\n"...)
	}
	golden(t, "journal", b)
	for key, want := range map[string]string{"com.docker/x": "COM_DOCKER_X", "__a": "A", "ü": "", "9": "9"} {
		if got := journalKey(key); got != want {
			t.Errorf("%s: %s, want %s", key, got, want)
		}
	}
}

func TestGELFMessage(t *testing.T) {
	var target Target
	if err := newGELF(&target, map[string]string{"gelf-address": "udp://127.0.0.1:1"}, source()); err != nil {
		t.Fatal(err)
	}
	extra, err := gelfFields(source())
	if err != nil {
		t.Fatal(err)
	}
	s := &gelfSender{head: []byte(`{"version":"1.1","host":"host"`), target: &gelfTarget{extra: extra}}
	var b []byte
	for _, m := range messages() {
		one := s.append(nil, &m)
		if !json.Valid(one) {
			t.Errorf("no JSON: %s", one)
		}
		b = append(append(b, one...), '\n')
	}
	golden(t, "gelf", b)
}

func TestChunks(t *testing.T) {
	for _, size := range []int{0, 1, chunkSize, chunkSize + 1, 5000, maxChunks * (chunkSize - chunkHeader), maxChunks*(chunkSize-chunkHeader) + 1} {
		p := bytes.Repeat([]byte("0123456789"), size/10+1)[:size]
		got := chunks(p)
		if size > maxChunks*(chunkSize-chunkHeader) {
			if got != nil {
				t.Errorf("%d bytes in %d chunks", size, len(got))
			}
			continue
		}
		var whole []byte
		for i, c := range got {
			if len(c) > chunkSize {
				t.Fatalf("a chunk of %d bytes", len(c))
			}
			if len(got) > 1 {
				if c[10] != byte(i) || c[11] != byte(len(got)) || !bytes.Equal(c[:10], got[0][:10]) {
					t.Fatalf("head of chunk %d: %x", i, c[:12])
				}
				c = c[chunkHeader:]
			}
			whole = append(whole, c...)
		}
		if !bytes.Equal(whole, p) {
			t.Errorf("%d bytes come back as %d", size, len(whole))
		}
	}
}

func TestForwardMessage(t *testing.T) {
	for name, opts := range map[string]map[string]string{"seconds": {}, "precise": {fluentSubSecond: "true"}} {
		f := &fluentTarget{tag: "t", id: source().ID}
		var target Target
		for k, v := range opts {
			if err := f.set(&target, k, v); err != nil {
				t.Fatal(err)
			}
		}
		f.constant(source())
		golden(t, "forward-"+name, append(f.encode(messages(), "chunk=="), f.encode(messages()[:1], "")...))
	}
}

func TestPackSizes(t *testing.T) {
	for _, n := range []int{0, 31, 32, 255, 256, 65535, 65536} {
		s := strings.Repeat("x", n)
		p := packString(nil, s)
		if !bytes.HasSuffix(p, []byte(s)) || len(p)-n > 5 {
			t.Errorf("%d: %x", n, p[:5])
		}
		if n > maxAck {
			continue
		}
		if got, err := unpackString(bufio.NewReader(bytes.NewReader(p))); err != nil || got != s {
			t.Errorf("%d comes back as %d: %v", n, len(got), err)
		}
	}
	for _, c := range []struct {
		n    int
		want []byte
	}{{15, []byte{0x9f}}, {16, []byte{0xdc, 0, 16}}, {65536, []byte{0xdd, 0, 1, 0, 0}}} {
		if got := packArray(nil, c.n); !bytes.Equal(got, c.want) {
			t.Errorf("%d: %x", c.n, got)
		}
	}
}

func FuzzUnpackAck(f *testing.F) {
	f.Add([]byte{0x81, 0xa3, 'a', 'c', 'k', 0xa1, 'x'})
	f.Add([]byte{0x81, 0xda, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		ack, err := unpackAck(bufio.NewReader(bytes.NewReader(b)))
		if err == nil && len(ack) > maxAck {
			t.Errorf("%d bytes", len(ack))
		}
	})
}

// FuzzOptions finds that no value of an option panics, and that what is refused has a class.
func FuzzOptions(f *testing.F) {
	for _, d := range Drivers() {
		f.Add(d, d+"-address", "tcp://[::1]:99/x")
	}
	f.Add("fluentd", "fluentd-retry-wait", "-1s")
	f.Add("gelf", "gelf-tcp-reconnect-delay", "9223372036854775807")
	f.Fuzz(func(t *testing.T, driver, name, value string) {
		opts := map[string]string{name: value}
		if driver == driverGELF && name != "gelf-address" {
			opts["gelf-address"] = "tcp://h:1"
		}
		target, err := New(driver, opts, source())
		if err != nil {
			if !errdefs.IsInvalidArgument(err) && !errdefs.IsNotFound(err) {
				t.Errorf("%v has no class", err)
			}
			return
		}
		if target.FirstWait <= 0 || target.Tries < 0 || target.MostLines < 0 {
			t.Errorf("%+v", target)
		}
	})
}

func TestAddresses(t *testing.T) {
	for in, want := range map[string]string{
		"": " ", "udp://h": "udp h:514", "tcp://[::1]": "tcp [::1]:514", "tcp+tls://h:6514": "tcp+tls h:6514", "unix:///dev/log": "unix /dev/log",
		"unixgram:///x": "unixgram /x", "http://h": "unsupported scheme: 'http'", "h:514": "unsupported scheme", "udp://": "give a host", "unix://": "socket's path",
	} {
		scheme, address, err := syslogAddress(in)
		got := scheme + " " + address
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, want) && !strings.Contains(got, want) {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	for in, want := range map[string]string{
		"": "tcp 127.0.0.1:24224", "h": "tcp h:24224", "h:1": "tcp h:1", "tls://h": "tcp h:24224", "unix:///x": "unix /x", "[::1]:5": "tcp [::1]:5",
		"udp://h": "unsupported scheme: 'udp'", "tcp://h/x": "path element", "unix://": "path is empty", "h:99999": "invalid port",
	} {
		var f fluentTarget
		got := ""
		if err := f.parseAddress(in); err != nil {
			got = err.Error()
		} else {
			got = f.network + " " + f.address
		}
		if !strings.Contains(got, want) {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func dial(t *testing.T, driver string, opts map[string]string) (Sender, error) {
	t.Helper()
	target, err := New(driver, opts, source())
	if err != nil {
		t.Fatal(err)
	}
	s, err := target.Dial(t.Context())
	if err == nil {
		t.Cleanup(func() { s.Close() })
	}
	return s, err
}

func accept(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func listener(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// TestTCPKnowsWhatArrived: what the other side's kernel has not taken is outstanding,
// and a server that has gone is noticed before anything is written to it.
func TestTCPKnowsWhatArrived(t *testing.T) {
	l := listener(t)
	s, err := dial(t, driverSyslog, map[string]string{"syslog-address": "tcp://" + l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	server := accept(t, l)
	if n, err := s.Send(messages()); n != 5 || err != nil {
		t.Fatal(n, err)
	}
	expect.Eventually(t, "it arrives", func() bool { n, err := s.Outstanding(); return n == 0 && err == nil })
	// The server reads nothing: the kernels' buffers fill, and what is beyond them has
	// not arrived.
	s.(*syslogSender).timeout = time.Second
	big := []Message{{Line: bytes.Repeat([]byte("x"), 1<<20)}}
	for err == nil {
		_, err = s.Send(big)
	}
	if n, _ := s.Outstanding(); n == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d outstanding after %v", n, err)
	}
	again, err := dial(t, driverSyslog, map[string]string{"syslog-address": "tcp://" + l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	accept(t, l).Close()
	expect.Eventually(t, "the end is noticed", func() bool { return again.(*syslogSender).gone() })
	if _, err := again.Send(messages()); !Expired(err) {
		t.Errorf("a server that has gone: %v", err)
	}
}

func TestUDPNoticesThatNobodyListens(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := dial(t, driverSyslog, map[string]string{"syslog-address": "udp://" + c.LocalAddr().String()})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := s.Send(messages()); n != 5 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	c.Close()
	if n, err := s.Send(messages()); n != 0 || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("nobody listens: %d, %v", n, err)
	}
}

func TestSyslogOverTLS(t *testing.T) {
	for _, v := range []string{"verified", "unverified", "skipped"} {
		cert, file := certificate(t)
		l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		got := make(chan string, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			r := bufio.NewReader(c)
			size, _ := r.ReadString(' ')
			n, _ := strconv.Atoi(strings.TrimSpace(size))
			b := make([]byte, n)
			_, _ = io.ReadFull(r, b)
			got <- string(b)
		}()
		opts := map[string]string{"syslog-address": "tcp+tls://" + l.Addr().String(), "syslog-format": "rfc5424"}
		switch v {
		case "verified":
			opts["syslog-tls-ca-cert"] = file
		case "skipped":
			opts["syslog-tls-skip-verify"] = ""
		}
		s, err := dial(t, driverSyslog, opts)
		if v == "unverified" {
			if err == nil {
				t.Error("an unknown certificate is accepted")
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Send(messages()[:1]); err != nil {
			t.Fatal(err)
		}
		if m := <-got; !regexp.MustCompile(`^<30>1 \S+ \S+ web/1 \d+ web/1 - plain "text" <&>\n$`).MatchString(m) {
			t.Errorf("%s: %q", v, m)
		}
		expect.Eventually(t, "it is known to have arrived", func() bool { n, err := s.Outstanding(); return n == 0 && err == nil })
	}
}

// TestJournalTakesLargeEntries sends one that fits into no datagram, in a sealed file.
func TestJournalTakesLargeEntries(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	src := source()
	src.Attrs["big"] = strings.Repeat("y", 1<<20)
	s, err := dialJournal(t.Context(), path, src)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if n, err := s.Send(messages()[:1]); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	oob := make([]byte, 64)
	n, oobn, _, _, err := c.ReadMsgUnix(make([]byte, 16), oob)
	if err != nil || n != 0 {
		t.Fatal(n, err)
	}
	control, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(control) != 1 {
		t.Fatal(control, err)
	}
	fds, err := unix.ParseUnixRights(&control[0])
	if err != nil || len(fds) != 1 {
		t.Fatal(fds, err)
	}
	f := os.NewFile(uintptr(fds[0]), "entry")
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<22))
	if err != nil || !bytes.Contains(b, []byte("\nMESSAGE=plain")) || len(b) < 1<<20 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if err != nil || seals&unix.F_SEAL_WRITE == 0 {
		t.Errorf("seals %x, %v", seals, err)
	}
}

// TestFluentdAcknowledges: without an answer, or with that of another batch, nothing has
// arrived.
func TestFluentdAcknowledges(t *testing.T) {
	for answer, want := range map[string]string{
		"none": "acknowledgement", "wrong": `acknowledged "wrong"`, "garbage": "acknowledgement",
	} {
		l := listener(t)
		patience := "1m"
		if answer == "none" {
			patience = "100ms"
		}
		s, err := dial(t, driverFluentd, map[string]string{fluentAddressKey: l.Addr().String(), fluentAck: "true", fluentReadTimeout: patience})
		if err != nil {
			t.Fatal(err)
		}
		c := accept(t, l)
		switch answer {
		case "wrong":
			_, err = c.Write(packString(packString(packMap(nil, 1), "ack"), "wrong"))
		case "garbage":
			_, err = c.Write([]byte("garbage"))
		}
		if err != nil {
			t.Fatal(err)
		}
		if n, err := s.Send(messages()); n != 0 || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %d, %v", answer, n, err)
		}
	}
}

// TestFluentdReconnects: a connection that has had its time is to be made anew.
func TestFluentdReconnects(t *testing.T) {
	l := listener(t)
	s, err := dial(t, driverFluentd, map[string]string{fluentAddressKey: l.Addr().String(), fluentReconnect: "100ms"})
	if err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, accept(t, l))
	expect.Eventually(t, "the connection expires", func() bool { _, err := s.Send(messages()); return Expired(err) })
}

// TestFluentdOverTLS sends to a server whose certificate the machine's authorities, which
// are read once in a process, vouch for or not: so each is tried in one of its own.
func TestFluentdOverTLS(t *testing.T) {
	const addressOfServer = "CLEAT_TEST_FLUENTD"
	if address := os.Getenv(addressOfServer); address != "" {
		s, err := dial(t, driverFluentd, map[string]string{fluentAddressKey: "tls://" + address})
		if err != nil {
			t.Fatal(err)
		}
		if n, err := s.Send(messages()); n != len(messages()) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		expect.Eventually(t, "it is known to have arrived", func() bool { n, err := s.Outstanding(); return n == 0 && err == nil })
		return
	}
	cert, file := certificate(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for authorities, known := range map[string]bool{file: true, os.DevNull: false} {
		got := make(chan string, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			b, _ := io.ReadAll(c)
			got <- string(b)
		}()
		child := exec.Command(os.Args[0], "-test.run=^TestFluentdOverTLS$")
		child.Env = append(os.Environ(), addressOfServer+"="+l.Addr().String(), "SSL_CERT_FILE="+authorities, "SSL_CERT_DIR="+t.TempDir())
		out, err := child.CombinedOutput()
		sent := <-got
		switch {
		case known && (err != nil || !strings.Contains(sent, `plain "text"`)):
			t.Errorf("%v: %s; the server got %q", err, out, sent)
		case !known && (err == nil || !strings.Contains(string(out), "certificate") || sent != ""):
			t.Errorf("to a server that nobody vouches for: %v, %s; it got %q", err, out, sent)
		}
	}
}
