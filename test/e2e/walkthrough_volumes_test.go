package e2e

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// TestPostgresWithAVolume is the database of every article: its data outlive its
// containers; a clone that is made while it writes is a database, too; a snapshot
// takes it back.
func TestPostgresWithAVolume(t *testing.T) {
	e := engine(t, "postgres")
	const program = "docker" // TestPostgres has both clients
	n := name(t)
	v, copied := n+"-pgdata", n+"-copy"
	remove(t, e, n, copied)
	t.Cleanup(func() {
		e.OK(t, "cleat", "rm", "-f", n, copied)
		e.OK(t, "cleat", "volume", "rm", "-f", v, copied)
	})
	sql := func(container, query string) string {
		return e.OK(t, program, "exec", "-u", "postgres", container, "psql", "-qtAc", query)
	}
	up := func(container, volume string) {
		t.Helper()
		e.OK(t, program, "run", "-d", "--name", container, "-e", "POSTGRES_PASSWORD=mysecretpassword", "-v", volume+":/var/lib/postgresql/data", "-p", "127.0.0.1:0:5432", "postgres")
		harness.Eventually(t, func() (bool, string) {
			r := e.Do(t, program, "", "exec", "-u", "postgres", container, "psql", "-qtAc", "select 1")
			return r.Line() == "1", r.String() + e.Do(t, program, "", "logs", "-n", "5", container).String()
		})
	}
	up(n, v)
	conn, err := net.Dial("tcp", e.OK(t, program, "port", n, "5432/tcp"))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	sql(n, "create table t (n int); insert into t values (1)")
	e.OK(t, program, "rm", "-f", n)
	up(n, v)
	if got := sql(n, "select n from t"); got != "1" {
		t.Errorf("after the container was made anew: %q", got)
	}
	// While it writes.
	e.OK(t, program, "exec", "-d", "-u", "postgres", n, "sh", "-c", "i=2; while psql -qc \"insert into t values ($i)\"; do i=$((i+1)); done")
	harness.Eventually(t, func() (bool, string) { c := sql(n, "select count(*) > 5 from t"); return c == "t", c })
	if r := e.Cleat(t, "volume", "clone", v, copied); r.Code != 0 {
		t.Fatalf("%s", r)
	} else {
		t.Log(strings.TrimSpace(r.Stderr))
	}
	up(copied, copied)
	if got := sql(copied, "select count(*) = max(n) and min(n) = 1 and count(*) > 5 from t"); got != "t" {
		t.Errorf("the clone has %s", sql(copied, "select count(*), min(n), max(n) from t"))
	}
	e.OK(t, "cleat", "volume", "snapshot", v, "before")
	kept := sql(n, "select max(n) from t")
	e.OK(t, program, "stop", n)
	e.OK(t, "cleat", "volume", "restore", v, "before")
	e.OK(t, program, "start", n)
	harness.Eventually(t, func() (bool, string) {
		r := e.Do(t, program, "", "exec", "-u", "postgres", n, "psql", "-qtAc", "select count(*) <= "+kept+" from t")
		return r.Line() == "t", r.String()
	})
}

// TestLiveEdits is development: the source on the host, the program in the container,
// and what is edited on either side is there on the other at once.
func TestLiveEdits(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		n, dir := name(t), t.TempDir()
		remove(t, e, n)
		src := filepath.Join(dir, "src")
		write := func(text string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(src, "app.sh"), []byte("echo "+text+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Mkdir(src, 0o755); err != nil {
			t.Fatal(err)
		}
		write("one")
		cmd := e.Command(t, program, "run", "-d", "--name", n, "-v", "./src:/app", "-w", "/app", "busybox", "sleep", "600")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, text := range []string{"one", "two", "three"} {
			write(text)
			if got := e.OK(t, program, "exec", n, "sh", "app.sh"); got != text {
				t.Errorf("%q, edited to %s", got, text)
			}
		}
		// An editor that writes a new file and renames it.
		if err := os.WriteFile(filepath.Join(src, "app.tmp"), []byte("echo renamed\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(src, "app.tmp"), filepath.Join(src, "app.sh")); err != nil {
			t.Fatal(err)
		}
		if got := e.OK(t, program, "exec", n, "sh", "app.sh"); got != "renamed" {
			t.Errorf("%q", got)
		}
		e.OK(t, program, "exec", n, "sh", "-c", "echo built >out")
		if got, err := os.ReadFile(filepath.Join(src, "out")); err != nil || string(got) != "built\n" {
			t.Errorf("%q, %v", got, err)
		}
		// The same, read-only.
		if r := e.Do(t, program, "", "run", "--rm", "-v", src+":/app:ro", "busybox", "touch", "/app/x"); r.Code != 1 || !strings.Contains(r.Stderr, "Read-only file system") {
			t.Errorf("%s", r)
		}
		if r := e.Do(t, program, "", "run", "--rm", "--mount", "type=bind,source="+src+",target=/app,readonly", "busybox", "rm", "/app/out"); r.Code != 1 || !strings.Contains(r.Stderr, "Read-only file system") {
			t.Errorf("%s", r)
		}
	})
}

// TestBackUpWithVolumesFrom is Docker's documented way to back a volume up, and to
// restore it into another container.
func TestBackUpWithVolumesFrom(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		n, dir := name(t), t.TempDir()
		store, store2 := n+"-dbstore", n+"-dbstore2"
		remove(t, e, store, store2)
		e.OK(t, program, "run", "--name", store, "-v", "/dbdata", "busybox", "sh", "-c", "echo precious >/dbdata/f; chown 5:6 /dbdata/f")
		e.OK(t, program, "run", "--rm", "--volumes-from", store, "-v", dir+":/backup", "busybox", "tar", "cf", "/backup/backup.tar", "/dbdata")
		e.OK(t, program, "run", "--name", store2, "-v", "/dbdata", "busybox", "true")
		e.OK(t, program, "run", "--rm", "--volumes-from", store2, "-v", dir+":/backup:ro", "busybox", "sh", "-c", "cd /dbdata && tar xf /backup/backup.tar --strip-components 1")
		if got := e.OK(t, program, "run", "--rm", "--volumes-from", store2+":ro", "busybox", "sh", "-c", "cat /dbdata/f; stat -c %u:%g /dbdata/f"); got != "precious\n5:6" {
			t.Errorf("%q", got)
		}
		// What the engine itself imports is the same archive's.
		e.OK(t, "cleat", "volume", "import", n, filepath.Join(dir, "backup.tar"))
		t.Cleanup(func() { e.OK(t, "cleat", "volume", "rm", n) })
		if got := e.OK(t, program, "run", "--rm", "-v", n+":/v", "busybox", "cat", "/v/dbdata/f"); got != "precious" {
			t.Errorf("%q", got)
		}
	})
}
