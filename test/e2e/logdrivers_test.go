package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// speaker writes to both streams and ends.
var speaker = []string{"busybox", "sh", "-c", "echo to out; echo to err >&2"}

// logRun runs the speaker with a log driver by each client and returns what came.
func logRun(t *testing.T, s *logServer, options ...string) map[string][]string {
	t.Helper()
	e := engine(t, "busybox")
	got := map[string][]string{}
	for _, program := range clients {
		name := "logdriver-" + program
		before := len(s.all())
		e.OK(t, program, append(append([]string{"run", "--name", name, "--label", "colour=red", "-e", "MOOD=good"}, options...), speaker...)...)
		remove(t, e, name)
		s.await(t, "to out")
		harness.Eventually(t, func() (bool, string) { n := len(s.all()); return n >= before+2, fmt.Sprint(n) })
		got[program] = s.all()[before:]
		if logs := e.OK(t, program, "logs", name); logs != "to out" {
			t.Errorf("%s logs: %q", program, logs)
		}
		if out := e.OK(t, program, "inspect", "-f", "{{.HostConfig.LogConfig.Type}} {{.LogPath}}", name); strings.Contains(out, "/") {
			t.Errorf("%s inspect tells of a file: %s", program, out)
		}
		e.OK(t, "cleat", "rm", "-f", name)
	}
	return got
}

func TestSyslogDriver(t *testing.T) {
	for _, test := range []struct {
		name, scheme string
		options      []string
		want         string // of the line on stdout
	}{
		{"udp", "udp", nil, `^<30>[A-Z][a-z]{2} [ 0-9]\d \d\d:\d\d:\d\d [0-9a-f]{12}\[\d+\]: to out$`},
		{"tcp", "tcp", []string{"--log-opt", "syslog-facility=local3", "--log-opt", "syslog-format=rfc3164", "--log-opt", "tag={{.DaemonName}}/{{.Name}}"},
			`^<158>[A-Z][a-z]{2} [ 0-9]\d \d\d:\d\d:\d\d \S+ docker/logdriver-(docker|cleat)\[\d+\]: to out$`},
		{"rfc5424", "tcp", []string{"--log-opt", "syslog-format=rfc5424", "--log-opt", "syslog-facility=1", "--log-opt", "tag=t"},
			`^<14>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S+ \S+ t \d+ t - to out$`},
		{"unix", "unix", []string{"--log-opt", "syslog-format=rfc5424micro", "--log-opt", "tag=t"},
			`^<30>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\S+ \S+ t \d+ t - to out$`},
		{"unixgram", "unixgram", []string{"--log-opt", "tag={{.ImageName}}"}, `^<30>.* busybox\[\d+\]: to out$`},
		// Such as /dev/log mostly is, named as in Docker's documentation.
		{"unixgram by another name", "unix-datagram", []string{"--log-opt", "tag=t"}, `^<30>.* t\[\d+\]: to out$`},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			var s *logServer
			address := ""
			switch test.scheme {
			case "udp":
				s = datagramServer(t, listenPacket(t, "udp", "127.0.0.1:0"), asIs)
				address = "udp://" + s.addr
			case "tcp":
				s = streamServer(t, listen(t, "tcp", "127.0.0.1:0"), byLine)
				address = "tcp://" + s.addr
			case "unix":
				s = streamServer(t, listen(t, "unix", path), byLine)
				address = "unix://" + path
			default:
				s = datagramServer(t, listenPacket(t, "unixgram", path), asIs)
				address = strings.TrimSuffix(test.scheme, "-datagram") + "://" + path
			}
			for program, got := range logRun(t, s, append([]string{"--log-driver", "syslog", "--log-opt", "syslog-address=" + address}, test.options...)...) {
				i := slices.IndexFunc(got, func(m string) bool { return strings.HasSuffix(m, "to out") })
				if i < 0 || !regexp.MustCompile(test.want).MatchString(got[i]) || len(got) != 2 {
					t.Errorf("%s: %q, want a match of %s", program, got, test.want)
				}
			}
		})
	}
}

