package e2e

import (
	"bufio"
	"encoding/json"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/cleatlabs/cleat/test/harness"
)

func TestStatsTable(t *testing.T) {
	e := engine(t, "busybox")
	n := name(t)
	remove(t, e, n, n+"-off")
	e.OK(t, "docker", "create", "--name", n+"-off", "busybox")
	// 20 MiB that count, and one CPU that is kept busy.
	e.OK(t, "docker", "run", "-d", "--name", n, "-m", "128m", "busybox", "sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=20 2>/dev/null; touch /ready; while :; do :; done")
	harness.Eventually(t, func() (bool, string) { return e.Docker(t, "exec", n, "test", "-e", "/ready").Code == 0, "not ready" })
	gateway := e.OK(t, "docker", "inspect", "-f", "{{.NetworkSettings.Networks.bridge.Gateway}}", n)
	e.OK(t, "docker", "exec", n, "ping", "-c", "1", gateway)
	each(t, func(t *testing.T, program string) {
		table := e.OK(t, program, "stats", "--no-stream", n, n+"-off")
		lines := strings.Split(table, "\n")
		if len(lines) != 3 || !regexp.MustCompile(`^CONTAINER ID +NAME +CPU % +MEM USAGE / LIMIT +MEM % +NET I/O +BLOCK I/O +PIDS$`).MatchString(lines[0]) {
			t.Fatalf("%s", table)
		}
		var row []string
		harness.Eventually(t, func() (bool, string) {
			row = strings.Split(e.OK(t, program, "stats", "--no-stream", "--format", "{{.Container}}|{{.Name}}|{{.CPUPerc}}|{{.MemUsage}}|{{.MemPerc}}|{{.NetIO}}|{{.PIDs}}", n), "|")
			// What else the machine does may come between the two looks of one sample, or have the CPU.
			cpu, err := strconv.ParseFloat(strings.TrimSuffix(row[2], "%"), 64)
			return err == nil && cpu >= 1 && cpu <= 150, "one busy CPU: " + row[2]
		})
		if row[0] != n || row[1] != n || row[6] != "1" {
			t.Errorf("%q", row)
		}
		used, limit, _ := strings.Cut(row[3], " / ")
		if b, err := units.RAMInBytes(used); err != nil || b < 20<<20 || b > 30<<20 || limit != "128MiB" {
			t.Errorf("memory: %s", row[3])
		}
		if percent, err := strconv.ParseFloat(strings.TrimSuffix(row[4], "%"), 64); err != nil || percent < 15 || percent > 25 {
			t.Errorf("memory: %s", row[4])
		}
		in, out, _ := strings.Cut(row[5], " / ")
		for _, s := range []string{in, out} {
			if b, err := units.FromHumanSize(s); err != nil || b < 60 || b > 1<<20 {
				t.Errorf("network: %s", row[5])
			}
		}
		if got := e.OK(t, program, "stats", "--no-stream", "--no-trunc", "--format", "{{.ID}}", n); len(got) != 64 {
			t.Errorf("id %s", got)
		}
		if got := e.OK(t, program, "stats", "--no-stream", "-a", "--format", "{{.Name}} {{.PIDs}} {{.CPUPerc}} {{.MemUsage}}"); !strings.Contains(got, n+"-off 0 0.00% 0B / 0B") {
			t.Errorf("all: %s", got)
		}
		if got := e.OK(t, program, "container", "stats", "--no-stream", "--format", "{{.Name}}"); strings.Contains(got, "-off") || !strings.Contains(got, n) {
			t.Errorf("those that run: %s", got)
		}
		if r := e.Do(t, program, "", "stats", "--no-stream", n, "nosuch"); r.Code != 1 || !strings.Contains(r.Stderr, "No such container: nosuch") {
			t.Errorf("%s", r)
		}
	})
	want, got := e.OK(t, "docker", "stats", "--no-stream", "--format", "json", n+"-off"), e.OK(t, "cleat", "stats", "--no-stream", "--format", "json", n+"-off")
	if got != want && want != "json" { // a word like another to clients before 23.0
		t.Errorf("json: %s\ndocker's: %s", got, want)
	}
}

