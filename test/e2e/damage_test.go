package e2e

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// damage ends the engine, gives a file of it the contents and returns what undoes that.
func damage(t *testing.T, e *harness.Engine, path string, contents []byte) (undo func()) {
	t.Helper()
	e.Kill()
	path = filepath.Join(e.DataRoot, path)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, contents, 0o600); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.WriteFile(path, before, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDamagedFiles: what the engine cannot do without it names, and says the way out; nothing is removed, and what runs
// goes on. What it can do without it makes anew. What single objects need is TestDamageOfAllButOne's.
func TestDamagedFiles(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	e.OK(t, "cleat", "network", "create", "net")
	id := e.OK(t, "cleat", "run", "-d", "--name", "kept", "--network", "net", "--restart", "always", "busybox", "sleep", "1000")
	pid := e.OK(t, "cleat", "inspect", "-f", "{{.State.Pid}}", "kept")
	garbage := bytes.Repeat([]byte("garbage!"), 2048)
	for _, c := range []struct {
		path, says string
		contents   []byte
	}{
		{"engine-id", "remove it", []byte("nonsense")},
		{"images/meta.db", "put a copy back", nil},
		{"images/snapshots/metadata.db", "put a copy back", nil},
	} {
		undo := damage(t, e, c.path, c.contents)
		said := len(e.Log())
		err := e.TryRun(t)
		if err == nil {
			t.Errorf("the engine starts with a damaged %s", c.path)
			e.Kill()
		} else if log := e.Log()[said:]; !strings.Contains(log, filepath.Join(e.DataRoot, c.path)) || !strings.Contains(log, c.says) {
			t.Errorf("%s: %s", c.path, log)
		}
		undo()
		e.Run(t)
		if now := e.OK(t, "cleat", "inspect", "-f", "{{.State.Pid}}", "kept"); now != pid {
			t.Errorf("after a damaged %s the container has process %s, not %s", c.path, now, pid)
		}
	}
	e.OK(t, "cleat", "run", "--rm", "busybox", "true")

	damage(t, e, "containers/"+id+"/state.json", nil) // as a crash of the machine may leave it
	e.Run(t)
	harness.Eventually(t, func() (bool, string) {
		state := e.OK(t, "cleat", "inspect", "-f", "{{.State.Status}}", "kept")
		return state == "running", "the restart policy does not hold for a container whose state is lost: it is " + state
	})
	damagedCaches(t, e, garbage)
}

// TestEngineIDThatCannotBeRead: it is not replaced, as it may be read again when its disk is mended. One of which a crash of
// the machine has left an empty file is, and the log says so.
func TestEngineIDThatCannotBeRead(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	undo := damage(t, e, "engine-id", nil)
	path := filepath.Join(e.DataRoot, "engine-id")
	if err := errors.Join(os.Remove(path), os.Symlink(path, path)); err != nil { // a loop, for want of a disk that fails
		t.Fatal(err)
	}
	said := len(e.Log())
	if err := e.TryRun(t); err == nil {
		t.Error("the engine starts with an id that it cannot read")
		e.Kill()
	} else if log := e.Log()[said:]; !strings.Contains(log, path) || !strings.Contains(log, "remove it") {
		t.Errorf("the refusal: %s", log)
	}
	for _, command := range []string{"fsck", "teardown"} {
		if out, err := e.Debug(t, command); err == nil || !strings.Contains(out, path) {
			t.Errorf("debug %s: %v %s", command, err, out)
		}
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	undo()
	said = len(e.Log())
	e.Run(t)
	if log := e.Log()[said:]; strings.Contains(log, path) {
		t.Errorf("of a whole id: %s", log)
	}
	damage(t, e, "engine-id", nil)
	e.Run(t)
	if log := e.Log()[said:]; !strings.Contains(log, "level=WARN") || !strings.Contains(log, path) {
		t.Errorf("of an empty id: %s", log)
	}
}

// damagedCaches looks at the databases of builds, which are made anew.
func damagedCaches(t *testing.T, e *harness.Engine, garbage []byte) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM busybox\nRUN echo built > /x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.OK(t, "cleat", "build", "-q", "-t", "built", dir)
	for _, name := range []string{"history.db", "cache.db", "refs.db"} {
		whole, err := os.ReadFile(filepath.Join(e.DataRoot, "build", name))
		if err != nil {
			t.Fatal(err)
		}
		for what, contents := range map[string][]byte{"empty": nil, "half made": whole[:4096], "cut short": whole[:3*4096], "overwritten": garbage} {
			damage(t, e, "build/"+name, contents)
			e.Run(t)
			if r := e.Cleat(t, "build", "-q", "-t", "built", dir); r.Code != 0 {
				t.Errorf("a build when %s is %s: %s\n%s", name, what, r, e.Log())
			}
			if out := e.OK(t, "cleat", "run", "--rm", "built", "cat", "/x"); out != "built" {
				t.Errorf("what is built when %s is %s: %q", name, what, out)
			}
		}
	}
}

// TestVolumesOfAContainerOutOfOrder: what a container runs with stays as it is while nobody knows that it does: it is not
// unmounted, so that no other container finds it empty, and not deleted.
func TestVolumesOfAContainerOutOfOrder(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	e.OK(t, "cleat", "volume", "create", "plain")
	e.OK(t, "cleat", "volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "mounted")
	id := e.OK(t, "cleat", "run", "-d", "-v", "plain:/plain", "-v", "mounted:/mounted", "busybox", "sleep", "1000")
	e.OK(t, "cleat", "exec", id, "touch", "/plain/kept", "/mounted/kept")
	undo := damage(t, e, filepath.Join("containers", id, "config.json"), []byte("nonsense"))
	e.Run(t)
	for _, name := range []string{"plain", "mounted"} {
		if r := e.Cleat(t, "volume", "rm", name); r.Code == 0 || !strings.Contains(r.String(), "put a copy of that file back") {
			t.Errorf("removing the volume %s: %s", name, r)
		}
		for range 2 { // the end of the first takes nothing away
			if out := e.OK(t, "cleat", "run", "--rm", "-v", name+":/v", "busybox", "ls", "/v"); out != "kept" {
				t.Errorf("what another container finds in the volume %s: %q", name, out)
			}
		}
	}
	if r := e.Cleat(t, "volume", "rm", "none"); !strings.Contains(r.String(), "no such volume") {
		t.Errorf("removing a volume that is not there: %s", r)
	}
	e.Kill()
	undo()
	e.Run(t)
	e.OK(t, "cleat", "rm", "-f", id)
	e.OK(t, "cleat", "volume", "rm", "plain", "mounted")
}

// TestAnonymousVolumeOfAContainerOutOfOrder: a container that has another one's anonymous volume keeps it while nobody
// knows that it does, whoever is removed; and nobody gets no volumes in place of those that are not known.
func TestAnonymousVolumeOfAContainerOutOfOrder(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	e.OK(t, "cleat", "create", "--name", "first", "-v", "/data", "busybox")
	id := e.OK(t, "cleat", "run", "-d", "--volumes-from", "first", "busybox", "sleep", "1000")
	e.OK(t, "cleat", "exec", id, "touch", "/data/kept")
	anonymous := e.OK(t, "cleat", "volume", "ls", "-q")
	e.OK(t, "cleat", "volume", "create", "named")
	e.OK(t, "cleat", "volume", "snapshot", "named", "before")
	undo := damage(t, e, filepath.Join("containers", id, "config.json"), []byte("nonsense"))
	e.Run(t)
	for _, args := range []string{"create --volumes-from " + id + " busybox", "volume rename named other", "volume restore named before"} {
		if r := e.Cleat(t, strings.Fields(args)...); r.Code == 0 || !strings.Contains(r.String(), "put a copy of that file back") {
			t.Errorf("%s: %s", args, r)
		}
	}
	e.OK(t, "cleat", "rm", "-v", "first")
	e.Kill()
	undo()
	e.Run(t)
	if out := e.OK(t, "cleat", "exec", id, "ls", "/data"); out != "kept" {
		t.Errorf("what is left in the volume: %q", out)
	}
	e.OK(t, "cleat", "rm", "-f", id)
	if out := e.OK(t, "cleat", "volume", "prune", "-f"); !strings.Contains(out, anonymous) {
		t.Errorf("prune: %q", out)
	}
}
