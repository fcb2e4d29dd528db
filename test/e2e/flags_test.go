package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFlagsOfRun: what the container sees of each flag.
func TestFlagsOfRun(t *testing.T) {
	e := engine(t, "busybox")
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	env := write("env", "# comment\n\nA=1\nB= two words \nFROM_HOST\nUNSET_ONE\nC=\"quoted\"\n")
	t.Setenv("FROM_HOST", "here")
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ flags, script, want string }{
		{"--env-file " + env, `echo "$A|$B|$C|$FROM_HOST|${UNSET_ONE-unset}"`, `1| two words |"quoted"|here|unset`},
		{"-e FROM_HOST -e NOT_THERE -e D= --env-file " + env + " -e A=2", `echo "$FROM_HOST|${NOT_THERE-unset}|${D-unset}|$A"`, "here|unset||2"},
		{"--device /dev/net/tun:/dev/readable:r", "head -c0 /dev/readable && echo opened; (echo >/dev/readable) 2>/dev/null || echo denied", "opened\ndenied"},
		{"--device /dev/net", "test -c /dev/net/tun && echo there", "there"},
		{"--device-cgroup-rule=c_10:200_rwm", "mknod /tun c 10 200 && head -c0 /tun && echo opened", "opened"},
		{"--privileged --device /dev/null:/dev/own", "test -c /dev/own && test -c /dev/kmsg && echo there", "there"},
		{"--sysctl net.ipv4.ip_forward=1 --sysctl kernel.msgmax=9999", "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax", "1\n9999"},
		{"--uts host", "hostname", hostname},
		{"--hostname box --domainname example.org", "hostname; cat /proc/sys/kernel/domainname; hostname -f; tail -1 /etc/hosts | cut -f2",
			"box\nexample.org\nbox.example.org\nbox.example.org box"},
		{"--shm-size 3m", "df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2", "3072"},
		{"--group-add 777 --group-add 10", "id -G", "0 10 777"},
		{"--oom-score-adj 321", "cat /proc/self/oom_score_adj", "321"},
		{"--ulimit nofile=100:200 --ulimit core=0", "ulimit -n; ulimit -H -n; ulimit -c", "100\n200\n0"},
		{"--runtime runc", "echo ran", "ran"},
		{"--userns host", "echo ran", "ran"},
		{"--isolation default", "echo ran", "ran"},
		{"--cpuset-cpus 0", "grep Cpus_allowed_list /proc/self/status | cut -f2", "0"},
	} {
		each(t, func(t *testing.T, program string) {
			var flags []string
			for _, f := range strings.Fields(test.flags) {
				flags = append(flags, strings.ReplaceAll(f, "_rwm", " rwm"))
			}
			for i, f := range flags {
				flags[i] = strings.Replace(f, "=c_", "=c ", 1)
			}
			if got := e.OK(t, program, append(append([]string{"run", "--rm"}, flags...), "busybox", "sh", "-c", test.script)...); got != test.want {
				t.Errorf("%s: %q, want %q", test.flags, got, test.want)
			}
		})
	}
}

// TestFlagsInInspect: what is kept for those who ask.
func TestFlagsInInspect(t *testing.T) {
	e := engine(t, "busybox")
	labels := filepath.Join(t.TempDir(), "labels")
	if err := os.WriteFile(labels, []byte("# comment\na=1\nb=two words\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	each(t, func(t *testing.T, program string) {
		n := name(t)
		remove(t, e, n)
		e.OK(t, program, "create", "--name", n, "--label-file", labels, "--label", "a=2", "--annotation", "k=v", "--stop-signal", "USR1", "--stop-timeout", "33", "busybox")
		const shown = `{{.Config.Labels.a}}|{{.Config.Labels.b}}|{{.HostConfig.Annotations.k}}|{{.Config.StopSignal}}|{{.Config.StopTimeout}}`
		if got := e.OK(t, program, "inspect", "-f", shown, n); got != "2|two words|v|USR1|33" {
			t.Errorf("%s", got)
		}
	})
}

// TestFlagsThatAreRefused: nothing is accepted and ignored.
func TestFlagsThatAreRefused(t *testing.T) {
	e := engine(t, "busybox")
	bad := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(bad, []byte("BAD NAME=1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for flags, text := range map[string]string{
		"--env-file " + bad:                         "variable 'BAD NAME' contains whitespaces",
		"--env-file /nonexistent":                   "no such file or directory",
		"--device /dev/nosuch":                      `error gathering device information while adding custom device "/dev/nosuch"`,
		"--device /dev/null:/dev/x:q":               "bad mode specified: q",
		"--device-cgroup-rule x":                    "invalid device cgroup format 'x'",
		"--sysctl kernel.panic=1":                   "sysctl 'kernel.panic=1' is not allowed",
		"--sysctl net.ipv4.ip_forward=1 --net=host": `sysctl "net.ipv4.ip_forward" is not allowed in the host's network namespace`,
		"--sysctl kernel.msgmax=1 --ipc host":       `sysctl "kernel.msgmax" is not allowed in the host's IPC namespace`,
		"--group-add nosuch":                        "unable to find group nosuch",
		"--cpus 9000":                               "Range of CPUs is from 0.01 to",
		"--cpus 1 --cpu-quota 5000":                 "Nano CPUs and CPU Quota cannot both be set",
		"--cpuset-cpus 900":                         "Requested CPUs are not available",
		"--cpuset-mems 60":                          "memory nodes are not available",
		"--memory-swappiness 300":                   "Valid memory swappiness range is 0-100",
		"--blkio-weight 5":                          "Range of blkio weight is from 10 to 1000",
		"--device-read-bps /dev/nosuch:1mb":         "block device /dev/nosuch",
		"--ulimit nope=1":                           "invalid ulimit type: nope",
		"--ulimit nofile=9:5":                       "soft limit must be less than or equal to hard limit",
		"--stop-signal NOSIG":                       "invalid signal: NOSIG",
		"--runtime nope":                            "unknown or invalid runtime name: nope",
		"--userns weird":                            "invalid USER mode",
		"--isolation hyperv":                        "isolation",
		"--storage-opt size=1g":                     "--storage-opt",
		"--gpus all":                                "could not select device driver",
		"--device vendor.com/gpu=0":                 "unresolvable CDI devices vendor.com/gpu=0",
		"--pid nonsense":                            "invalid PID mode",
		"--ipc nonsense":                            "invalid IPC mode",
		"--uts nonsense":                            "invalid UTS mode",
		"--cgroupns nonsense":                       "invalid CGROUP mode",
		"--uts host --hostname other":               "conflicting options: hostname and the UTS mode",
		"-m 1m":                                     "Minimum memory limit allowed is 6MB",
		"--memory-swap 64m":                         "You should always set the Memory limit when using Memoryswap limit",
		"--restart always --rm":                     "cannot specify both --restart and --rm",
	} {
		each(t, func(t *testing.T, program string) {
			r := e.Do(t, program, "", append(append([]string{"run", "--rm"}, strings.Fields(flags)...), "busybox", "true")...)
			// The clients take "no such file or directory" for a missing command: 127.
			if r.Code != 125 && r.Code != 127 || !strings.Contains(strings.ToLower(r.Stderr), strings.ToLower(text)) {
				t.Errorf("%s: %s", flags, r)
			}
		})
	}
}
