package e2e

import (
	"bufio"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/test/harness"
)

// A transition is what is under way when a failpoint kills the engine.
type transition struct {
	prepare [][]string // command lines before, by an engine that lives
	first   [][]string // command lines before, by the engine that dies
	verb    []string   // the one that it dies of
	tidy    []string   // takes away what an unacknowledged verb may leave whole, before it is repeated
	boot    bool       // the engine dies while it starts
	later   bool       // it dies of what the verb has set off
}

const doomed = "doomed" // the container of every transition

var (
	create = []string{"create", "--name", doomed, "-p", "0:80", "-v", "/anonymous", "-v", "doomed-volume:/named", "busybox", "sleep", "600"}
	start  = []string{"start", doomed}

	pluginVolume = []string{"volume", "create", "-d", "depot", "doomed-volume"}
	tmpfsVolume  = []string{"volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "doomed-volume"}

	forceRm   = []string{"rm", "-f", "-v", doomed}
	pull      = []string{"pull", "-q", "hello-world"}
	creation  = transition{verb: create, tidy: forceRm}
	starting  = transition{prepare: [][]string{create}, verb: start}
	executing = transition{prepare: [][]string{create, start}, verb: []string{"exec", doomed, "true"}}
	ending    = transition{prepare: [][]string{create, start}, verb: []string{"kill", doomed}, tidy: start}
	snapshot  = []string{"cleat", "volume", "snapshot", "doomed-volume", "snap"}
	restoring = transition{prepare: [][]string{create, snapshot}, verb: []string{"cleat", "volume", "restore", "doomed-volume", "snap"}}
	copying   = transition{prepare: [][]string{create, start}, verb: []string{"cleat", "volume", "clone", "doomed-volume", "doomed-copy"}}
	renaming  = transition{
		prepare: [][]string{create, start}, verb: []string{"cleat", "volume", "rename", "doomed-volume", "doomed-copy"},
		tidy: []string{"cleat", "volume", "rename", "doomed-copy", "doomed-volume"},
	}
	removing = transition{prepare: [][]string{create}, verb: forceRm}
	sweeping = spent(20)

	filling = transition{verb: []string{"cleat", "compose", "-f", "testdata/doomed/compose.yaml", "up", "-d"}} // with secrets

	makeNetwork   = []string{"network", "create", "doomed-net"}
	connect       = []string{"network", "connect", "--gw-priority", "1", "doomed-net", doomed}
	disconnect    = []string{"network", "disconnect", "doomed-net", doomed}
	networking    = transition{verb: makeNetwork, tidy: []string{"network", "rm", "doomed-net"}}
	unnetworking  = transition{prepare: [][]string{makeNetwork}, verb: []string{"network", "rm", "doomed-net"}}
	unnetworked   = transition{prepare: [][]string{makeNetwork}, verb: []string{"network", "rm", "doomed-net"}, later: true}
	connecting    = transition{prepare: [][]string{makeNetwork, create, start}, verb: connect, tidy: disconnect}
	disconnecting = transition{prepare: [][]string{makeNetwork, create, start, connect}, verb: disconnect, tidy: connect}
)

// transitions has every failpoint in the source, and the test fails if it has not.
var transitions = map[string]transition{
	"engine.create.after-name":        creation,
	"engine.create.after-volumes":     creation,
	"engine.create.after-dirs":        creation,
	"container.add.after-config":      creation,
	"engine.create.after-group":       creation,
	"engine.start.after-network":      starting,
	"runtime.start.after-group":       starting,
	"runtime.start.after-fork":        starting,
	"engine.start.after-ahead":        starting,
	"engine.start.after-process":      starting,
	"engine.start.after-state":        starting,
	"engine.exec.after-prepare":       executing,
	"engine.exec.after-process":       executing,
	"runtime.exec.after-note":         executing,
	"engine.exit.after-drain":         ending,
	"engine.exit.after-network":       ending,
	"engine.exit.after-state":         ending,
	"engine.stop.after-signal":        {prepare: [][]string{create, start}, verb: []string{"stop", "-t", "0", doomed}, tidy: start},
	"container.remove.after-rename":   removing,
	"engine.rm.after-volumes":         removing,
	"engine.recycle.after-files":      sweeping,
	"engine.recycle.after-rename":     sweeping,
	"engine.pause.after-freeze":       {prepare: [][]string{create, start}, verb: []string{"pause", doomed}, tidy: []string{"unpause", doomed}},
	"engine.update.after-config":      {prepare: [][]string{create, start}, verb: []string{"update", "--pids-limit", "77", doomed}},
	"engine.unpause.after-thaw":       {prepare: [][]string{create, start, {"pause", doomed}}, verb: []string{"unpause", doomed}, tidy: []string{"pause", doomed}},
	"container.rename.after-config":   {prepare: [][]string{create}, verb: []string{"rename", doomed, "renamed"}, tidy: []string{"rename", "renamed", doomed}},
	"engine.files.before-rename":      filling,
	"engine.files.after-rename":       filling,
	"volume.create.after-limit":       {verb: []string{"volume", "create", "doomed-volume"}},
	"volume.create.before-rename":     {verb: []string{"volume", "create", "doomed-volume"}},
	"volume.clone.after-copy":         copying,
	"volume.copy.after-pass":          copying,
	"engine.still.after-freeze":       copying,
	"volume.snapshot.before-rename":   {prepare: [][]string{create, start}, verb: snapshot},
	"volume.restore.before-swap":      restoring,
	"volume.restore.after-swap":       restoring,
	"volume.rename.after-intent":      renaming,
	"volume.rename.after-rename":      renaming,
	"container.redefine.after-config": renaming,
	"volume.rename.after-containers":  renaming,
	"volume.create.after-plugin":      {verb: pluginVolume},
	"volume.mount.after-plugin":       {prepare: [][]string{pluginVolume, create}, verb: start},
	"volume.remove.after-plugin":      {prepare: [][]string{pluginVolume}, verb: []string{"volume", "rm", "-f", "doomed-volume"}},
	"volume.mount.after-mount":        {prepare: [][]string{tmpfsVolume, create}, verb: start},
	"volume.remove.after-rename":      {prepare: [][]string{{"volume", "create", "doomed-volume"}}, verb: []string{"volume", "rm", "-f", "doomed-volume"}},
	"image.pull.after-blob":           {verb: pull},
	"image.pull.after-transfer":       {verb: pull},
	"image.pull.after-name":           {verb: pull},
	"image.remove.after-names":        {prepare: [][]string{pull}, verb: []string{"rmi", "hello-world"}},
	"network.open.after-bridge":       {boot: true},
	"network.create.after-record":     networking,
	"network.create.after-link":       networking,
	"network.create.after-rules":      networking,
	"network.rm.after-rules":          unnetworking,
	"network.rm.after-down":           unnetworking,
	"network.rm.after-link":           unnetworked,
	"network.rm.after-record":         unnetworking,
	"network.connect.after-link":      connecting,
	"engine.connect.after-state":      connecting,
	"engine.disconnect.after-state":   disconnecting,
	"network.disconnect.after-link":   disconnecting,
	// What listens there takes whatever comes.
	"logship.send.before-note": {prepare: [][]string{logging("tcp://" + theRegistry)}, verb: start, later: true},
	// Nobody listens there.
	"logship.remove.between-files": {prepare: [][]string{logging("udp://127.0.0.1:9"), start}, verb: forceRm},
}

// spent removes n containers that have run, as many as have their directories go to the next ones.
func spent(n int) transition {
	t := transition{verb: []string{"rm", "-f"}, later: true}
	for i := range n {
		name := fmt.Sprintf("spent%d", i)
		t.first = append(t.first, []string{"run", "--name", name, "--network", "none", "busybox", "true"})
		t.verb = append(t.verb, name)
	}
	return t
}

// logging creates a container that sends a line and stays.
func logging(address string) []string {
	return []string{"create", "--name", doomed, "--log-driver", "gelf", "--log-opt", "gelf-address=" + address, "busybox", "sh", "-c", "echo words; sleep 600"}
}

// TestKilledAtEveryTransition kills the engine at each failpoint. The next engine
// must find the container that ran, nothing half there and nothing left over, and
// the verb can be done again.
func TestKilledAtEveryTransition(t *testing.T) {
	points := failpoints(t)
	maps.Copy(transitions, imageTransitions)
	maps.Copy(transitions, buildTransitions)
	for name := range transitions {
		if !slices.Contains(points, name) {
			t.Errorf("the failpoint %s is not in the source", name)
		}
	}
	reg := harness.StartRegistry(t, "busybox", "hello-world")
	sockets := t.TempDir()
	plugin := newDepot(t, sockets)
	e := harness.Start(t, harness.Options{Args: []string{"--registry-mirror", "http://" + reg.Addr, "--plugin-dir", sockets}})
	e.OK(t, "docker", "pull", "-q", "busybox")
	e.OK(t, "docker", "run", "-d", "--name", "witness", "-p", "0:80", "busybox", "sh", "-c", web)
	witness := e.OK(t, "docker", "inspect", "-f", "{{.State.Pid}}", "witness")
	for _, name := range points {
		t.Run(name, func(t *testing.T) {
			tr, ok := transitions[name]
			if !ok {
				t.Fatalf("no test kills the engine at %s: give it a transition", name)
			}
			killAt(t, e, name, tr.at(reg.Addr))
			harness.Eventually(t, func() (bool, string) {
				return plugin.users("doomed-volume") == 0, "the plugin still has a volume mounted"
			})
			got := e.OK(t, "docker", "inspect", "-f", "{{.State.Pid}}", "witness")
			if tr.boot {
				witness = got // it was stopped for that
			} else if got != witness {
				t.Errorf("the witness has PID %s, it had %s", got, witness)
			}
		})
		if t.Failed() {
			return // what is left would be blamed on the next
		}
	}
}

// at is the transition with the address of the test's registry.
func (tr transition) at(registry string) transition {
	put := func(args []string) []string {
		args = slices.Clone(args)
		for i := range args {
			args[i] = strings.Replace(args[i], theRegistry, registry, 1)
		}
		return args
	}
	prepare := tr.prepare
	tr.prepare = nil
	for _, args := range prepare {
		tr.prepare = append(tr.prepare, put(args))
	}
	tr.verb = put(tr.verb)
	return tr
}

func killAt(t *testing.T, e *harness.Engine, name string, tr transition) {
	for _, args := range tr.prepare {
		if r := command(t, e, args); r.Code != 0 {
			t.Fatalf("%s", r)
		}
	}
	e.Stop(t)
	if tr.boot { // what a first start makes, is not there
		teardownNetwork(t, e)
	}
	e.SetEnv("CLEAT_FAILPOINTS=" + name)
	err := e.TryRun(t)
	e.SetEnv()
	if tr.boot != (err != nil) {
		t.Fatalf("start of the engine: %v", err)
	}
	if !tr.boot {
		for _, args := range tr.first {
			if r := command(t, e, args); r.Code != 0 {
				t.Fatalf("%s", r)
			}
		}
		r := command(t, e, tr.verb)
		select {
		case <-e.Exited():
		case <-time.After(harness.Patience):
			t.Fatalf("the engine did not die of %s", r)
		}
	}
	e.Run(t)
	sound(t, e)
	if tr.boot {
		e.OK(t, "docker", "start", "witness")
	} else {
		if len(tr.tidy) > 0 {
			command(t, e, tr.tidy) // in vain if the transition was not reached
		}
		if r := command(t, e, tr.verb); r.Code != 0 && !strings.Contains(r.Stderr, "No such") && !strings.Contains(r.Stderr, "is not running") &&
			!strings.Contains(r.Stderr, "network doomed-net not found") {
			t.Errorf("again: %s", r)
		}
		sound(t, e)
	}
	for _, args := range [][]string{{"rm", "-f", "-v", doomed, "renamed"}, {"volume", "rm", "-f", "doomed-volume", "doomed-copy"}, {"rmi", "hello-world"}, {"rmi", "doomed-image"},
		{"network", "rm", "doomed-net"}, {"image", "prune", "-a", "-f"}} {
		if r := e.Docker(t, args...); r.Code != 0 && !strings.Contains(r.Stderr, "No such") && !strings.Contains(r.Stderr, "network doomed-net not found") {
			t.Errorf("%s", r)
		}
	}
	if left := onlyWitness(e); len(left) > 0 {
		t.Errorf("left:\n%s", strings.Join(left, "\n"))
	}
	harness.Eventually(t, func() (bool, string) {
		n := published(t, e)
		return n == 1, fmt.Sprintf("%d ports are published, one container is left", n)
	})
}

// command runs docker with args, or our own client if they begin with its name, or
// builds.
func command(t *testing.T, e *harness.Engine, args []string) harness.Result {
	t.Helper()
	switch args[0] {
	case "cleat":
		return e.Cleat(t, args[1:]...)
	case buildCall:
		return callBuild(t, e, args[1], args[2])
	}
	return e.Docker(t, args...)
}

// sound waits until the engine finds its records and the kernel to agree, and no
// container is neither whole nor gone.
func sound(t *testing.T, e *harness.Engine) {
	t.Helper()
	harness.Eventually(t, func() (bool, string) {
		if out, err := e.Debug(t, "fsck"); err != nil {
			return false, out
		}
		for _, line := range strings.Fields(e.OK(t, "docker", "ps", "-a", "--format", "{{.Names}}={{.State}}")) {
			switch name, state, _ := strings.Cut(line, "="); state {
			case "created", "running", "paused", "exited":
			default:
				return false, name + " is " + state
			}
		}
		return true, ""
	})
}

func teardownNetwork(t *testing.T, e *harness.Engine) {
	t.Helper()
	e.Run(t)
	e.OK(t, "docker", "stop", "-t", "0", "witness")
	e.Stop(t)
	e.Teardown(t)
}

// failpoints lists the failpoints in the source.
func failpoints(t *testing.T) []string {
	t.Helper()
	call := regexp.MustCompile(`record\.Failpoint\("([^"]+)"\)`)
	var names []string
	err := filepath.WalkDir(filepath.Join(harness.Top(t), "internal"), func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if m := call.FindStringSubmatch(lines.Text()); m != nil {
				names = append(names, m[1])
			}
		}
		return lines.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}