func TestGELFDriver(t *testing.T) {
	check := func(t *testing.T, got map[string][]string) {
		t.Helper()
		for program, messages := range got {
			levels := map[string]float64{}
			for _, text := range messages {
				var m map[string]any
				if err := json.Unmarshal([]byte(text), &m); err != nil {
					t.Fatalf("%s: %v in %q", program, err, text)
				}
				levels[m["short_message"].(string)] = m["level"].(float64)
				for k, want := range map[string]any{
					"version": "1.1", "_container_name": "logdriver-" + program, "_image_name": "busybox", "_tag": "t", "_colour": "red", "_MOOD": "good",
					"_command": strings.Join(speaker[1:], " "),
				} {
					if m[k] != want {
						t.Errorf("%s: %s is %v, want %v", program, k, m[k], want)
					}
				}
			}
			if len(messages) != 2 || levels["to out"] != 6 || levels["to err"] != 3 {
				t.Errorf("%s: %v", program, levels)
			}
		}
	}
	options := []string{"--log-driver", "gelf", "--log-opt", "tag=t", "--log-opt", "labels=colour", "--log-opt", "env-regex=^MO"}
	for _, kind := range []string{"gzip", "zlib", "none"} {
		t.Run(kind, func(t *testing.T) {
			s := datagramServer(t, listenPacket(t, "udp", "127.0.0.1:0"), gelfDatagrams())
			check(t, logRun(t, s, append(options, "--log-opt", "gelf-address=udp://"+s.addr, "--log-opt", "gelf-compression-type="+kind)...))
		})
	}
	t.Run("tcp", func(t *testing.T) {
		s := streamServer(t, listen(t, "tcp", "127.0.0.1:0"), byNUL)
		check(t, logRun(t, s, append(options, "--log-opt", "gelf-address=tcp://"+s.addr)...))
	})
	t.Run("chunks", func(t *testing.T) {
		e := engine(t, "busybox")
		s := datagramServer(t, listenPacket(t, "udp", "127.0.0.1:0"), gelfDatagrams())
		e.OK(t, "docker", "run", "--rm", "--log-driver", "gelf", "--log-opt", "gelf-address=udp://"+s.addr, "--log-opt", "gelf-compression-type=none",
			"busybox", "sh", "-c", "head -c 9000 /dev/zero | tr '\\0' x; echo y")
		got := s.await(t, strings.Repeat("x", 9000)+"y")
		if len(got) != 1 {
			t.Errorf("%d messages", len(got))
		}
	})
}

func TestFluentdDriver(t *testing.T) {
	for _, test := range []struct {
		name    string
		options []string
	}{
		{"plain", nil},
		{"acknowledged", []string{"--log-opt", "fluentd-request-ack=true", "--log-opt", "fluentd-sub-second-precision=true"}},
		{"async", []string{"--log-opt", "fluentd-async=true", "--log-opt", "fluentd-buffer-limit=1"}},
		{"unix", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			var s *logServer
			address := ""
			if test.name == "unix" {
				path := filepath.Join(t.TempDir(), "fluentd.sock")
				s, address = streamServer(t, listen(t, "unix", path), forward), "unix://"+path
			} else {
				s = streamServer(t, listen(t, "tcp", "127.0.0.1:0"), forward)
				address = s.addr
			}
			for program, got := range logRun(t, s, append([]string{"--log-driver", "fluentd", "--log-opt", "fluentd-address=" + address,
				"--log-opt", "tag=docker.{{.Name}}", "--log-opt", "labels=colour,none", "--log-opt", "env=MOOD"}, test.options...)...) {
				all := strings.Join(got, "\n")
				for _, want := range []string{
					"docker.logdriver-" + program + " ", "colour=red ", "MOOD=good ", "container_name=/logdriver-" + program + " ",
					"source=stdout log=to out ", "source=stderr log=to err ",
				} {
					if !strings.Contains(all, want) {
						t.Errorf("%s: no %q in %s", program, want, all)
					}
				}
				if len(got) != 2 || strings.Contains(all, "none=") {
					t.Errorf("%s: %q", program, got)
				}
			}
		})
	}
}

