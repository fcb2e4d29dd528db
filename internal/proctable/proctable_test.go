package proctable_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/proctable"
)

// sleeper starts a process that stands still and has arguments to be looked at.
func sleeper(t *testing.T, script string, args ...string) int {
	t.Helper()
	cmd := exec.Command("sh", append([]string{"-c", script}, args...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil { // it stands where it is to be seen
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

// TestLikePS holds the table against what the host's ps says of the same processes.
func TestLikePS(t *testing.T) {
	ps, err := exec.LookPath("ps")
	if err != nil {
		t.Fatal("ps must be installed (procps): what it prints is the measure")
	}
	pids := []int{sleeper(t, "echo ready; read x", "with blank", "tab\there"), sleeper(t, "renice -n 5 $$ >/dev/null; echo ready; read x", "with blank", "tab\there")}
	slices.Sort(pids)
	list := fmt.Sprintf("%d,%d", pids[0], pids[1])
	for _, args := range []string{
		"-ef", "aux", "-ejf", "-j", "-l", "-e", "ax", "-lf", "u", "l", "j",
		"-o pid,ppid,pgid,pgrp,sid,sess,tpgid", "-o pid,user,uid,euser,euid,ruser,ruid,group,gid,rgroup,rgid", "-eo pid,comm,args",
		"axo pid,ucmd,cmd", "-o pid -o s,stat,state,command", "-opid,tty,tt,tname", "-o pid,ni,pri,opri,priority,psr,nlwp,rtprio,cls,policy",
		"-o pid,vsz,sz,f,addr", "-o pid,stime,start_time,start,bsdstart", "-o pid,lstart", "-o pid,time,times,cputime,bsdtime,etimes",
		"-o pid,pidns,netns,mntns,ipcns,utsns,userns", "-o pid=ID,comm=NAME", "--format pid,user", "--format=pid,user", "-ww -o pid,args",
	} {
		f, err := proctable.Parse(args)
		if err != nil {
			t.Errorf("%s: %v", args, err)
			continue
		}
		got, err := f.Rows([]int{pids[1], pids[0], pids[0]})
		if err != nil {
			t.Errorf("%s: %v", args, err)
			continue
		}
		out, err := exec.Command(ps, append(strings.Fields(args), "-q", list)...).Output()
		if err != nil {
			t.Errorf("ps %s: %v", args, err)
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if want := strings.Fields(lines[0]); strings.Join(f.Titles(), " ") != strings.Join(want, " ") {
			t.Errorf("%s: titles %q, ps has %q", args, f.Titles(), want)
		}
		if len(got) != 2 || len(lines) != 3 {
			t.Errorf("%s: %d rows, ps has %d", args, len(got), len(lines)-1)
			continue
		}
		for i, row := range got {
			if ours, theirs := strings.Join(strings.Fields(strings.Join(row, " ")), " "), strings.Join(strings.Fields(lines[i+1]), " "); !same(f.Titles(), ours, theirs) {
				t.Errorf("%s:\n%s\nps has\n%s", args, ours, theirs)
			}
		}
	}
}

// same compares two rows but for a second that has passed between them.
func same(titles []string, a, b string) bool {
	x, y := strings.Fields(a), strings.Fields(b)
	if len(x) != len(y) {
		return false
	}
	for i := range x {
		if x[i] == y[i] {
			continue
		}
		if i < len(titles) && slices.Contains([]string{"ELAPSED", "STARTED", "START", "STIME", "C", "%CPU", "STAT", "S", "WCHAN"}, titles[i]) {
			continue // rounded at another moment, or cut off
		}
		return false
	}
	return true
}

func TestColumnsThatMove(t *testing.T) {
	f, err := proctable.Parse("-o rss,pcpu,pmem,c,wchan,etime,maj_flt,min_flt,cgroup,exe,s")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := f.Rows([]int{os.Getpid()})
	if err != nil || len(rows) != 1 {
		t.Fatalf("%v %v", rows, err)
	}
	for i, cell := range rows[0] {
		if cell == "" {
			t.Errorf("%s is empty", f.Titles()[i])
		}
	}
	if kib, _ := strconv.Atoi(rows[0][0]); kib < 1000 {
		t.Errorf("resident %s KiB", rows[0][0])
	}
	if !strings.HasSuffix(rows[0][9], "proctable.test") {
		t.Errorf("exe %s", rows[0][9])
	}
}

func TestRefused(t *testing.T) {
	for args, name := range map[string]string{
		"-o pid,nosuch": `column "nosuch"`, "-Z": `flag "-Z"`, "auxf": `flag "f"`, "--forest": `flag "--forest"`, "-ef --sort=pid": `flag "--sort"`,
		"-o": `"-o"`, "--format=": `"--format="`, "-": `argument "-"`, "-efH": `flag "-H"`, "-p 1": `flag "-p"`, "1": `flag "1"`, "-o pid=": "without a title",
		"-o " + strings.Repeat("x", 1000): "xxx…",
	} {
		if _, err := proctable.Parse(args); !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestProcessesThatAreGone(t *testing.T) {
	f, err := proctable.Parse("")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	rows, err := f.Rows([]int{cmd.Process.Pid, 0, -1, 1 << 30})
	if err != nil || rows == nil || len(rows) != 0 {
		t.Errorf("%v, %v", rows, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"-ef", "aux", "-eo pid,comm=X Y", "--format=pid", "-o ,,", "-opid=,comm="} {
		f.Add(seed)
	}
	self := []int{os.Getpid()}
	f.Fuzz(func(t *testing.T, args string) {
		format, err := proctable.Parse(args)
		if err != nil {
			if !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%q: %v", args, err)
			}
			return
		}
		rows, err := format.Rows(self)
		if err != nil || len(rows) != 1 || len(rows[0]) != len(format.Titles()) {
			t.Errorf("%q: %v, %v", args, rows, err)
		}
	})
}

// TestLongCommandLines: megabytes of arguments, which a process shares with all its copies, do not cost each row as much.
func TestLongCommandLines(t *testing.T) {
	args := append([]string{"sh"}, slices.Repeat([]string{strings.Repeat("a", 100_000)}, 15)...)
	pids := []int{sleeper(t, "echo ready; read x", args...)}
	f, err := proctable.Parse("-o args")
	if err != nil {
		t.Fatal(err)
	}
	for _, others := range []struct{ count, longest int }{{0, 128 << 10}, {10_000, 4 << 10}, {100_000, 1 << 10}} {
		for i := len(pids); i <= others.count; i++ {
			pids = append(pids, 1<<23+i) // more than there can be
		}
		rows, err := f.Rows(pids)
		if err != nil || len(rows) != 1 || !strings.HasPrefix(rows[0][0], "sh -c echo ready; read x sh aaa") {
			t.Fatalf("%d rows, %v", len(rows), err)
		}
		if n := len(rows[0][0]); n > others.longest || n < others.longest/2 {
			t.Errorf("beside %d others its command line has %d bytes, want about %d", others.count, n, others.longest)
		}
	}
}
