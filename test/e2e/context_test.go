package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// inContext runs a client without DOCKER_HOST: where it connects to is up to its contexts.
func inContext(t *testing.T, e *harness.Engine, config, program string, args ...string) harness.Result {
	t.Helper()
	cmd := e.Command(t, program, args...)
	cmd.Env = slices.DeleteFunc(cmd.Env, func(s string) bool {
		return strings.HasPrefix(s, "DOCKER_HOST=") || strings.HasPrefix(s, "DOCKER_CONFIG=")
	})
	cmd.Env = append(cmd.Env, "DOCKER_CONFIG="+config)
	var out, errb strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errb
	_ = cmd.Run() // the code says it
	return harness.Result{Args: cmd.Args[1:], Stdout: out.String(), Stderr: errb.String(), Code: cmd.ProcessState.ExitCode()}
}

// TestContexts: each client's contexts are the other's, and what they print is the same.
func TestContexts(t *testing.T) {
	e := engine(t)
	host := "host=unix://" + e.Socket
	certs := t.TempDir()
	makeCertificates(t, certs)
	tls := "host=tcp://127.0.0.1:1,ca=" + certs + "/ca.pem,cert=" + certs + "/client.pem,key=" + certs + "/client.key"
	// Both clients go through the same lines, each in a directory of its own.
	lines := [][]string{
		{"context", "show"},
		{"context", "create", "work", "--description", "The one at work", "--docker", host},
		{"context", "create", "work", "--docker", host},
		{"context", "create", "-x", "--docker", host},
		{"context", "create", "bad/name", "--docker", host},
		{"context", "create", "bad", "--docker", "hsot=x"},
		{"context", "create", "bad", "--docker", "host=unix:///x,skip-tls-verify=perhaps"},
		{"context", "create", "secure", "--docker", tls},
		{"context", "create", "copy", "--from", "secure", "--description", "A copy"},
		{"context", "create", "bad", "--from", "nowhere"},
		{"context", "create", "bad", "--from", "work", "--docker", host},
		{"context", "ls", "-q"},
		{"context", "ls", "--format", "{{.Name}} {{.Current}} {{.Description}} {{.DockerEndpoint}}|{{.Error}}"},
		{"context", "inspect", "--format", "{{.Name}} {{.Endpoints.docker.Host}} {{.TLSMaterial.docker}}", "copy", "work"},
		{"context", "inspect", "nowhere"},
		{"context", "use", "work"},
		{"context", "use", "nowhere"},
		{"context", "show"},
		{"context", "ls", "--format", "{{.Name}} {{.Current}}"},
		{"info", "--format", "{{.DockerRootDir}}"},
		{"--context", "nowhere", "ps", "-q"},
		{"context", "update", "work", "--description", "Elsewhere"},
		{"context", "update", "nowhere", "--description", "Elsewhere"},
		{"context", "ls", "--format", "{{.Description}}"},
		{"context", "rm", "work"},
		{"context", "rm", "default"},
		{"context", "rm", "nowhere"},
		{"context", "rm", "-f", "work", "copy"},
		{"context", "show"},
		{"context", "rm", "secure"},
		{"context", "ls", "-q"},
	}
	dirs := map[string]string{"docker": t.TempDir(), "cleat": t.TempDir()}
	for _, args := range lines {
		real := inContext(t, e, dirs["docker"], "docker", args...)
		ours := inContext(t, e, dirs["cleat"], "cleat", args...)
		same := real.Code == ours.Code && clean(real.Stdout) == clean(ours.Stdout)
		if real.Code == 0 {
			same = same && clean(real.Stderr) == clean(ours.Stderr)
		}
		if !same {
			t.Errorf("docker answers %s\ncleat %s", real, ours)
		}
	}
}

// clean leaves out what names a client, and its default socket.
func clean(s string) string {
	return strings.NewReplacer("unix:///run/cleat.sock", "unix:///var/run/docker.sock", "cleat", "docker").Replace(s)
}