// TestLogServerAway starts containers whose log server is not there: as with Docker it
// is an error where the protocol tells, with the way out; where it does not, or with
// fluentd-async, lines wait in the local log until the server comes.
func TestLogServerAway(t *testing.T) {
	e := engine(t, "busybox")
	address := "127.0.0.1:" + freePort(t)
	for _, test := range []struct{ driver, option, advice string }{
		{"syslog", "syslog-address=tcp://" + address, "udp://"},
		{"syslog", "syslog-address=unix:///no/such/socket", "udp://"},
		{"gelf", "gelf-address=tcp://" + address, "udp://"},
		{"fluentd", "fluentd-address=" + address, "fluentd-async=true"},
	} {
		each(t, func(t *testing.T, program string) {
			r := e.Do(t, program, "", "run", "--name", "logaway", "--log-driver", test.driver, "--log-opt", test.option, "busybox", "true")
			remove(t, e, "logaway")
			e.Cleat(t, "rm", "-f", "logaway")
			if r.Code == 0 || !strings.Contains(r.Stderr, "failed to initialize logging driver: ") || !strings.Contains(r.Stderr, test.advice) {
				t.Errorf("%s %s: %s", program, test.option, r)
			}
		})
	}
	remove(t, e, "logwaits")
	e.OK(t, "docker", "run", "--name", "logwaits", "--log-driver", "fluentd", "--log-opt", "fluentd-address="+address,
		"--log-opt", "fluentd-async=true", "--log-opt", "fluentd-retry-wait=10ms", "--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=1m",
		"busybox", "sh", "-c", "for i in 1 2 3; do echo line $i; done")
	if out := e.OK(t, "docker", "logs", "logwaits"); out != "line 1\nline 2\nline 3" {
		t.Errorf("logs: %q", out)
	}
	s := streamServer(t, listen(t, "tcp", address), forward)
	if got := s.await(t, "log=line 1 ", "log=line 2 ", "log=line 3 "); len(got) != 3 {
		t.Errorf("%q", got)
	}
}

func TestLogOptionsAreChecked(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		for _, test := range []struct{ driver, option, want string }{
			{"syslog", "x=1", "unknown log opt 'x' for syslog log driver"},
			{"syslog", "max-size=1m", "unknown log opt 'max-size' for syslog log driver"},
			{"syslog", "syslog-address=http://x", "unsupported scheme: 'http'"},
			{"syslog", "syslog-facility=nonsense", "invalid syslog facility"},
			{"syslog", "syslog-format=nonsense", "Invalid syslog format"},
			{"syslog", "cache-max-size=much", "cache-max-size=much"},
			{"syslog", "cache-disabled=perhaps", "invalid value for option cache-disabled: perhaps"},
			{"syslog", "mode=sometimes", "logging mode not supported: sometimes"},
			{"syslog", "max-buffer-size=1m", "max-buffer-size option is only supported with 'mode=non-blocking'"},
			{"syslog", "tag={{.Nonsense}}", "log opt tag"},
			{"journald", "x=1", "unknown log opt 'x' for journald log driver"},
			{"gelf", "x=1", `unknown log opt \"x\" for gelf log driver`},
			{"gelf", "tag=t", "gelf-address is a required parameter"},
			{"gelf", "gelf-address=http://x:1", "gelf: endpoint needs to be TCP or UDP"},
			{"fluentd", "x=1", "unknown log opt 'x' for fluentd log driver"},
			{"fluentd", "fluentd-async=perhaps", "fluentd-async=perhaps"},
			{"fluentd", "fluentd-address=udp://x", "unsupported scheme: 'udp'"},
			{"awslogs", "awslogs-region=x", "no log driver named 'awslogs'"},
			{"splunk", "splunk-token=x", "no log driver named 'splunk'"},
			{"gcplogs", "gcp-project=x", "no log driver named 'gcplogs'"},
		} {
			r := e.Do(t, program, "", "create", "--log-driver", test.driver, "--log-opt", test.option, "busybox")
			if said := strings.ReplaceAll(r.Stderr, `\"`, `"`); r.Code == 0 || !strings.Contains(said, strings.ReplaceAll(test.want, `\"`, `"`)) {
				t.Errorf("%s %s %s: %s, want %s", program, test.driver, test.option, r, test.want)
			}
		}
	})
	if out := e.OK(t, "docker", "info", "-f", "{{.Plugins.Log}}"); out != "[fluentd gelf journald json-file local none syslog]" {
		t.Errorf("info: %s", out)
	}
}

