package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/test/harness"
)

// failSyncs has every sync of the engine fail as on a broken disk, until the returned function is called.
func failSyncs(t *testing.T, e *harness.Engine) (mend func()) {
	t.Helper()
	const syncs = "fdatasync,fsync,syncfs"
	cmd := exec.Command("strace", "-f", "-e", "trace="+syncs, "-e", "inject="+syncs+":error=EIO", "-p", fmt.Sprint(e.PID()))
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	from := bufio.NewReader(said)
	line, err := from.ReadString('\n')
	if err != nil || !strings.Contains(line, "attached") {
		t.Fatalf("strace: %q, %v", line, err)
	}
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(io.Discard, from) }) // a full pipe would keep strace, and with it the engine, from going on
	done := false
	mend = func() {
		if done {
			return
		}
		done = true
		_ = cmd.Process.Signal(syscall.SIGTERM)
		reading.Wait()
		_ = cmd.Wait() // it says how the signal has ended it
	}
	t.Cleanup(mend)
	return mend
}

// TestDiskThatFailsOnce: Linux answers success to the next sync, which nobody may believe. Containers go on, the user is
// told, and the next engine has all that was there before.
func TestDiskThatFailsOnce(t *testing.T) {
	e := harness.Start(t, harness.Options{})
	e.Load(t, "busybox")
	e.OK(t, "cleat", "run", "-d", "--name", "before", "busybox", "sleep", "1000")
	pid := e.OK(t, "cleat", "inspect", "-f", "{{.State.Pid}}", "before")
	tag := func(name string) harness.Result { return e.Cleat(t, "tag", "busybox", name) }
	if r := tag("known"); r.Code != 0 {
		t.Fatal(r)
	}
	mend := failSyncs(t, e)
	const told = "could not be written to the disk"
	if r := tag("lost"); r.Code == 0 || !strings.Contains(r.Stderr, "input/output error") {
		t.Errorf("while the disk fails: %s", r)
	}
	mend()
	if r := tag("lost"); r.Code == 0 || !strings.Contains(r.Stderr, told) || !strings.Contains(r.Stderr, "meta.db") {
		t.Errorf("when the disk answers success again: %s", r)
	}
	if info := e.OK(t, "cleat", "info", "-f", "{{.Warnings}}"); !strings.Contains(info, told) {
		t.Errorf("info does not warn: %s", info)
	}
	if out := e.OK(t, "cleat", "exec", "before", "echo", "goes on"); out != "goes on" {
		t.Errorf("the container: %q", out)
	}
	e.OK(t, "cleat", "run", "--rm", "busybox", "true") // of an image that is held already
	e.Kill()
	e.Run(t)
	if now := e.OK(t, "cleat", "inspect", "-f", "{{.State.Pid}}", "before"); now != pid {
		t.Errorf("the container has %s, it had %s", now, pid)
	}
	if info := e.OK(t, "cleat", "info", "-f", "{{.Warnings}}"); strings.Contains(info, told) {
		t.Errorf("info still warns: %s", info)
	}
	e.OK(t, "cleat", "image", "inspect", "known")
	if r := tag("anew"); r.Code != 0 {
		t.Error(r)
	}
	if out, err := e.Debug(t, "fsck"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// hog takes the space of a filesystem.
type hog struct {
	path string
	dir  string
}

// leave has about n bytes be free.
func (h *hog) leave(t *testing.T, n int64) {
	t.Helper()
	var st unix.Statfs_t
	f, err := os.OpenFile(h.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err == nil {
		defer f.Close()
		err = unix.Statfs(h.dir, &st)
	}
	if err != nil {
		t.Fatal(err)
	}
	for free := int64(st.Bfree)*st.Bsize - n; free > 0; {
		k, err := f.Write(make([]byte, min(free, 1<<20)))
		if free -= int64(k); errors.Is(err, unix.ENOSPC) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (h *hog) free(t *testing.T) {
	t.Helper()
	if err := os.Remove(h.path); err != nil {
		t.Fatal(err)
	}
}

// A data root that others could enter, as a disk's own directory, is closed to them: there are set-uid programs in images,
// and secrets in volumes.
func TestDataRootIsClosedToOthers(t *testing.T) {
	e := harness.New(t, harness.Options{})
	if err := errors.Join(os.MkdirAll(e.DataRoot, 0o755), os.Chmod(e.DataRoot, 0o755|os.ModeSticky)); err != nil {
		t.Fatal(err)
	}
	e.Run(t)
	t.Cleanup(func() {
		e.Stop(t)
		e.Teardown(t)
		e.Destroy(t)
	})
	st, err := os.Stat(e.DataRoot)
	if err != nil || st.Mode() != os.ModeDir|os.ModeSticky|0o710 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

// onSmallDisk is an engine whose data root is a tmpfs with these options.
func onSmallDisk(t *testing.T, options string) *harness.Engine {
	t.Helper()
	e := harness.New(t, harness.Options{})
	if err := errors.Join(os.MkdirAll(e.DataRoot, 0o711), unix.Mount("cleat-test", e.DataRoot, "tmpfs", 0, "mode=711,"+options)); err != nil {
		t.Fatal(err)
	}
	e.Run(t)
	t.Cleanup(func() {
		if r := e.Cleat(t, "rm", "-f", "-v", "kept"); r.Code != 0 {
			t.Error(r)
		}
		e.Stop(t)
		e.Teardown(t)                                 // while it is known what there is
		harness.Eventually(t, func() (bool, string) { // a keeper that is ending may still have its log open
			err := unix.Unmount(e.DataRoot, 0)
			return err == nil, fmt.Sprint(err)
		})
		e.Destroy(t)
	})
	e.Load(t, "busybox")
	return e
}

// TestFullDisk has every verb that writes meet a disk that becomes full in the middle of it: it fails and says why, what
// was there before is there, and the engine goes on when there is space again.
func TestFullDisk(t *testing.T) {
	e := onSmallDisk(t, "size=64m")
	h := &hog{filepath.Join(e.DataRoot, "hog"), e.DataRoot}
	e.OK(t, "cleat", "volume", "create", "kept")
	e.OK(t, "cleat", "network", "create", "kept")
	// It writes to its log all the time.
	e.OK(t, "cleat", "run", "-d", "--name", "kept", "-v", "kept:/v", "busybox", "sh", "-c", "echo first; while :; do echo line; sleep 0.05; done")
	from := t.TempDir()
	big := filepath.Join(from, "big.tar")
	if err := errors.Join(os.WriteFile(filepath.Join(from, "file"), make([]byte, 3<<20), 0o600), exec.Command("tar", "-C", from, "-cf", big, "file").Run()); err != nil {
		t.Fatal(err)
	}
	lines := func() int {
		return strings.Count(e.OK(t, "cleat", "logs", "kept"), "\n")
	}
	verbs := [][]string{
		{"create", "--name", "new", "busybox", "true"},
		{"run", "--name", "new", "busybox", "sh", "-c", "echo a line >/dev/stdout"},
		{"run", "-d", "--name", "new", "-p", "0:80", "--network", "kept", "busybox", "sleep", "100"},
		{"exec", "kept", "true"},
		{"cp", filepath.Join(from, "file"), "kept:/"},
		{"commit", "kept", "made:commit"},
		{"import", big, "made:import"},
		{"tag", "busybox", "made:tag"},
		{"volume", "create", "new"},
		{"network", "create", "new"},
		{"rename", "kept", "other"},
		{"update", "--restart", "always", "kept"},
		{"restart", "-t", "0", "kept"},
	}
	for _, left := range []int64{0, 4 << 10, 12 << 10, 40 << 10, 400 << 10, 2 << 20} {
		for _, v := range verbs {
			h.leave(t, left)
			r := e.Cleat(t, v...)
			if r.Code != 0 && !strings.Contains(r.Stderr, "no space left on device") && !strings.Contains(r.Stderr, "No space left on device") {
				t.Errorf("with %d bytes left: %s", left, r)
			}
			if r := e.Cleat(t, "ps", "-q"); r.Code != 0 {
				t.Errorf("with %d bytes left: %s", left, r)
			}
			h.free(t)
			e.Cleat(t, "rename", "other", "kept") // if it has that name
			for _, undo := range [][]string{{"rm", "-f", "-v", "new"}, {"rmi", "made:commit", "made:import", "made:tag"}, {"volume", "rm", "new"}, {"network", "rm", "new"}} {
				e.Cleat(t, undo...) // what was not made cannot be removed
			}
			if state := e.OK(t, "cleat", "inspect", "-f", "{{.State.Running}}", "kept"); state != "true" {
				e.OK(t, "cleat", "start", "kept") // a restart ended in the middle, and said so
			}
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	// What ends a container, which may be what fills the disk, works there.
	e.OK(t, "cleat", "run", "-d", "--name", "filler", "--restart", "always", "busybox", "sleep", "600")
	for _, v := range [][]string{{"stop", "-t", "0", "filler"}, {"kill", "filler"}, {"rm", "-f", "filler"}} {
		e.Cleat(t, "start", "filler")
		h.leave(t, 0)
		if r := e.Cleat(t, v...); r.Code != 0 {
			t.Errorf("on a full disk: %s", r)
		}
		if r := e.Cleat(t, "ps", "-q", "--filter", "name=filler"); r.Stdout != "" {
			t.Errorf("%v on a full disk leaves it running: %s", v, r)
		}
		h.free(t)
	}
	h.leave(t, 0)
	e.Kill() // and what a killed engine leaves is swept on a full disk
	if err := e.TryRun(t); err != nil {
		t.Errorf("the engine on a full disk: %v\n%s", err, e.Log())
	} else if r := e.Cleat(t, "exec", "kept", "true"); r.Code != 0 {
		t.Errorf("a full disk keeps users out of a container: %s", r)
	}
	h.free(t)
	if e.Cleat(t, "ps").Code != 0 {
		e.Run(t)
	}
	at := lines()
	harness.Eventually(t, func() (bool, string) {
		n := lines()
		return n > at, fmt.Sprintf("%d lines of log, there were %d", n, at)
	})
	if log := e.OK(t, "cleat", "logs", "kept"); !strings.HasPrefix(log, "first\n") {
		t.Errorf("the log begins with %.20q", log)
	}
	e.OK(t, "cleat", "run", "--rm", "-v", "kept:/v", "--network", "kept", "busybox", "true")
	harness.Eventually(t, func() (bool, string) { out, err := e.Debug(t, "fsck"); return err == nil, out })
	c := e.Client(t)
	list, err := c.ImageList(context.Background(), client.ImageListOptions{All: true})
	if err != nil || len(list.Items) != 1 {
		t.Errorf("images are left: %v, %v", list.Items, err)
	}
}

// TestBuildsOnAFullDisk: what a build has received when the disk becomes full is freed when it fails, and the cache of
// builds can be pruned on a disk that was full when the engine came.
func TestBuildsOnAFullDisk(t *testing.T) {
	e := onSmallDisk(t, "size=64m")
	h := &hog{filepath.Join(e.DataRoot, "hog"), e.DataRoot}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM busybox\nCOPY . /in\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e.OK(t, "cleat", "build", "-q", dir)
	for _, name := range []string{"a", "b"} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 40<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if r := e.Cleat(t, "build", dir); r.Code == 0 || !strings.Contains(r.Stderr, "no space left on device") {
		t.Errorf("a context of 80 MiB on a disk of 64: %s", r)
	}
	harness.Eventually(t, func() (bool, string) {
		var fs unix.Statfs_t
		err := unix.Statfs(e.DataRoot, &fs)
		return err == nil && int64(fs.Bavail)*fs.Bsize > 48<<20, fmt.Sprintf("%d bytes are free", int64(fs.Bavail)*fs.Bsize)
	})
	h.leave(t, 0)
	e.Stop(t)
	e.Run(t)
	if r := e.Cleat(t, "builder", "prune", "-a", "-f"); r.Code != 0 || !strings.Contains(r.Stdout, "Total:") {
		t.Errorf("prune on a full disk: %s", r)
	}
	h.free(t)
	e.OK(t, "cleat", "run", "-d", "--name", "kept", "busybox", "sleep", "1000")
}

// TestRemovalsOnAFullDisk: on a disk without a free byte or without a free inode a killed engine comes up again, and what
// makes room, or tells where some can be made, works.
func TestRemovalsOnAFullDisk(t *testing.T) {
	for what, fill := range map[string]func(t *testing.T, root string){
		"bytes": func(t *testing.T, root string) { (&hog{filepath.Join(root, "hog"), root}).leave(t, 0) },
		"inodes": func(t *testing.T, root string) {
			for i := 0; ; i++ {
				f, err := os.OpenFile(filepath.Join(root, fmt.Sprint("hog", i)), os.O_CREATE|os.O_WRONLY, 0o600)
				if errors.Is(err, unix.ENOSPC) {
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				f.Close()
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			e := onSmallDisk(t, "size=60m,nr_inodes=2500")
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM busybox\nRUN echo made >/made\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			e.OK(t, "cleat", "build", "-q", "-t", "made", dir)
			for _, name := range []string{"one", "two", "three"} {
				e.OK(t, "cleat", "network", "create", name)
				e.OK(t, "cleat", "volume", "create", name)
				e.OK(t, "cleat", "run", "-d", "--name", name, "--network", name, "-v", name+":/v", "made", "sleep", "600")
				e.OK(t, "cleat", "tag", "made", "tagged:"+name)
			}
			e.OK(t, "cleat", "stop", "-t", "0", "three")
			for i, verb := range [][]string{
				{"system", "df"}, {"builder", "du"}, {"builder", "prune", "-f"}, {"rm", "-f", "one"}, {"container", "prune", "-f"}, {"volume", "rm", "one"},
				{"volume", "prune", "-a", "-f"}, {"network", "rm", "one"}, {"network", "prune", "-f"}, {"rmi", "tagged:one"}, {"builder", "prune", "-a", "-f"},
				{"rm", "-f", "-v", "two"}, {"image", "prune", "-a", "-f"}, {"system", "prune", "-a", "-f", "--volumes"}, {"volume", "prune", "-a", "-f"},
			} {
				fill(t, e.DataRoot)
				if i == 0 { // the builder opens its databases there, too
					e.Kill()
					e.Run(t)
				}
				if r := e.Cleat(t, verb...); r.Code != 0 {
					t.Errorf("%q on a full disk: %s", verb, r)
				}
			}
			if left := e.OK(t, "cleat", "ps", "-aq") + e.OK(t, "cleat", "images", "-q") + e.OK(t, "cleat", "volume", "ls", "-q") + e.OK(t, "cleat", "network", "ls", "-q", "--filter", "type=custom"); left != "" {
				t.Errorf("left: %s", left)
			}
			hogs, _ := filepath.Glob(filepath.Join(e.DataRoot, "hog*"))
			for _, h := range hogs {
				if err := os.Remove(h); err != nil {
					t.Fatal(err)
				}
			}
			if out, err := e.Debug(t, "fsck"); err != nil {
				t.Errorf("%v: %s", err, out)
			}
			e.Load(t, "busybox")
			e.OK(t, "cleat", "run", "-d", "--name", "kept", "busybox", "sleep", "600")
		})
	}
}

// TestNoInodes: who is refused a file for want of inodes is not told that the disk is full, of which it has half.
func TestNoInodes(t *testing.T) {
	e := onSmallDisk(t, "size=64m,nr_inodes=900")
	e.OK(t, "cleat", "run", "-d", "--name", "kept", "busybox", "sleep", "1000")
	many := t.TempDir()
	for i := range 1000 {
		if err := os.WriteFile(filepath.Join(many, strconv.Itoa(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(many, "Dockerfile"), []byte("FROM busybox\nCOPY . /in\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "many.tar")
	if err := exec.Command("tar", "-C", many, "-cf", archive, ".").Run(); err != nil {
		t.Fatal(err)
	}
	e.UseBuildx(t)
	filler := filepath.Join(e.DataRoot, "filler")
	if err := os.Mkdir(filler, 0o700); err != nil {
		t.Fatal(err)
	}
	for i, err := 0, error(nil); err == nil; i++ {
		err = os.Symlink("x", filepath.Join(filler, strconv.Itoa(i)))
	}
	// Before there is a builder, and with clients that show nothing of an answer to who wants to take over a connection.
	for _, verb := range [][]string{{"cleat", "build", many}, {"docker", "build", many}, {"docker", "buildx", "du"}} {
		if r := e.Do(t, verb[0], "", verb[1:]...); r.Code == 0 || !strings.Contains(r.Stderr, "no inodes are left") {
			t.Errorf("%v: %s", verb, r)
		}
	}
	if err := os.RemoveAll(filler); err != nil {
		t.Fatal(err)
	}
	e.OK(t, "cleat", "builder", "prune", "-f") // has the builder there
	for _, verb := range [][]string{{"build", many}, {"import", archive, "made"}, {"cp", many, "kept:/"}, {"volume", "create", "new"}, {"network", "create", "new"}} {
		if r := e.Cleat(t, verb...); r.Code == 0 || !strings.Contains(r.Stderr, "no inodes are left") {
			t.Errorf("%v: %s", verb, r)
		}
	}
}

// TestFirstStartIsOnTheDisk: a loss of power soon after the first start of a container with a restart policy leaves that it
// was started. What the disk would have then is looked at in a copy of it; by itself the filesystem would write nothing.
func TestFirstStartIsOnTheDisk(t *testing.T) {
	e := harness.New(t, harness.Options{})
	disk, copied, at := filepath.Join(t.TempDir(), "disk"), filepath.Join(t.TempDir(), "copy"), t.TempDir()
	run := func(line string) {
		t.Helper()
		if out, err := exec.Command("sh", "-ec", line).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
	run(fmt.Sprintf("truncate -s 96M %s; mkfs.ext4 -q %[1]s; mkdir -p %[2]s; mount -o loop,commit=600 %[1]s %[2]s; chmod 711 %[2]s", disk, e.DataRoot))
	e.Run(t)
	t.Cleanup(func() {
		e.Cleat(t, "rm", "-f", "kept")
		e.Stop(t)
		e.Teardown(t)
		harness.Eventually(t, func() (bool, string) {
			err := unix.Unmount(e.DataRoot, 0)
			return err == nil, fmt.Sprint(err)
		})
		e.Destroy(t)
	})
	e.Load(t, "busybox")
	id := e.OK(t, "cleat", "create", "--name", "kept", "--restart", "always", "busybox", "sleep", "600")
	run("sync -f " + e.DataRoot)
	e.OK(t, "cleat", "start", "kept")
	harness.Eventually(t, func() (bool, string) {
		run(fmt.Sprintf("cp --sparse=always %s %s; mount -o loop %[2]s %s", disk, copied, at))
		b, err := os.ReadFile(filepath.Join(at, "containers", id, "state.json"))
		run("umount " + at)
		return err == nil && strings.Contains(string(b), `"Status":"running"`), fmt.Sprintf("%q, %v", b, err)
	})
}
