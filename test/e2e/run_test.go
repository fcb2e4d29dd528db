package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

func TestRunPrintsAndReturnsTheExitCode(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		r := e.Do(t, program, "", "run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7")
		if r.Code != 7 || r.Stdout != "out\n" || r.Stderr != "err\n" {
			t.Errorf("%s", r)
		}
	})
}

func TestHelloWorld(t *testing.T) {
	e := engine(t, "hello-world")
	each(t, func(t *testing.T, program string) {
		if r := e.Do(t, program, "", "run", "--rm", "hello-world"); r.Code != 0 || !strings.Contains(r.Stdout, "Hello from Cleat!") {
			t.Errorf("%s", r)
		}
	})
}

func TestRunExitCodesOfFailures(t *testing.T) {
	e := engine(t, "busybox")
	mark := "of=" + name(t)
	each(t, func(t *testing.T, program string) {
		for _, c := range []struct {
			what string
			args []string
			code int
			text string
		}{
			{"missing binary", []string{"busybox", "no-such-program"}, 127, "executable file not found in $PATH"},
			{"missing absolute path", []string{"busybox", "/no/such"}, 127, "no such file or directory"},
			{"not executable", []string{"busybox", "/etc/passwd"}, 126, "permission denied"},
			{"directory", []string{"busybox", "/etc"}, 126, "is a directory"},
			{"unknown flag", []string{"--no-such-flag", "busybox"}, 125, "no-such-flag"},
			{"bad memory", []string{"-m", "lots", "busybox"}, 125, "lots"},
			{"upper case", []string{"Busybox"}, 125, "must be lowercase"},
			{"bad port", []string{"-p", "99999:80", "busybox"}, 125, "99999"},
		} {
			r := e.Do(t, program, "", append([]string{"run", "--rm", "--label", mark}, c.args...)...)
			if r.Code != c.code || !strings.Contains(strings.ToLower(r.Stderr), strings.ToLower(c.text)) {
				t.Errorf("%s: want exit %d and %q, got %s", c.what, c.code, c.text, r)
			}
		}
	})
	harness.Eventually(t, func() (bool, string) {
		left := e.OK(t, "cleat", "ps", "-aq", "--filter", "label="+mark)
		return left == "", "failed runs left containers: " + left
	})
}

func TestStdinAndHalfClose(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		input := strings.Repeat("a line of input\n", 5000)
		if r := e.Do(t, program, input, "run", "--rm", "-i", "busybox", "cat"); r.Code != 0 || r.Stdout != input {
			t.Errorf("exit %d, %d of %d bytes came back; stderr %s", r.Code, len(r.Stdout), len(input), r.Stderr)
		}
	})
}