// TestLogServerComesAndGoes kills and stops the engine in the middle of a stream and
// takes the server away and back: every line comes, in order, and doubled are at most
// those that were under way when the engine was killed.
func TestLogServerComesAndGoes(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	address := "127.0.0.1:" + freePort(t)
	s := streamServer(t, listen(t, "tcp", address), forward)
	const lines = 3000
	e.OK(t, "docker", "run", "-d", "--name", "stream", "--log-driver", "fluentd", "--log-opt", "fluentd-address="+address,
		"--log-opt", "fluentd-request-ack=true", "--log-opt", "fluentd-retry-wait=20ms", "--log-opt", "tag=t",
		"--log-opt", "cache-max-size=50k", "--log-opt", "cache-max-file=50", "busybox", "sh", "-c",
		fmt.Sprintf(`i=1; while [ $i -le %d ]; do echo line $i; i=$((i+1)); [ $((i %% 50)) -ne 0 ] || sleep 0.02; [ $i -ne 1500 ] || until [ -e /on ]; do sleep 0.02; done; done`, lines))
	s.await(t, "log=line 100 ")
	e.Kill()
	e.Run(t)
	s.await(t, "log=line 900 ")
	s.close()
	e.OK(t, "docker", "exec", "stream", "touch", "/on") // it has not written all of it before its server has gone
	harness.Eventually(t, func() (bool, string) {
		return strings.Contains(e.Log(), "lines of a container cannot be sent"), "the engine's log: " + e.Log()
	})
	e.Stop(t)
	e.Run(t)
	again := streamServer(t, listen(t, "tcp", address), forward)
	again.await(t, fmt.Sprintf("log=line %d ", lines))
	seen, doubled, last := map[int]bool{}, 0, 0
	for _, m := range append(s.all(), again.all()...) {
		n := 0
		if _, err := fmt.Sscanf(m[strings.Index(m, "log=line "):], "log=line %d", &n); err != nil {
			t.Fatal(m)
		}
		switch {
		case seen[n]:
			doubled++
			continue
		case n != last+1:
			t.Fatalf("line %d comes after %d", n, last)
		}
		seen[n], last = true, n
	}
	if len(seen) != lines {
		t.Errorf("%d lines of %d", len(seen), lines)
	}
	t.Logf("%d lines came twice", doubled)
	if out := e.OK(t, "docker", "logs", "--tail", "1", "stream"); out != fmt.Sprintf("line %d", lines) {
		t.Errorf("logs: %s", out)
	}
}

// TestRemovedContainersLines removes a container whose lines wait for their server.
func TestRemovedContainersLines(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	address := "127.0.0.1:" + freePort(t)
	e.OK(t, "docker", "run", "--rm", "--log-driver", "gelf", "--log-opt", "gelf-address=udp://"+address, "--log-opt", "labels=colour", "--label", "colour=red",
		"busybox", "sh", "-c", "echo last words")
	unsent := filepath.Join(e.DataRoot, "unsent")
	harness.Eventually(t, func() (bool, string) {
		entries, err := os.ReadDir(unsent)
		return len(entries) == 1, fmt.Sprint(entries, err)
	})
	e.Kill()
	e.Run(t)
	s := datagramServer(t, listenPacket(t, "udp", address), gelfDatagrams())
	if got := s.await(t, `"short_message":"last words"`); !strings.Contains(got[0], `"_colour":"red"`) {
		t.Errorf("%q", got)
	}
	harness.Eventually(t, func() (bool, string) {
		entries, err := os.ReadDir(unsent)
		return len(entries) == 0, fmt.Sprint(entries, err)
	})
}

