package cli_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// program is our client, built once, under its own name and under Docker's.
var program, asDocker string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
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
		{line: "images --format {{.SharedSize}}/{{.UniqueSize}}/{{.Containers}}/{{.CreatedAt}}"}, {line: "images a b"},
		{line: "history nginx"}, {line: "history -q nginx"}, {line: "history --no-trunc nginx"}, {line: "history -H=false nginx"}, {line: "image history --format json nginx"},
		{line: "volume ls"}, {line: "volume ls -q"}, {line: "volume ls --format json"}, {line: "volume ls --format {{.Name}}={{.Label|\"x\"}}"}, {line: "volume inspect pgdata"}, {line: "volume inspect no-such pgdata"},
		{line: "volume create"}, {line: "volume create pgdata"}, {line: "volume rm a b"}, {line: "volume rm used a"}, {line: "volume rm"},
		{line: "network ls"}, {line: "network ls -q --no-trunc"}, {line: "network ls --format json"}, {line: "network inspect bridge"}, {line: "network inspect -f {{range|.IPAM.Config}}{{.Subnet}}{{end}} bridge"},
		{line: "inspect web"}, {line: "inspect -f {{.State.Running}}/{{.Name}} web"}, {line: "inspect -f {{.NewField.From}} web"}, {line: "inspect -f {{.Nope}} web"}, {line: "inspect -f {{json|.Config.Env}} web web"},
		{line: "inspect --format json web"}, {line: "inspect no-such-thing"}, {line: "inspect --type container no-such web"}, {line: "inspect --type image nginx"}, {line: "inspect --type volume pgdata"}, {line: "inspect --type foo x"},
		{line: "inspect -f {{ web"}, {line: "container inspect no-such"}, {line: "image inspect no-such"}, {line: "image inspect -f {{.Id}} nginx"}, {line: "image inspect nginx"}, {line: "inspect -f {{.NetworkSettings.Networks.bridge.IPAddress}} web"},
		{line: "events --since 1 --until 2"}, {line: "events --format json"}, {line: "events --format {{.Type}}|{{.Actor.ID}}"}, {line: "events --format {{.Nope}}"},
		{line: "version --format {{.Server.Version}}/{{.Server.APIVersion}}"}, {line: "info --format {{.ServerVersion}}|{{.NCPU}}|{{json|.SecurityOptions}}"},
		{line: "version -f {{"}, {line: "info -f {{"},
		{line: "pull missing"}, {line: "pull -q missing:latest"}, {line: "pull -a missing:latest"}, {line: "pull denied"}, {line: "pull UPPER"}, {line: "load", stdin: "tar"}, {line: "load -i /nonexistent"},
		{line: "tag a b"}, {line: "tag a"}, {line: "rmi hello-world"}, {line: "rmi used no-such"}, {line: "image rm hello-world"},
		{line: "run nginx"}, {line: "run -d nginx"}, {line: "run --rm nginx exit 3"}, {line: "run nginx nocmd"}, {line: "run nginx noperm"}, {line: "run nginx noport"}, {line: "run conflict"}, {line: "run -d nginx nocmd"},
		{line: "run missing"}, {line: "run -q missing"}, {line: "run --pull never missing"}, {line: "run --pull always nginx"}, {line: "run -i nginx cat", stdin: "typed\nlines\n"}, {line: "run -a stdout nginx"}, {line: "run -a stderr nginx"},
		{line: "run -it nginx"}, {line: "run -d -a stdout nginx"}, {line: "run --rm --restart always nginx"}, {line: "run -p 99999:1 nginx"}, {line: "run -p 1-2:3-5 nginx"}, {line: "run -p 80/foo nginx"}, {line: "run -p x nginx"},
		{line: "run -v :/x nginx"}, {line: "run -v a:b:c:d nginx"}, {line: "run -m 1x nginx"}, {line: "run --memory-swappiness 101 nginx"}, {line: "run -e =x nginx"}, {line: "run --env-file /nonexistent nginx"}, {line: "run -l =x nginx"},
		{line: "run --ulimit nofile nginx"}, {line: "run --ulimit nofile=2:1 nginx"}, {line: "run --mount type=bind nginx"}, {line: "run --mount bogus=1 nginx"}, {line: "run --device a:b:c:d nginx"}, {line: "run --add-host x nginx"},
		{line: "run --pid foo nginx"}, {line: "run --security-opt foo nginx"}, {line: "run --security-opt seccomp=/nonexistent nginx"}, {line: "run --no-healthcheck --health-cmd x nginx"}, {line: "run --restart a:b nginx"},
		{line: "run --network-alias x nginx"}, {line: "run --mac-address x nginx"}, {line: "run --detach-keys foobar nginx"}, {line: "run --pull sometimes nginx"}, {line: "run --cpus x nginx"}, {line: "run --sysctl foo=1 nginx"}, {line: "run -P UPPER"},
		{line: "create nginx"}, {line: "create missing"}, {line: "create --pull x nginx"}, {line: "create conflict"},
		{line: "start a b"}, {line: "start no-such a"}, {line: "start -a a b"}, {line: "stop a b no-such"}, {line: "stop -t 1 a"}, {line: "stop --time 1 --timeout 2 a"}, {line: "kill -s HUP a"}, {line: "restart a no-such b"},
		{line: "rm a"}, {line: "rm running no-such a"}, {line: "rm -f no-such a"}, {line: "rm /a"}, {line: "rm /"}, {line: "rename a b"}, {line: "rename no-such b"}, {line: "wait no-such"},
		{line: "exec web ls"}, {line: "exec -i web cat", stdin: "input"}, {line: "exec -it web sh"}, {line: "exec -d web ls"}, {line: "exec no-such ls"}, {line: "exec web"}, {line: "logs web"}, {line: "logs -f --tail 3 -t web"}, {line: "logs no-such"},
		{line: "attach no-such"}, {line: ""}, {line: "foo"}, {line: "container foo"}, {line: "run"}, {line: "ps x"}, {line: "--bogus"}, {line: "run --bogus nginx"}, {line: "-l x ps"}, {line: "help foo"}, {line: "-H bad://x ps"}, {line: "rmi"},
		{line: "--context nope ps"}, {line: "-c x -H unix:///y ps"}, {line: "run --security-opt seccomp=" + seccomp + " nginx"},
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
			if got != want {
				t.Errorf("ours:\n code %d\n stdout:\n%s\n stderr:\n%s\ndocker's:\n code %d\n stdout:\n%s\n stderr:\n%s",
					got.code, got.stdout, got.stderr, want.code, want.stdout, want.stderr)
			}
		})
	}
}
