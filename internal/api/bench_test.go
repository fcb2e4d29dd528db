package api_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/stdio"
)

// caller is a client that costs as little as it can, so that the door is what
// is measured.
type caller struct {
	b    *testing.B
	conn net.Conn
	in   *bufio.Reader
}

func newCaller(b *testing.B, d *door) *caller {
	conn, err := net.Dial("unix", d.socket)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return &caller{b: b, conn: conn, in: bufio.NewReaderSize(conn, 1<<16)}
}

func (c *caller) call(method, path, body string) {
	if _, err := fmt.Fprintf(c.conn, "%s /v1.56%s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body); err != nil {
		c.b.Fatal(err)
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.b.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode >= 300 {
		c.b.Fatalf("%s %s: %d %v", method, path, resp.StatusCode, err)
	}
}

// The four calls of a container's life, on an engine that takes no time.
func BenchmarkCreateStartWaitRemove(b *testing.B) {
	id := strings.Repeat("ab", 32)
	d := serve(b, &fake{
		create: func(engine.CreateRequest) (string, []string, error) { return id, nil, nil },
		verb:   func(context.Context, string, string) error { return nil },
		wait: func(context.Context, container.WaitCondition) (<-chan engine.WaitResult, error) {
			done := make(chan engine.WaitResult, 1)
			done <- engine.WaitResult{}
			return done, nil
		},
	})
	body := mustJSON(b, container.CreateRequest{
		Config:     &container.Config{Image: "nginx", Cmd: []string{"sleep", "1"}, Env: []string{"A=b"}},
		HostConfig: &container.HostConfig{NetworkMode: "bridge"},
	})
	c := newCaller(b, d)
	for b.Loop() {
		c.call("POST", "/containers/create", body)
		c.call("POST", "/containers/"+id+"/start", "")
		c.call("POST", "/containers/"+id+"/wait", "")
		c.call("DELETE", "/containers/"+id, "")
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/4, "µs/call")
}

// ps -a of 200 containers.
func BenchmarkList200(b *testing.B) {
	containers := make([]*container.Summary, 200)
	for i := range containers {
		containers[i] = &container.Summary{
			ID: fmt.Sprintf("%064x", i), Names: []string{fmt.Sprintf("/c%d", i)}, Image: "nginx", ImageID: "sha256:" + ocispecHex,
			Command: "nginx -g 'daemon off;'", State: container.StateRunning, Status: "Up 5 minutes",
			Ports:  []container.PortSummary{{IP: netip.MustParseAddr("0.0.0.0"), PrivatePort: 80, PublicPort: 8080, Type: "tcp"}},
			Labels: map[string]string{"com.docker.compose.project": "p", "com.docker.compose.service": "s"},
			NetworkSettings: &container.NetworkSettingsSummary{
				Networks: map[string]*network.EndpointSettings{"bridge": endpoint()},
			},
		}
	}
	d := serve(b, &fake{list: func(engine.ListOptions) ([]*container.Summary, error) { return containers, nil }})
	c := newCaller(b, d)
	for b.Loop() {
		c.call("GET", "/containers/json?all=1", "")
	}
}

// Log lines of 100 bytes.
func BenchmarkLogs(b *testing.B) {
	const lines = 100_000
	line := []byte(strings.Repeat("x", 99) + "\n")
	d := serve(b, &fake{logs: func(string, logs.ReadOptions) (*engine.LogSession, error) {
		return engine.NewLogSession(false, func(_ context.Context, emit func(stdio.Stream, []byte) error) error {
			for range lines {
				if err := emit(stdio.Stdout, line); err != nil {
					return err
				}
			}
			return nil
		}), nil
	}})
	c := newCaller(b, d)
	b.SetBytes(int64(lines * len(line)))
	for b.Loop() {
		c.call("GET", "/containers/x/logs?stdout=1", "")
	}
}
