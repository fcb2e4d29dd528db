package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// program is our client, built once, under its own name and under Docker's.
var program, asDocker string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if filepath.Base(os.Args[0]) == "cleatd" {
		return fakeEngine(os.Args[1:])
	}
	dir, err := os.MkdirTemp("", "cleat-cli-bin-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	program, asDocker = filepath.Join(dir, "cleat"), filepath.Join(dir, "docker")
	cmd := exec.Command("go", "build", "-ldflags", "-X main.version=1.2.3", "-o", program, "../../cmd/cleat")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		panic(string(out))
	}
	if err := os.Symlink(program, asDocker); err != nil {
		panic(err)
	}
	return m.Run()
}

type result struct {
	stdout, stderr string
	code           int
}

// call runs a client against the fake engine, with no configuration of a user's.
func call(t testing.TB, bin, host, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Env = []string{"HOME=/nonexistent", "PATH=/bin:/usr/bin", "TZ=UTC", "DOCKER_HOST=" + host, "FROM_HERE=yes"}
	cmd.Stdin = strings.NewReader(stdin)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("%s %v does not end", bin, args)
	}
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return result{out.String(), errOut.String(), cmd.ProcessState.ExitCode()}
}

// docker is the real client; a suite without it proves nothing and fails.
func docker(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("docker")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("the docker command is missing: install docker's client")
		}
		t.Skip("no docker command to compare with")
	}
	return path
}