// TestInside looks at the container from within, one option at a time.
func TestInside(t *testing.T) {
	e := engine(t, "busybox")
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "f"), []byte("from the host\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	envFile := filepath.Join(host, "env")
	if err := os.WriteFile(envFile, []byte("# a comment\nFROM_FILE=yes\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	profile := filepath.Join(host, "seccomp.json")
	if err := os.WriteFile(profile, []byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	each(t, func(t *testing.T, program string) {
		for _, c := range []struct {
			what string
			args []string // options and image
			sh   string
			want string
		}{
			{"entrypoint", []string{"--entrypoint", "echo", "busybox"}, "not run", "sh -c not run"},
			{"no entrypoint", []string{"--entrypoint", "", "busybox"}, "echo run", "run"},
			{"environment", []string{"-e", "A=b c", "--env-file", envFile, "busybox"}, `echo "$A $FROM_FILE"`, "b c yes"},
			{"workdir is made", []string{"-w", "/a/b", "busybox"}, "pwd", "/a/b"},
			{"user by number", []string{"-u", "1234:5678", "busybox"}, "id -u; id -g", "1234\n5678"},
			{"user by name", []string{"-u", "user", "busybox"}, "id", "uid=1000(user) gid=1000(user) groups=1000(user),2000(extra)"},
			{"group-add", []string{"-u", "user", "--group-add", "77", "busybox"}, "id -G", "1000 77 2000"},
			{"hostname", []string{"-h", "tower", "busybox"}, "hostname; cat /etc/hostname; grep -c tower /etc/hosts", "tower\ntower\n1"},
			{"ulimit", []string{"--ulimit", "nofile=123:456", "busybox"}, "ulimit -n; ulimit -Hn", "123\n456"},
			{"read-only", []string{"--read-only", "busybox"}, "touch /x 2>&1 || true; touch /dev/shm/y && echo shm", "touch: /x: Read-only file system\nshm"},
			{"tmpfs", []string{"--tmpfs", "/scratch:size=1m,mode=700", "busybox"}, "stat -f -c %T /scratch; stat -c %a /scratch", "tmpfs\n700"},
			{"bind", []string{"-v", host + ":/h", "busybox"}, "cat /h/f", "from the host"},
			{"bind read-only", []string{"-v", host + ":/h:ro", "busybox"}, "touch /h/g 2>&1 || true", "touch: /h/g: Read-only file system"},
			{"bind by --mount", []string{"--mount", "type=bind,src=" + host + ",dst=/h,readonly", "busybox"}, "cat /h/f", "from the host"},
			{"shm-size", []string{"--shm-size", "8m", "busybox"}, "df -m /dev/shm | awk 'NR==2{print $2}'", "8"},
			{"pid namespace", []string{"busybox"}, "echo $$", "1"},
			{"init", []string{"--init", "busybox"}, "[ $$ -ne 1 ] && cat /proc/1/comm; (sleep 0 &); until [ -z \"$(ps -o stat | grep Z)\" ]; do sleep 0.01; done; echo reaped", "cleat-init\nreaped"},
			{"default capabilities", []string{"busybox"}, "grep CapEff /proc/self/status", "CapEff:\t00000000a80425fb"},
			{"cap-drop all", []string{"--cap-drop", "ALL", "--cap-add", "net_raw", "busybox"}, "grep CapEff /proc/self/status", "CapEff:\t0000000000002000"},
			{"no new privileges", []string{"--security-opt", "no-new-privileges", "busybox"}, "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1"},
			{"seccomp on", []string{"busybox"}, "grep Seccomp: /proc/self/status", "Seccomp:\t2"},
			{"seccomp off", []string{"--security-opt", "seccomp=unconfined", "busybox"}, "grep Seccomp: /proc/self/status", "Seccomp:\t0"},
			{"seccomp refuses", []string{"busybox"}, "unshare -U true 2>&1 || true", "unshare: unshare(0x10000000): Operation not permitted"},
			{"masked path", []string{"busybox"}, "for f in /proc/kcore /proc/keys /proc/timer_list; do [ ! -e $f ] || wc -c <$f; done | sort -u; ls /sys/firmware 2>/dev/null | wc -l", "0\n0"},
			{"read-only /proc/sys", []string{"busybox"}, "echo 1 >/proc/sys/kernel/panic 2>/dev/null || echo refused", "refused"},
			{"a profile of one's own", []string{"--security-opt", "seccomp=" + profile, "busybox"}, "mkdir /x 2>&1; unshare -U true && echo unshared", "mkdir: can't create directory '/x': Function not implemented\nunshared"},
			{"bare system paths", []string{"--security-opt", "systempaths=unconfined", "busybox"}, "[ $(wc -c </proc/timer_list) -gt 0 ] && echo shown; touch /proc/sys/kernel/hostname && echo writable", "shown\nwritable"},
			{"privileged", []string{"--privileged", "busybox"}, "mkdir /m && mount -t tmpfs none /m && echo mounted; test -e /dev/kmsg && echo kmsg", "mounted\nkmsg"},
			{"memory limit", []string{"-m", "64m", "busybox"}, "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max", "67108864"},
			{"pids limit", []string{"--pids-limit", "33", "busybox"}, "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max", "33"},
			{"network none", []string{"--network", "none", "busybox"}, "ls /sys/class/net", "lo"},
			{"dns", []string{"--dns", "192.0.2.53", "--dns-search", "example.org", "busybox"}, "grep -v '^#' /etc/resolv.conf | sort", "nameserver 192.0.2.53\nsearch example.org"},
			{"add-host", []string{"--add-host", "db:192.0.2.7", "busybox"}, "grep -w db /etc/hosts", "192.0.2.7\tdb"},
			{"oom score", []string{"--oom-score-adj", "321", "busybox"}, "cat /proc/self/oom_score_adj", "321"},
			{"sysctl", []string{"--sysctl", "net.ipv4.ip_forward=1", "busybox"}, "cat /proc/sys/net/ipv4/ip_forward", "1"},
			{"low ports", []string{"-u", "user", "busybox"}, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "0"},
		} {
			t.Run(strings.ReplaceAll(c.what, " ", "-"), func(t *testing.T) {
				r := e.Do(t, program, "", append(append([]string{"run", "--rm"}, c.args...), "sh", "-c", c.sh)...)
				if r.Code != 0 || r.Line() != c.want {
					t.Errorf("want %q, got %s", c.want, r)
				}
			})
		}
	})
}

func TestRelativeBind(t *testing.T) {
	e := engine(t, "busybox")
	dir := t.TempDir()
	each(t, func(t *testing.T, program string) {
		cmd := e.Command(t, program, "run", "--rm", "-v", "./sub:/s", "busybox", "sh", "-c", "echo "+program+" >/s/out")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "sub", "out")); err != nil || string(b) != program+"\n" {
			t.Errorf("%q, %v", b, err)
		}
	})
}

func TestOOMKilled(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n)
		// a shell variable that doubles until the limit is hit
		r := e.Do(t, program, "", "run", "--name", n, "-m", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", "x=0123456789; while :; do x=$x$x; done")
		if r.Code != 137 {
			t.Fatalf("%s", r)
		}
		if got := e.OK(t, program, "inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", n); got != "true 137" {
			t.Errorf("inspect: %s", got)
		}
		if ev := e.OK(t, program, "events", "--since", "5m", "--until", now(), "--filter", "event=oom", "--filter", "container="+n); !strings.Contains(ev, " oom ") {
			t.Errorf("no oom event: %q", ev)
		}
	})
	for command, told := range map[string]bool{"exec tail /dev/zero": true, "kill -9 $$": false} { // cleat says why, also of what is gone
		r := e.Do(t, "cleat", "", "run", "--rm", "--init", "-m", "16m", "--memory-swap", "16m", "busybox", "sh", "-c", command)
		if r.Code != 137 || strings.Contains(r.Stderr, "ran out of memory") != told {
			t.Errorf("%s: %s %s", command, r, r.Stderr)
		}
	}
}