// TestJournaldDriver sends to a socket where systemd's is. Where there is none, that is
// an error of the start.
func TestJournaldDriver(t *testing.T) {
	const socket = "/run/systemd/journal/socket"
	e := engine(t, "busybox")
	if _, err := os.Stat(filepath.Dir(socket) + "/stdout"); err == nil {
		realJournal(t, e)
		return
	}
	harness.Eventually(t, func() (bool, string) { // another run of this test
		_, err := os.Stat(socket)
		return errors.Is(err, fs.ErrNotExist), fmt.Sprintf("%s: %v", socket, err)
	})
	each(t, func(t *testing.T, program string) {
		remove(t, e, "journal")
		r := e.Do(t, program, "", "run", "--rm", "--log-driver", "journald", "busybox", "true")
		if r.Code != 125 || !strings.Contains(r.Stderr, "journald is not enabled on this host") {
			t.Errorf("%s: %s", program, r)
		}
	})
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(filepath.Dir(socket)) })
	conn, err := net.ListenPacket("unixgram", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(socket) })
	s := datagramServer(t, conn, asIs)
	epochs := map[string]bool{}
	for program, got := range logRun(t, s, "--log-driver", "journald", "--log-opt", "labels=colour", "--log-opt", "tag={{.Name}}/{{.ID}}") {
		all := strings.Join(got, "\n")
		for _, want := range []string{
			"\nMESSAGE=to out", "\nMESSAGE=to err", "PRIORITY=6\n", "PRIORITY=3\n", "CONTAINER_NAME=logdriver-" + program + "\n", "IMAGE_NAME=busybox\n",
			"COLOUR=red\n", "SYSLOG_IDENTIFIER=logdriver-" + program + "/", "CONTAINER_LOG_ORDINAL=1\n", "CONTAINER_LOG_ORDINAL=2\n", "CONTAINER_ID_FULL=",
		} {
			if !strings.Contains(all, want) {
				t.Errorf("%s: no %q in %q", program, want, all)
			}
		}
		epochs[regexp.MustCompile(`CONTAINER_LOG_EPOCH=(\S+)`).FindStringSubmatch(all)[1]] = true
	}
	if len(epochs) != 2 {
		t.Errorf("the runs of two containers have %d epochs", len(epochs))
	}
}

// realJournal finds the lines in the journal of the machine.
func realJournal(t *testing.T, e *harness.Engine) {
	const name = "journal-real"
	e.OK(t, "docker", append([]string{"run", "--name", name, "--log-driver", "journald"}, speaker...)...)
	remove(t, e, name)
	id := e.OK(t, "docker", "inspect", "-f", "{{.Id}}", name)
	harness.Eventually(t, func() (bool, string) {
		out, err := exec.Command("journalctl", "-o", "cat", "CONTAINER_ID_FULL="+id).CombinedOutput()
		return string(out) == "to out\nto err\n" || string(out) == "to err\nto out\n", fmt.Sprint(string(out), err)
	})
}

// TestDefaultLogDriver takes driver and options from a server's daemon.json, and leaves
// the cache out.
func TestDefaultLogDriver(t *testing.T) {
	s := datagramServer(t, listenPacket(t, "udp", "127.0.0.1:0"), asIs)
	file := filepath.Join(t.TempDir(), "daemon.json")
	writeSettings(t, file, `{"log-driver": "syslog", "log-opts": {"syslog-address": "udp://`+s.addr+`", "tag": "{{.Name}}", "cache-disabled": "true"}}`)
	e := harness.Start(t, harness.Options{Args: []string{"--config-file", file}})
	e.Load(t, "busybox")
	e.OK(t, "docker", "run", "--name", "default", "busybox", "echo", "hello")
	s.await(t, "default[")
	each(t, func(t *testing.T, program string) {
		r := e.Do(t, program, "", "logs", "default")
		if r.Code == 0 || !strings.Contains(r.Stderr, "configured logging driver does not support reading") {
			t.Errorf("%s logs: %s", program, r)
		}
	})
	if out := e.OK(t, "docker", "info", "-f", "{{.LoggingDriver}}"); out != "syslog" {
		t.Errorf("info: %s", out)
	}
	// Docker copies the options of the cache, and only them, to other drivers' containers.
	e.OK(t, "docker", "run", "--name", "other", "--log-driver", "json-file", "busybox", "echo", "hello")
	if out := e.OK(t, "docker", "inspect", "-f", "{{.HostConfig.LogConfig.Config}}", "other"); out != "map[cache-disabled:true]" {
		t.Errorf("inspect: %s", out)
	}
	if out := e.OK(t, "docker", "logs", "other"); out != "hello" {
		t.Errorf("logs of a json-file: %s", out)
	}
}