// TestLikeDocker runs the real docker command and ours against the same engine: what
// scripts see is the same to the byte, on both streams, and the exit code is.
//
// Left out are what docker 28 does wrong (it panics with -a stdout, prints "SRun") and
// what docker 29 says better (too many colons in -v, unknown keys of --mount).
func TestLikeDocker(t *testing.T) {
	seccomp := filepath.Join(t.TempDir(), "profile.json")
	if err := os.WriteFile(seccomp, []byte("{\n \"defaultAction\": \"SCMP_ACT_ALLOW\" }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ line, stdin string }{
		{line: "ps"}, {line: "ps -a"}, {line: "ps -aq"}, {line: "ps -q --no-trunc"}, {line: "ps --no-trunc"}, {line: "ps -s"}, {line: "ps -l"}, {line: "ps -n 2"},
		{line: "ps --format json"}, {line: "ps --format {{json|.}}"}, {line: "ps --format {{.ID}}|{{.Names}}|{{.Ports}}"},
		{line: `ps --format table|{{.Names}}\t{{.Image}}\t{{.Label|"com.example.a"}}`}, {line: `ps --format table|{{upper|.Names}}\t{{.Size}}`},
		{line: "ps --format raw"}, {line: "ps --format {{.Mounts}}/{{.LocalVolumes}}/{{.Networks}}/{{.Labels}}/{{.CreatedAt}}/{{.State}}"},
		{line: "ps --format table"}, {line: "ps --format {{"}, {line: "ps -q --format {{.ID}}"}, {line: "ps -f nonsense"}, {line: "container ls"}, {line: "container list -q"}, {line: "container ps -a"},
		{line: `ps --format {{pad|.Names|2|3}}{{truncate|.Image|4}}{{title|.State}}{{lower|.Command}}{{join|(split|.Labels|",")|";"}}{{println}}`},
		{line: "images"}, {line: "images -q"}, {line: "images --no-trunc -q"}, {line: "images nginx"}, {line: "image ls --format json"}, {line: "images --format {{.Repository}}:{{.Tag}}@{{.Digest}}"},
		{line: "images --format {{.SharedSize}}/{{.UniqueSize}}/{{.Containers}}/{{.CreatedAt}}"},
		{line: `images --format table|{{.ID}}\t{{.VirtualSize}}`}, {line: "history nginx"}, {line: "history -q nginx"}, {line: "history --no-trunc nginx"}, {line: "history -H=false nginx"}, {line: "image history --format json nginx"},
		{line: "volume ls"}, {line: "volume ls -q"}, {line: "volume ls -q --cluster"}, {line: "volume ls --format json"}, {line: "volume ls --format {{.Name}}={{.Label|\"x\"}}"}, {line: "volume inspect pgdata"}, {line: "volume inspect no-such pgdata"},
		{line: "volume create"}, {line: "volume create pgdata"}, {line: "volume rm a b"}, {line: "volume rm used a"}, {line: "volume rm"},
		{line: "network ls"}, {line: "network ls -q --no-trunc"}, {line: "network ls --format json"}, {line: "network inspect bridge"}, {line: "network inspect -f {{range|.IPAM.Config}}{{.Subnet}}{{end}} bridge"},
		{line: "inspect web"}, {line: "inspect -f {{.State.Running}}/{{.Name}} web"}, {line: "inspect -f {{.NewField.From}} web"}, {line: "inspect -f {{.Nope}} web"}, {line: "inspect -f {{json|.Config.Env}} web web"},
		{line: "inspect --format json web"}, {line: "inspect no-such-thing"}, {line: "inspect --type container no-such web"}, {line: "inspect --type image nginx"}, {line: "inspect --type volume pgdata"}, {line: "inspect --type foo x"},
		{line: "inspect -f {{ web"}, {line: "container inspect no-such"}, {line: "image inspect no-such"}, {line: "image inspect -f {{.Id}} nginx"}, {line: "image inspect nginx"}, {line: "inspect -f {{.NetworkSettings.Networks.bridge.IPAddress}} web"},
		{line: "events --since 1 --until 2"}, {line: "events --format json"}, {line: "events --format {{.Type}}|{{.Actor.ID}}"}, {line: "events --format {{.Nope}}"}, {line: "events --format {{json|.}}"}, {line: "events --format Type={{.Type}}|Status={{.Status}}|ID={{.ID}}|From={{.From}}"},
		{line: "version --format {{.Server.Version}}/{{.Server.APIVersion}}"}, {line: "info --format {{.ServerVersion}}|{{.NCPU}}|{{json|.SecurityOptions}}"},
		{line: "version -f {{"}, {line: "info -f {{"},
		{line: "system df"}, {line: "system df -v"}, {line: "system df -v --format {{json|.BuildCache}}"}, {line: "system df -v --format raw"},
		{line: "pull missing"}, {line: "pull -q missing:latest"}, {line: "pull -a missing:latest"}, {line: "pull denied"}, {line: "pull UPPER"}, {line: "load", stdin: "tar"}, {line: "load -i /nonexistent"},
		{line: "tag a b"}, {line: "tag a"}, {line: "rmi hello-world"}, {line: "rmi used no-such"}, {line: "image rm hello-world"},
		{line: "run nginx"}, {line: "run -d nginx"}, {line: "run --rm nginx exit 3"}, {line: "run nginx nocmd"}, {line: "run nginx noperm"}, {line: "run nginx noport"}, {line: "run conflict"}, {line: "run -d nginx nocmd"},
		{line: "run missing"}, {line: "run -q missing"}, {line: "run --pull never missing"}, {line: "run --pull always nginx"}, {line: "run -i nginx cat", stdin: "typed\nlines\n"},
		{line: "run -it nginx"}, {line: "run -d -a stdout nginx"}, {line: "run --rm --restart always nginx"}, {line: "run -p 99999:1 nginx"}, {line: "run -p 1-2:3-5 nginx"}, {line: "run -p 80/foo nginx"}, {line: "run -p x nginx"},
		{line: "run -v :/x nginx"}, {line: "run -m 1x nginx"}, {line: "run --memory-swappiness 101 nginx"}, {line: "run -e =x nginx"}, {line: "run -l =x nginx"},
		{line: "run --ulimit nofile nginx"}, {line: "run --ulimit nofile=2:1 nginx"}, {line: "run --mount type=bind nginx"}, {line: "run --device a:b:c:d nginx"}, {line: "run --add-host x nginx"},
		{line: "run --pid foo nginx"}, {line: "run --security-opt seccomp=/nonexistent nginx"}, {line: "run --no-healthcheck --health-cmd x nginx"}, {line: "run --restart a:b nginx"},
		{line: "run --network-alias x nginx"}, {line: "run --mac-address x nginx"}, {line: "run --pull sometimes nginx"}, {line: "run --cpus x nginx"}, {line: "run --sysctl foo=1 nginx"}, {line: "run -P UPPER"},
		{line: "create nginx"}, {line: "create missing"}, {line: "create --pull x nginx"}, {line: "create --pull= nginx"}, {line: "run --pull= -d nginx"}, {line: "create conflict"},
		{line: "start a b"}, {line: "start no-such a"}, {line: "start -a a b"}, {line: "stop a b no-such"}, {line: "stop -t 1 a"}, {line: "kill -s HUP a"}, {line: "restart a no-such b"},
		{line: "rm a"}, {line: "rm running no-such a"}, {line: "rm -f no-such a"}, {line: "rm /a"}, {line: "rm /"}, {line: "rename a b"}, {line: "rename no-such b"}, {line: "wait no-such"},
		{line: "exec web ls"}, {line: "exec -i web cat", stdin: "input"}, {line: "exec -it web sh"}, {line: "exec -d web ls"}, {line: "exec no-such ls"}, {line: "exec web"}, {line: "logs web"}, {line: "logs -f --tail 3 -t web"}, {line: "logs no-such"},
		{line: "attach no-such"}, {line: ""}, {line: "foo"}, {line: "container foo"}, {line: "run"}, {line: "ps x"}, {line: "--bogus"}, {line: "run --bogus nginx"}, {line: "-l x ps"}, {line: "help foo"}, {line: "-H bad://x ps"}, {line: "create --platform bogus nginx"}, {line: "run --platform bogus nginx"}, {line: "rmi"},
		{line: "--context nope ps"}, {line: "--context nope run nginx"}, {line: "--context nope create nginx"}, {line: "--help ps"}, {line: "-h container ls"}, {line: "-c x -H unix:///y ps"}, {line: "run --security-opt seccomp=" + seccomp + " nginx"},
	} {
		t.Run(c.line, func(t *testing.T) {
			args := strings.Fields(c.line)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "|", " ")
			}
			want := call(t, docker(t), newFake(t).host(), c.stdin, args...)
			got := call(t, asDocker, newFake(t).host(), c.stdin, args...)
			if c.line == "" { // our command list is shorter
				want.stderr, got.stderr = "", ""
			}
			got.stdout = strings.ReplaceAll(got.stdout, `"HealthStatus":"",`, "")                                          // newer than docker 28
			got.stderr = strings.Replace(got.stderr, ": leave out -t where nobody types, as in pipes, cron and CI", "", 1) // docker has no advice
			got.stderr = strings.Replace(got.stderr, "*cli.eventMessage", "*events.Message", 1)
			if got != want {
				t.Errorf("ours:\n code %d\n stdout:\n%s\n stderr:\n%s\ndocker's:\n code %d\n stdout:\n%s\n stderr:\n%s",
					got.code, got.stdout, got.stderr, want.code, want.stdout, want.stderr)
			}
		})
	}
}

