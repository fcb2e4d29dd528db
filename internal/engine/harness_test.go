package engine_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	apibuild "github.com/moby/moby/api/types/build"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/jsonstream"

	"github.com/cleatlabs/cleat/internal/cgroup"
	"github.com/cleatlabs/cleat/internal/container"
	"github.com/cleatlabs/cleat/internal/engine"
	"github.com/cleatlabs/cleat/internal/events"
	"github.com/cleatlabs/cleat/internal/image"
	"github.com/cleatlabs/cleat/internal/keeper"
	"github.com/cleatlabs/cleat/internal/kernel"
	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/internal/registryclient"
	"github.com/cleatlabs/cleat/internal/runtime"
	"github.com/cleatlabs/cleat/internal/store"
	"github.com/cleatlabs/cleat/internal/supervise"
	"github.com/cleatlabs/cleat/internal/volume"
	"github.com/cleatlabs/cleat/test/expect"
)

// patience bounds a hang; no verdict depends on anything being faster.
const patience = time.Minute

var labs atomic.Int32

// lab is a private engine below the API.
type lab struct {
	*engine.Engine
	tb       testing.TB
	dir      string
	exec     string
	settings engine.Settings
	net      network.Config
	bus      *events.Bus
	volumes  *volume.Service
	tasks    *supervise.Group
	close    func()
}

func newLab(tb testing.TB) *lab {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("starting containers needs root")
	}
	n := int(labs.Add(1))
	exec, err := os.MkdirTemp("/dev/shm", "cleat-engine-")
	if err != nil {
		tb.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "cleat-engine-")
	if err != nil {
		tb.Fatal(err)
	}
	id := os.Getpid()*16 + n%16
	subnet := ownSubnet(tb, id)
	l := &lab{tb: tb, dir: dir, exec: exec}
	l.settings = engine.Settings{
		DataRoot: dir, ExecRoot: exec, CgroupParent: fmt.Sprintf("/cleat-engine-%d", id), Adjustable: engine.Adjustable{StopTimeout: 10 * time.Second}, Version: "29.0.0",
	}
	l.net = network.Config{
		StateFile: filepath.Join(dir, "network.json"), Bridge: fmt.Sprintf("ce%d", id),
		BIP: subnet,
	}
	l.open()
	tb.Cleanup(l.destroy)
	l.loadBusybox()
	return l
}

// ownSubnet is a subnet that no other lab has, in whichever process: its owner holds a socket of its name.
func ownSubnet(tb testing.TB, from int) netip.Prefix {
	tb.Helper()
	const subnets = 50 * 256
	addresses, err := net.InterfaceAddrs() // of labs that were left behind
	if err != nil {
		tb.Fatal(err)
	}
	for i := range subnets {
		slot := (from + i) % subnets
		if strings.Contains(fmt.Sprint(addresses), fmt.Sprintf(" 10.%d.%d.1/", 150+slot/256, slot%256)) {
			continue
		}
		l, err := net.Listen("unix", fmt.Sprintf("@cleat-lab-subnet-%d", slot))
		if err != nil {
			continue
		}
		tb.Cleanup(func() { l.Close() })
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(150 + slot/256), byte(slot), 1}), 24)
	}
	tb.Fatal("all subnets of labs are in use")
	return netip.Prefix{}
}

// open starts the engine on the lab's directories.
func (l *lab) open() {
	l.tb.Helper()
	ctx := context.Background()
	must := func(err error) {
		l.tb.Helper()
		if err != nil {
			l.tb.Fatal(err)
		}
	}
	features, err := kernel.Probe()
	must(err)
	groups, err := cgroup.Detect()
	must(err)
	st, err := store.Open(ctx, store.Config{Root: filepath.Join(l.dir, "images")})
	must(err)
	reg, err := registryclient.New(registryclient.Config{})
	must(err)
	images, err := image.New(ctx, image.Config{Store: st, Registry: reg})
	must(err)
	networks, err := network.Open(ctx, l.net)
	must(err)
	containers, err := container.Open(filepath.Join(l.dir, "containers"))
	must(err)
	l.volumes, err = volume.Open(volume.Config{Root: filepath.Join(l.dir, "volumes")})
	must(err)
	rt, err := runtime.New(runtime.Config{
		Dir: filepath.Join(l.exec, "runtime"), FallbackDir: filepath.Join(l.dir, "runtime"), Cgroups: groups, Features: features,
	})
	must(err)
	tasks := supervise.New(ctx)
	l.tasks = tasks
	l.bus = events.NewBus()
	l.Engine = engine.New(engine.Deps{
		Containers: containers, Images: images, Networks: networks, Volumes: l.volumes, Events: l.bus, Runtime: rt, Cgroups: groups,
		Features: features, Tasks: tasks, Log: slog.New(slog.NewTextHandler(testWriter{l.tb}, nil)), Settings: l.settings, BuildCache: noCache{},
	})
	l.close = func() {
		stop, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		if err := tasks.Stop(stop); err != nil {
			l.tb.Errorf("goroutines are left: %v", err)
		}
		for _, err := range []error{rt.Close(), st.Close(), networks.Close()} {
			if err != nil {
				l.tb.Error(err)
			}
		}
	}
	must(l.Recovery.Run(ctx))
}

