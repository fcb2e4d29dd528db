package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A service with a provider is made by a program, which tells the services that depend on it what they need to know.
func TestComposeProvider(t *testing.T) {
	e := engine(t, "busybox")
	programs := t.TempDir()
	calls := filepath.Join(programs, "calls")
	script := `#!/bin/sh
echo "$@" >>` + calls + `
case "$*" in
*metadata*) echo '{"description":"test","up":{"parameters":[{"name":"size","required":true}]},"down":{"parameters":[]}}' ;;
*" up "*)
  [ -z "$FAIL" ] || { echo '{"type":"error","message":"out of clouds"}'; exec sleep 1000; }
  echo '{"type":"info","message":"thinking"}'; echo '{"type":"debug","message":"x"}'; echo '{"type":"setenv","message":"URL=db://'$NAME'"}' ;;
esac
`
	if err := os.WriteFile(filepath.Join(programs, "cloud"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	file := `
services:
  db: {provider: {type: cloud, options: {size: %SIZE%, colour: red}}}
  web:
    image: busybox
    command: sh -c "echo url is $$DB_URL; exec sleep 1000"
    stop_signal: SIGKILL
    depends_on: {db: {condition: service_healthy}}
`
	a := compose(t, e, map[string]string{"compose.yaml": strings.ReplaceAll(file, "%SIZE%", "[big, bigger]"), ".env": "NAME=ours\n"})
	a.env = []string{"PATH=" + programs + ":" + os.Getenv("PATH")}
	r := a.run(t, "up", "-d")
	if r.Code != 0 || !strings.Contains(r.Stderr, "Service db  thinking") || !strings.Contains(r.Stderr, "Service db  Created") {
		t.Fatalf("%s", r)
	}
	if got := a.ok(t, "exec", "-T", "web", "sh", "-c", "echo $DB_URL"); got != "db://ours" {
		t.Errorf("the variable is %q", got)
	}
	if got := e.OK(t, "cleat", "inspect", "-f", `{{index .Config.Labels "com.docker.compose.depends_on"}}`, a.name+"-web-1"); got != "db:service_healthy:false" {
		t.Errorf("it depends on %q", got)
	}
	before := a.ids(t)
	for _, args := range []string{"stop", "start", "restart -t 0", "stop web", "start web", "stop web", "-f compose.yaml start web", "up -d"} {
		a.ok(t, strings.Fields(args)...)
	}
	if now := a.ids(t); now[a.name+"-web-1"] != before[a.name+"-web-1"] {
		t.Error("made anew though nothing has changed")
	}
	a.ok(t, "down", "-t", "0")
	said, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"compose --project-name=" + a.name + " up --size=big --size=bigger db\n", "compose --project-name=" + a.name + " down db\n"} {
		if !strings.Contains(string(said), want) {
			t.Errorf("no %q among\n%s", want, said)
		}
	}

	a.env = append(a.env, "FAIL=1")
	if r := a.run(t, "up", "-d"); r.Code == 0 || !strings.Contains(r.Stderr, "out of clouds") {
		t.Errorf("a provider that fails: %s", r)
	}
	for name, c := range map[string]struct{ file, want string }{
		"a parameter": {strings.Replace(file, "size: %SIZE%, ", "", 1), `required parameter "size" is missing from provider "cloud"`},
		"no program":  {strings.Replace(file, "cloud, options: {size: %SIZE%, colour: red}", "nonesuch", 1), "the program nonesuch is not installed"},
		"itself":      {strings.Replace(file, "cloud, options: {size: %SIZE%, colour: red}", "compose", 1), "'compose' is not a valid provider type"},
	} {
		if err := os.WriteFile(filepath.Join(a.dir, "compose.yaml"), []byte(c.file), 0o644); err != nil {
			t.Fatal(err)
		}
		if r := a.run(t, "up", "-d"); r.Code == 0 || !strings.Contains(r.Stderr, c.want) {
			t.Errorf("%s: %s", name, r)
		}
	}
	if err := os.WriteFile(filepath.Join(a.dir, "compose.yaml"), []byte("services: {web: {image: busybox}}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestComposeViz(t *testing.T) {
	e := engine(t, "busybox")
	a := compose(t, e, map[string]string{"compose.yaml": `
services:
  web: {image: "busybox", ports: ["127.0.0.1:8080:80"], networks: [front], depends_on: [db, cache]}
  db: {build: .}
  cache: {image: busybox}
networks: {front: }
`})
	want := `digraph "` + a.name + `" {
  layout=dot;
  "cache" [style="filled" label=<<font point-size="15">cache</font><font point-size="10"><br/><br/><b>Networks:</b><br/>default</font><font point-size="10"><br/><br/><b>Image:</b><br/>busybox</font>>];
  "db" [style="filled" label=<<font point-size="15">db</font><font point-size="10"><br/><br/><b>Networks:</b><br/>default</font><font point-size="10"><br/><br/><b>Image:</b><br/>` + a.name + `-db</font>>];
  "web" [style="filled" label=<<font point-size="15">web</font><font point-size="10"><br/><br/><b>Networks:</b><br/>front</font><font point-size="10"><br/><br/><b>Ports:</b><br/>127.0.0.1:8080:80 (tcp, ingress)</font><font point-size="10"><br/><br/><b>Image:</b><br/>busybox</font>>];

  "web" -> "cache";
  "web" -> "db";
}`
	if got := a.ok(t, "viz", "--networks", "--ports", "--image", "--spaces", "--indentation-size", "2"); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}