// TestHostileImagePaths runs images whose /proc or /dev is a symlink: nothing may
// be mounted or written outside of the container.
func TestHostileImagePaths(t *testing.T) {
	e := engine(t, "busybox")
	dir := t.TempDir()
	// Where the links lead: in the image to nowhere, on the host to a directory that must stay empty.
	host := t.TempDir()
	for _, c := range []string{"proc", "dev", "sys"} {
		root := filepath.Join(dir, c)
		for _, d := range []string{"bin", "etc", "dev", "proc", "sys", "tmp"} {
			if d != c {
				if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := os.Symlink(host, filepath.Join(root, c)); err != nil {
			t.Fatal(err)
		}
		bb, err := os.ReadFile("/bin/busybox")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "bin", "sh"), bb, 0o755); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, c+".tar")
		harness.MakeImage(t, "hostile-"+c, file, "--from-dir", root, "--cmd", `["sh","-c","exit 0"]`)
		e.OK(t, "cleat", "load", "-i", file)
		r := e.Cleat(t, "run", "--rm", "hostile-"+c)
		if r.Code != 125 && r.Code != 126 && r.Code != 127 || !strings.Contains(r.Stderr, "/"+c+": it is a symbolic link in the image") {
			t.Errorf("/%s as a symlink: want a refusal that names it, got %s", c, r)
		}
		if entries, err := os.ReadDir(host); err != nil || len(entries) > 0 {
			t.Errorf("/%s as a symlink: the host's directory has %v, %v", c, entries, err)
		}
		if table := readFile("/proc/self/mountinfo"); strings.Contains(table, " "+host) {
			t.Errorf("/%s as a symlink: something is mounted on the host's directory", c)
		}
		e.OK(t, "cleat", "rmi", "-f", "hostile-"+c)
	}
}