// TestComposeLogging brings up a project whose service logs elsewhere, with the file as
// it is for Docker.
func TestComposeLogging(t *testing.T) {
	e := engine(t, "busybox")
	s := streamServer(t, listen(t, "tcp", "127.0.0.1:0"), byLine)
	a := compose(t, e, map[string]string{"compose.yaml": `
services:
  web:
    image: busybox
    command: sh -c "echo served; sleep 600"
    stop_signal: KILL
    logging:
      driver: syslog
      options:
        syslog-address: "tcp://` + s.addr + `"
        syslog-facility: local7
        tag: '{{index .ContainerLabels "com.docker.compose.service"}}/{{.DaemonName}}'
        cache-max-file: "2"
`})
	for i, program := range []*application{a, a.theirs(t)} {
		program.ok(t, "up", "-d", "--force-recreate")
		harness.Eventually(t, func() (bool, string) { got := s.all(); return len(got) == i+1, fmt.Sprint(got) })
		if got := s.all()[i]; !regexp.MustCompile(`^<190>.* web/docker\[\d+\]: served$`).MatchString(got) {
			t.Errorf("%q", got)
		}
		if out := program.ok(t, "logs", "--no-log-prefix", "web"); !strings.Contains(out, "served") {
			t.Errorf("logs: %q", out)
		}
	}
}

// TestSyslogOverTLS checks the server's certificate and shows the client's, with the files
// that the options name.
func TestSyslogOverTLS(t *testing.T) {
	e := engine(t, "busybox")
	dir := t.TempDir()
	makeCertificates(t, dir)
	server, err := tls.LoadX509KeyPair(dir+"/server.pem", dir+"/server.key")
	if err != nil {
		t.Fatal(err)
	}
	authority, err := os.ReadFile(dir + "/ca.pem")
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(authority)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients,
	})
	if err != nil {
		t.Fatal(err)
	}
	s := streamServer(t, l, byLength)
	run := func(options ...string) harness.Result {
		return e.Docker(t, append(append([]string{"run", "--rm", "--log-driver", "syslog", "--log-opt", "syslog-address=tcp+tls://" + s.addr,
			"--log-opt", "syslog-format=rfc5424", "--log-opt", "syslog-tls-cert=" + dir + "/client.pem", "--log-opt", "syslog-tls-key=" + dir + "/client.key"}, options...), "busybox", "echo", "secret words")...)
	}
	if r := run(); r.Code == 0 || !strings.Contains(r.Stderr, "failed to initialize logging driver") || !strings.Contains(r.Stderr, "certificate") {
		t.Errorf("an unknown authority: %s", r)
	}
	if r := run("--log-opt", "syslog-tls-ca-cert=/no/such/file"); r.Code == 0 || !strings.Contains(r.Stderr, "/no/such/file") {
		t.Errorf("no such file: %s", r)
	}
	for i, option := range []string{"syslog-tls-ca-cert=" + dir + "/ca.pem", "syslog-tls-skip-verify=true"} {
		if r := run("--log-opt", option); r.Code != 0 {
			t.Fatalf("%s", r)
		}
		harness.Eventually(t, func() (bool, string) { got := s.all(); return len(got) == i+1, fmt.Sprint(got) })
		if got := s.all()[i]; !strings.HasSuffix(got, " - secret words\n") {
			t.Errorf("%q", got)
		}
	}
}

// TestRestartsDoNotAskForLogServer: what the engine starts by itself, by a restart policy
// and after its own start, does not fail because the log server is away.
func TestRestartsDoNotAskForLogServer(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	s := streamServer(t, listen(t, "tcp", "127.0.0.1:"+freePort(t)), byLine) // which it listens on again
	e.OK(t, "docker", "run", "-d", "--name", "always", "--restart", "always", "--log-driver", "syslog", "--log-opt", "syslog-address=tcp://"+s.addr,
		"busybox", "sh", "-c", "echo run of $$; exec sleep 600")
	s.await(t, "run of")
	s.close()
	running := func(what, not string) string {
		var pid string
		harness.Eventually(t, func() (bool, string) {
			out := e.OK(t, "docker", "inspect", "-f", "{{.State.Status}} {{.State.Pid}} {{.State.Error}}", "always")
			pid = strings.Fields(out)[1]
			return strings.HasPrefix(out, "running ") && pid != not, what + ": " + out
		})
		return pid
	}
	first := running("at first", "0")
	kill := func(pid string) {
		n, err := strconv.Atoi(pid)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	kill(first)
	second := running("restarted by its policy", first)
	e.Stop(t)
	kill(second)
	e.Run(t)
	running("restarted with the engine", second)
	again := streamServer(t, listen(t, "tcp", s.addr), byLine)
	again.await(t, "run of", "run of")
}