func TestContextsAreShared(t *testing.T) {
	e := engine(t)
	dir := t.TempDir()
	for _, p := range [][]string{{"docker", "cleat"}, {"cleat", "docker"}} {
		maker, user := p[0], p[1]
		run := func(program string, args ...string) string {
			t.Helper()
			r := inContext(t, e, dir, program, args...)
			if r.Code != 0 {
				t.Fatalf("%s", r)
			}
			return r.Line()
		}
		run(maker, "context", "create", "by-"+maker, "--docker", "host=unix://"+e.Socket)
		if got := run(user, "--context", "by-"+maker, "info", "-f", "{{.DockerRootDir}}"); got != e.DataRoot {
			t.Errorf("%s does not understand %s's context: %q", user, maker, got)
		}
		file := filepath.Join(dir, maker+".tar")
		run(maker, "context", "export", "by-"+maker, file)
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("an exported context may hold keys: %v, %v", info.Mode(), err)
		}
		if r := inContext(t, e, dir, maker, "context", "export", "by-"+maker, file); r.Code == 0 {
			t.Errorf("an existing file was overwritten: %s", r)
		}
		run(user, "context", "import", "imported-"+maker, file)
		run(user, "context", "use", "imported-"+maker)
		if got := run(maker, "context", "show"); got != "imported-"+maker {
			t.Errorf("%s shows %q", maker, got)
		}
		run(maker, "context", "use", "default")
	}
	if r := inContext(t, e, dir, "cleat", "context", "import", "evil", filepath.Join(t.TempDir(), "none")); r.Code == 0 {
		t.Errorf("a missing file was imported: %s", r)
	}
}

// TestExportedContextIsATarArchive: tar reads it to its end, also where its last file does not end with a block.
func TestExportedContextIsATarArchive(t *testing.T) {
	e := engine(t)
	dir := t.TempDir()
	makeCertificates(t, dir)
	file := filepath.Join(dir, "keys.tar")
	for _, line := range [][]string{
		{"cleat", "context", "create", "keys", "--docker", "host=tcp://127.0.0.1:1,ca=" + filepath.Join(dir, "ca.pem")},
		{"cleat", "context", "export", "keys", file},
		{"tar", "-tf", file},
	} {
		if r := inContext(t, e, dir, line[0], line[1:]...); r.Code != 0 {
			t.Fatalf("%s", r)
		}
	}
}

// TestCompletion: the shell is told names that the engine knows.
func TestCompletion(t *testing.T) {
	e := engine(t, "busybox")
	running, created := name(t)+"-running", name(t)+"-created"
	remove(t, e, running, created)
	e.OK(t, "cleat", "run", "-d", "--name", running, "busybox", "sleep", "600")
	e.OK(t, "cleat", "create", "--name", created, "busybox")
	for line, want := range map[string][]string{
		"stop " + name(t):                    {running},
		"start " + name(t):                   {created},
		"rm " + name(t):                      {created, running},
		"rm " + running + " " + name(t):      {created},
		"container logs " + name(t):          {created, running},
		"run busyb":                          {"busybox"},
		"run --network ho":                   {"host"},
		"run --restart unl":                  {"unless-stopped"},
		"network inspect bri":                {"bridge"},
		"-H unix://" + e.Socket + " rmi bus": {"busybox"},
		"volu":                               {"volume"},
		"volume cr":                          {"create"},
		"run --interac":                      {"--interactive"},
	} {
		r := e.Cleat(t, append([]string{"__completeNoDesc"}, strings.Fields(line)...)...)
		got := slices.DeleteFunc(strings.Split(r.Line(), "\n"), func(s string) bool { return strings.HasPrefix(s, ":") })
		if r.Code != 0 || !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q\n%s", line, got, want, r.Stderr)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if script := e.OK(t, "cleat", "completion", shell); !strings.Contains(script, "cleat") || !strings.Contains(script, "__complete") {
			t.Errorf("%s: %.200s", shell, script)
		}
	}
	if r := e.Cleat(t, "completion", "csh"); r.Code == 0 {
		t.Errorf("csh: %s", r)
	}
}