// TestRequestsLikeDocker compares what is sent to create a container, in which every
// flag of run takes part. What is left unset there may be null, empty or absent.
func TestRequestsLikeDocker(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	env := write("env", "# comment\nA=1\nFROM_HERE\nUNSET_HERE\nB=two words\n\nC=\n")
	labels := write("labels", "x=1\ny\n")
	profile := write("seccomp.json", "{\n \"defaultAction\": \"SCMP_ACT_ALLOW\" }\n")
	for _, line := range []string{
		"", "-i", "-t -d", "-d --rm", "-a stdin -a stdout -i", "--name x -h host --domainname dom -u 1:2 -w /w --entrypoint e",
		"--entrypoint=", "-e A=1 -e FROM_HERE -e UNSET_HERE -e B=", "--env-file " + env, "-e A=9 --env-file " + env,
		"-l a=b -l c --label-file " + labels, "-v /a:/b -v ./rel:/r:ro -v ../up:/u -v named:/n:ro,z -v /anon -v . -v /a:/b",
		"--mount type=bind,source=/x,target=/y,readonly,bind-propagation=rslave --mount type=tmpfs,destination=/t,tmpfs-size=1m,tmpfs-mode=700",
		"--mount type=volume,src=v,dst=/v,volume-nocopy,volume-label=a=b,volume-driver=local,volume-opt=o=x",
		"--tmpfs /t --tmpfs /u:size=1m,mode=1777", "-p 80 -p 8080:80 -p 127.0.0.1:81:81/udp -p [::1]:82:82 -p 0.0.0.0::83 -p 9000-9002:9000-9002",
		"-p 8000-8010:80 -p 5000-5001 -p published=1,target=2,protocol=udp -P --expose 7000-7002/udp --expose 1", "-p 1:1/sctp -p 0:5",
		"-m 1g --memory-reservation 512m --memory-swap -1 --memory-swappiness 0 --shm-size 64m --oom-kill-disable --oom-score-adj -500",
		"--cpus 1.5 -c 512 --cpu-period 1000 --cpu-quota 2000 --cpuset-cpus 0-1 --cpuset-mems 0 --cpu-rt-period 1 --cpu-rt-runtime 2", "--pids-limit -1 --blkio-weight 300",
		"--blkio-weight-device /dev/sda:200 --device-read-bps /dev/sda:1m --device-write-bps /dev/sda:2k --device-read-iops /dev/sda:3 --device-write-iops /dev/sda:4",
		"--ulimit nofile=1024:2048 --ulimit core=0", "--device /dev/fuse --device /dev/a:/dev/b --device /dev/c:/dev/d:r --device /dev/e:rw --device-cgroup-rule c|1:3|rwm",
		"--cap-add NET_ADMIN --cap-drop ALL --privileged --security-opt no-new-privileges --security-opt seccomp=unconfined --security-opt label:disable --read-only",
		"--security-opt seccomp=" + profile, "--security-opt systempaths=unconfined", "--restart on-failure:3 --stop-signal INT --stop-timeout 5", "--restart unless-stopped",
		"--pid host --ipc host --uts host --userns host --cgroupns private --cgroup-parent /p --runtime runc", "--init", "--init=false",
		"--health-cmd c|d --health-interval 5s --health-timeout 1m --health-retries 3 --health-start-period 2s --health-start-interval 1s", "--no-healthcheck",
		"--dns 1.1.1.1 --dns-search example.com --dns-option ndots:1 --add-host a:1.2.3.4 --add-host b=::1 --add-host c:host-gateway", "--link a:b", "--volumes-from a:ro --volume-driver local",
		"--network host", "--network none", "--net foo --ip 10.0.0.5 --ip6 fd00::1 --network-alias z --link a:b --mac-address 02:42:ac:11:00:02 --link-local-ip 169.254.1.1",
		"--network name=foo,alias=a,driver-opt=k=v,ip=10.0.0.2 --network bar", "--log-driver json-file --log-opt max-size=1m --storage-opt size=1g --sysctl net.core.somaxconn=1",
		"--annotation a=b --group-add 5 --platform linux/arm64/v8", "--network container:abc", "-d --detach-keys nobody-types-them",
	} {
		t.Run(line, func(t *testing.T) {
			args := []string{"create"}
			for _, f := range strings.Fields(line) {
				if f == "-d" {
					args[0] = "run"
				}
				args = append(args, strings.ReplaceAll(f, "|", " "))
			}
			args = append(args, "nginx", "sh", "-c", "true")
			theirs, ours := newFake(t), newFake(t)
			want := call(t, docker(t), theirs.host(), "", args...)
			got := call(t, asDocker, ours.host(), "", args...)
			if got != want {
				t.Fatalf("ours: %+v\ndocker's: %+v", got, want)
			}
			if a, b := createRequest(ours), createRequest(theirs); a != b {
				t.Errorf("ours:     %s\ndocker's: %s", a, b)
			}
			a, _ := json.MarshalIndent(withoutEmpty(ours.body(t, "POST /containers/create")), "", " ")
			b, _ := json.MarshalIndent(withoutEmpty(theirs.body(t, "POST /containers/create")), "", " ")
			if string(a) != string(b) {
				t.Errorf("ours:\n%s\ndocker's:\n%s", a, b)
			}
		})
	}
}

func createRequest(f *fake) string {
	for _, r := range f.asked() {
		if strings.HasPrefix(r, "POST /containers/create") {
			return r
		}
	}
	return ""
}

// withoutEmpty drops null, "", 0, false, [] and {} at every depth, and sorts lists of
// binds and variables, whose order docker loses.
func withoutEmpty(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			if e = withoutEmpty(e); e != nil || k == "80/tcp" {
				out[k] = e
			}
			if binds, ok := e.([]any); ok && (k == "Binds" || k == "Env") {
				slices.SortFunc(binds, func(x, y any) int { return strings.Compare(x.(string), y.(string)) })
			}
		}
		if len(out) > 0 {
			return out
		}
	case []any:
		var out []any
		for _, e := range v {
			out = append(out, withoutEmpty(e))
		}
		if len(out) > 0 {
			return out
		}
	case string:
		if v != "" {
			return v
		}
	case float64:
		if v != 0 {
			return v
		}
	case bool:
		if v {
			return v
		}
	}
	return nil
}