// TestStatsOfSharedNetworks: who uses another container's network shows its traffic, and none where that is the host's.
func TestStatsOfSharedNetworks(t *testing.T) {
	t.Parallel()
	e := engine(t, "busybox")
	n := name(t)
	for _, c := range [][2]string{{"host", "host"}, {"guest", "container:" + n + "-host"}, {"own", "bridge"}, {"sharer", "container:" + n + "-own"}} {
		remove(t, e, n+"-"+c[0])
		e.OK(t, "docker", "run", "-d", "--name", n+"-"+c[0], "--network", c[1], "busybox", "sleep", "600")
	}
	e.OK(t, "docker", "exec", n+"-own", "ping", "-c", "1", e.OK(t, "docker", "inspect", "-f", "{{.NetworkSettings.Networks.bridge.Gateway}}", n+"-own"))
	each(t, func(t *testing.T, program string) {
		for c, none := range map[string]bool{"host": true, "guest": true, "own": false, "sharer": false} {
			if got := e.OK(t, program, "stats", "--no-stream", "--format", "{{.NetIO}}", n+"-"+c); (got == "0B / 0B") != none {
				t.Errorf("%s: %s", c, got)
			}
		}
	})
}

// TestStatsFollowsEvents: without names the rows come and go with the containers.
func TestStatsFollowsEvents(t *testing.T) {
	e := engine(t, "busybox")
	n := name(t)
	remove(t, e, n)
	cmd := e.Command(t, "cleat", "stats", "--format", "{{.Name}}={{.PIDs}}")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	seen := make(chan string)
	go func() {
		for scan := bufio.NewScanner(out); scan.Scan(); {
			seen <- scan.Text()
		}
		close(seen)
	}()
	remove(t, e, n+"-before")
	e.OK(t, "docker", "run", "-d", "--name", n+"-before", "busybox", "sleep", "600")
	e.OK(t, "docker", "run", "-d", "--name", n, "busybox", "sleep", "600")
	given := time.After(2 * harness.Patience)
	next := func() string {
		t.Helper()
		select {
		case line, goesOn := <-seen:
			if !goesOn {
				t.Fatal("stats has ended")
			}
			return line
		case <-given:
			t.Fatal("the rows do not follow the containers")
		}
		return ""
	}
	for next() != n+"=1" {
	}
	e.OK(t, "docker", "kill", n)
	// From now on rounds without it come; what was on its way may show it still.
	for without := 0; without < 3; {
		switch next() {
		case n + "=1", n + "=0":
			without = 0
		case n + "-before=1":
			without++
		}
	}
}

func TestStatsWithTheGoClient(t *testing.T) {
	g := gophers(t, engine(t, "busybox"))
	id := g.busybox("sleep 600")
	read := func(opts client.ContainerStatsOptions) (*json.Decoder, io.Closer) {
		t.Helper()
		res, err := g.ContainerStats(g.ctx, id, opts)
		if err != nil {
			t.Fatal(err)
		}
		return json.NewDecoder(res.Body), res.Body
	}
	one := func(opts client.ContainerStatsOptions) container.StatsResponse {
		t.Helper()
		dec, body := read(opts)
		defer body.Close()
		var s, more container.StatsResponse
		if err := dec.Decode(&s); err != nil {
			t.Fatal(err)
		}
		if err := dec.Decode(&more); err != io.EOF {
			t.Errorf("after the one record: %v", err)
		}
		return s
	}
	if s := one(client.ContainerStatsOptions{IncludePreviousSample: true}); s.ID != id || s.Name == "" || !s.Read.IsZero() || s.PidsStats.Current != 0 {
		t.Errorf("one that does not run: %+v", s)
	}
	g.start(id)
	if s := one(client.ContainerStatsOptions{}); s.PidsStats.Current != 1 || !s.PreRead.IsZero() || s.Networks["eth0"].RxErrors != 0 || len(s.Networks) != 1 {
		t.Errorf("one shot: %+v", s)
	}
	if s := one(client.ContainerStatsOptions{IncludePreviousSample: true}); s.PreCPUStats.SystemUsage == 0 || s.CPUStats.SystemUsage <= s.PreCPUStats.SystemUsage {
		t.Errorf("with the sample before: %+v", s)
	}
	dec, body := read(client.ContainerStatsOptions{Stream: true})
	defer body.Close()
	var first, second container.StatsResponse
	for _, s := range []*container.StatsResponse{&first, &second} {
		if err := dec.Decode(s); err != nil {
			t.Fatal(err)
		}
	}
	if !first.PreRead.IsZero() || !second.PreRead.Equal(first.Read) || second.PreCPUStats.SystemUsage != first.CPUStats.SystemUsage {
		t.Errorf("stream: %v, then %v after %v", first.Read, second.Read, second.PreRead)
	}
	// A paused one is still measured; the stream ends with the container.
	if _, err := g.ContainerPause(g.ctx, id, client.ContainerPauseOptions{}); err != nil {
		t.Fatal(err)
	}
	if s := one(client.ContainerStatsOptions{}); s.PidsStats.Current != 1 {
		t.Errorf("paused: %+v", s)
	}
	if _, err := g.ContainerRemove(g.ctx, id, client.ContainerRemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	for {
		var s container.StatsResponse
		if err := dec.Decode(&s); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