func TestManyEnvironmentEntries(t *testing.T) {
	e := engine(t, "busybox")
	var b strings.Builder
	for i := range 10000 {
		b.WriteString("VARIABLE_NUMBER_" + strings.Repeat("0", i%7) + string(rune('a'+i%26)) + strconv.Itoa(i) + "=" + strings.Repeat("v", i%50) + "\n")
	}
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	each(t, func(t *testing.T, program string) {
		if got := e.OK(t, program, "run", "--rm", "--env-file", file, "busybox", "sh", "-c", "env | grep -c ^VARIABLE_NUMBER_"); got != "10000" {
			t.Errorf("%s of 10000 entries arrived", got)
		}
	})
}

// TestExecOfNobody: a user that the container does not have is a command that cannot be started.
func TestExecOfNobody(t *testing.T) {
	e := engine(t, "busybox")
	c := name(t)
	remove(t, e, c)
	e.OK(t, "cleat", "run", "-d", "--name", c, "busybox", "sleep", "1000")
	each(t, func(t *testing.T, program string) {
		r := e.Do(t, program, "", "exec", "-u", "nosuch", c, "true")
		if r.Code != 126 || !strings.Contains(r.Stdout+r.Stderr, "unable to find user nosuch: no matching entries in passwd file") {
			t.Error(r)
		}
		if r := e.Do(t, program, "", "exec", "-d", "-u", "nosuch", c, "true"); r.Code == 0 || !strings.Contains(r.Stderr, "unable to find user nosuch") {
			t.Error(r)
		}
	})
	root := e.OK(t, "docker", "inspect", "-f", "{{.GraphDriver.Data.MergedDir}}", c)
	if _, err := os.Stat(root + "/bin/busybox"); err != nil {
		t.Errorf("MergedDir %q leads nowhere: %v", root, err)
	}
}

// TestUserBehindLink: a user is whom the container's own files say, also where /etc/passwd of the image is a link.
func TestUserBehindLink(t *testing.T) {
	e := engine(t, "busybox")
	each(t, func(t *testing.T, program string) {
		n := name(t)
		image, file := strings.ToLower(n), filepath.Join(t.TempDir(), "pw")
		if err := os.WriteFile(file, []byte("user:x:4321:4321::/:/bin/sh\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		remove(t, e, n, n+"-made")
		e.OK(t, program, "run", "--name", n+"-made", "busybox", "sh", "-c", "mv /etc/passwd /pw && ln -s /pw /etc/passwd")
		e.OK(t, program, "commit", n+"-made", image)
		t.Cleanup(func() { e.OK(t, "cleat", "rmi", "-f", image) })
		if got := e.OK(t, program, "run", "--rm", "-u", "user", image, "id", "-u"); got != "1000" {
			t.Errorf("%q", got)
		}
		e.OK(t, program, "create", "--name", n, "-u", "user", image, "id", "-u")
		e.OK(t, program, "cp", file, n+":/pw")
		if got := e.OK(t, program, "start", "-a", n); got != "4321" {
			t.Errorf("%q", got)
		}
	})
}