// noCache is the cache of a builder that has built nothing.
type noCache struct{}

func (noCache) DiskUsage(context.Context) (*apibuild.DiskUsage, error) {
	return &apibuild.DiskUsage{Items: []apibuild.CacheRecord{}}, nil
}

type testWriter struct{ tb testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "level=ERROR") {
		w.tb.Logf("%s", p)
	}
	return len(p), nil
}

// execNotes are the execs that a later engine would find.
func (l *lab) execNotes() (found []string) {
	dirs, _ := filepath.Glob(filepath.Join(l.settings.ExecRoot, "runtime", "*"))
	for _, d := range dirs {
		if _, err := keeper.ReadNote(d); err == nil {
			found = append(found, d)
		}
	}
	return found
}

// destroy removes everything and checks that nothing is left.
func (l *lab) destroy() {
	ctx := context.Background()
	list, err := l.List(ctx, engine.ListOptions{All: true})
	if err != nil {
		l.tb.Error(err)
	}
	for _, c := range list {
		if err := l.Remove(ctx, c.ID, engine.RemoveOptions{Force: true, Volumes: true}); err != nil {
			l.tb.Errorf("cleanup: %v", err)
		}
	}
	// One that ended with its container may still be noted: an engine that ends just then leaves it to the next one.
	expect.Eventually(l.tb, "end of all execs", func() bool { return len(l.execNotes()) == 0 })
	l.close()
	containers, err := container.Open(filepath.Join(l.dir, "containers"))
	if err != nil {
		l.tb.Error(err)
	} else if diff := engine.Check(containers, l.settings, nil); len(diff) > 0 {
		l.tb.Errorf("left behind: %q", diff)
	}
	if networks, err := network.Open(ctx, l.net); err != nil {
		l.tb.Error(err)
	} else if err := networks.Teardown(); err != nil {
		l.tb.Error(err)
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*" + l.settings.CgroupParent)
	unified, _ := filepath.Glob("/sys/fs/cgroup" + l.settings.CgroupParent) // where it may not be, all may be read-only
	for _, g := range append(groups, unified...) {
		if err := os.Remove(g); err != nil && !os.IsNotExist(err) {
			l.tb.Errorf("cleanup: %v", err)
		}
	}
	for _, d := range []string{l.dir, l.exec} {
		if err := os.RemoveAll(d); err != nil {
			l.tb.Errorf("cleanup: %v", err)
		}
	}
}

// loadBusybox makes an image of the host's static busybox.
func (l *lab) loadBusybox() {
	l.tb.Helper()
	program, err := os.ReadFile("/usr/bin/busybox")
	if err != nil {
		l.tb.Skipf("the test image needs a static busybox: %v", err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	add := func(h tar.Header, content []byte) {
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			l.tb.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			l.tb.Fatal(err)
		}
	}
	for _, d := range []string{"bin/", "etc/", "tmp/", "root/", "data/"} {
		add(tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	add(tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, program)
	for _, a := range []string{"sh", "true", "false", "sleep", "cat", "echo", "id", "ls", "env", "pwd", "touch", "kill", "test", "trap", "head", "stat"} {
		add(tar.Header{Name: "bin/" + a, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil)
	}
	add(tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"))
	add(tar.Header{Name: "etc/group", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:\nnobody:x:65534:\n"))
	add(tar.Header{Name: "data/seed", Typeflag: tar.TypeReg, Mode: 0o640, Uid: 65534, Gid: 65534}, []byte("from the image\n"))
	w.Close()
	sum := sha256.Sum256(layer.Bytes())
	config, err := json.Marshal(map[string]any{
		"architecture": goruntime.GOARCH, "os": "linux",
		"config": map[string]any{"Cmd": []string{"sh"}, "Env": []string{"PATH=/bin", "FROM=image"}, "Labels": map[string]string{"of": "image"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(sum[:])}},
	})
	if err != nil {
		l.tb.Fatal(err)
	}
	manifest := []byte(`[{"Config":"config.json","RepoTags":["busybox:latest"],"Layers":["layer.tar"]}]`)
	var archive bytes.Buffer
	w = tar.NewWriter(&archive)
	for _, f := range []struct {
		name    string
		content []byte
	}{{"config.json", config}, {"layer.tar", layer.Bytes()}, {"manifest.json", manifest}} {
		add(tar.Header{Name: f.name, Typeflag: tar.TypeReg, Mode: 0o644}, f.content)
	}
	w.Close()
	if err := l.Images.Load(context.Background(), &archive, image.LoadOptions{}, func(jsonstream.Message) {}); err != nil {
		l.tb.Fatal(err)
	}
}

// spec is a container to create, with the settings most tests use.
type spec struct {
	name string
	cmd  []string
	cfg  func(*api.Config)
	host func(*api.HostConfig)
}

func (l *lab) create(s spec) string {
	l.tb.Helper()
	id, _, err := l.tryCreate(s)
	if err != nil {
		l.tb.Fatal(err)
	}
	return id
}

func (l *lab) tryCreate(s spec) (string, []string, error) {
	req := engine.CreateRequest{
		Name: s.name, Config: &api.Config{Image: "busybox", Cmd: s.cmd}, HostConfig: &api.HostConfig{NetworkMode: "none"},
	}
	if s.cfg != nil {
		s.cfg(req.Config)
	}
	if s.host != nil {
		s.host(req.HostConfig)
	}
	return l.Create(context.Background(), req)
}

func (l *lab) start(s spec) string {
	l.tb.Helper()
	id := l.create(s)
	if err := l.Start(context.Background(), id); err != nil {
		l.tb.Fatal(err)
	}
	return id
}

// wait returns the exit code of cond.
func (l *lab) wait(id string, cond api.WaitCondition) int {
	l.tb.Helper()
	ch, err := l.Wait(context.Background(), id, cond)
	if err != nil {
		l.tb.Fatal(err)
	}
	return l.result(ch)
}

func (l *lab) result(ch <-chan engine.WaitResult) int {
	l.tb.Helper()
	select {
	case r := <-ch:
		return r.Code
	case <-time.After(patience):
		l.tb.Fatal("the wait does not end")
		return -1
	}
}

// output runs a container to its end and returns what it printed.
func (l *lab) output(s spec) string {
	l.tb.Helper()
	id := l.create(s)
	a, err := l.Attach(context.Background(), id, engine.AttachOptions{Stdout: true, Stderr: true, Stream: true})
	if err != nil {
		l.tb.Fatal(err)
	}
	if err := l.Start(context.Background(), id); err != nil {
		a.Close()
		l.tb.Fatal(err)
	}
	var out bytes.Buffer
	if err := a.Run(context.Background(), engine.StreamIO{Stdout: &out, Stderr: &out}); err != nil {
		l.tb.Fatal(err)
	}
	l.wait(id, "")
	return out.String()
}

func (l *lab) inspect(id string) *api.InspectResponse {
	l.tb.Helper()
	r, err := l.Inspect(context.Background(), id, false)
	if err != nil {
		l.tb.Fatal(err)
	}
	return r
}

// eventually waits for a condition that the engine reaches by itself.
func (l *lab) eventually(what string, ok func() bool) {
	l.tb.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			l.tb.Fatalf("it never came: %s", what)
		}
	}
}

// actions returns the actions of all past events about id.
func (l *lab) actions(id string) []string {
	past, _, cancel := l.bus.Subscribe(time.Unix(1, 0), time.Time{}, nil)
	cancel()
	var out []string
	for _, m := range past {
		if m.Actor.ID == id {
			out = append(out, string(m.Action))
		}
	}
	return out
}

// sequence says whether want occurs in got in this order.
func sequence(got, want []string) bool {
	for _, w := range want {
		i := slices.Index(got, w)
		if i < 0 {
			return false
		}
		got = got[i+1:]
	}
	return true
}

func dump(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
