package e2e

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// passing matches what is another at each call: ages, and the instants that they come from.
var passing = regexp.MustCompile(`(Up )?(About |Less than )?(an?|\d+) (second|minute|hour|day|week|month|year)s?( ago)?|\d\d:\d\d(:\d\d)?`)

// alike are lines without what changes between two calls, sorted unless their order is
// the same each time.
func alike(text string, ordered bool) []string {
	lines := strings.Split(strings.TrimRight(passing.ReplaceAllString(text, "NOW"), "\n"), "\n")
	for i, l := range lines {
		if !ordered || !strings.Contains(l, "  | ") { // what one container alone says
			lines[i] = strings.Join(strings.Fields(l), " ") // columns are as wide as what is in them
		}
	}
	if !ordered {
		slices.Sort(lines)
	}
	return lines
}

// What both say of the same project is the same. Services that there are not are asked of
// docker compose elsewhere: with a project's name it reads no file, and knows none.
func TestComposeSaysTheSame(t *testing.T) {
	e := engine(t, "busybox")
	ours := references(t, e)
	theirs := ours.theirs(t)
	ours.ok(t, "up", "-d", "--wait")
	for _, name := range []string{"another", "busybox:zoo"} { // an image is listed by the name that its service has
		e.OK(t, "docker", "tag", "busybox", name)
		t.Cleanup(func() { e.Docker(t, "rmi", name) })
	}
	ours.ok(t, "stop", "-t", "0", "built")
	for _, c := range []struct {
		args    []string
		ordered bool
	}{
		{[]string{"ps"}, true},
		{[]string{"ps", "-a"}, true},
		{[]string{"ps", "-a", "-q"}, false},
		{[]string{"ps", "--services"}, false},
		{[]string{"ps", "--status", "exited", "-q"}, true},
		{[]string{"ps", "-a", "--format", "{{.Name}} {{.Service}} {{.State}} {{.Health}} {{.ExitCode}}"}, true},
		{[]string{"ps", "--no-trunc", "web"}, true},
		{[]string{"ls", "-a", "--filter", "name=" + ours.name}, true},
		{[]string{"ls", "-a", "--format", "json", "--filter", "name=" + ours.name}, true},
		{[]string{"ls", "-q", "--filter", "name=" + ours.name}, true},
		{[]string{"images"}, true},
		{[]string{"images", "-q"}, false},
		{[]string{"port", "web", "80"}, true},
		{[]string{"port", "--protocol", "udp", "web", "81"}, true},
		{[]string{"port", "web", "99"}, true},
		{[]string{"port", "built", "80"}, true},
		{[]string{"ps", "-a", "--format", `table {{.Name}}\t{{.Service}}\t{{.State}}\t{{.RunningFor}}`}, true},
		{[]string{"ps", "--format", `{{.Name}}\t{{.Service}}`}, true},
		{[]string{"logs", "--no-color"}, false},
		{[]string{"logs", "--no-color", "web"}, true},
		{[]string{"-f", "compose.yaml", "logs", "--no-color"}, false},
		{[]string{"-f", "compose.yaml", "logs", "--no-color", "db"}, true},
		{[]string{"logs", "--no-color", "--no-log-prefix", "web"}, true},
		{[]string{"logs", "--no-color", "-n", "0"}, true},
		{[]string{"exec", "-T", "web", "sh", "-c", "echo $VALUE; exit 3"}, true},
		{[]string{"exec", "-T", "--index", "2", "many", "true"}, true},
		{[]string{"exec", "-T", "--index", "9", "many", "true"}, true},
		{[]string{"exec", "-T", "-e", "A=b", "-w", "/tmp2", "-u", "1", "web", "sh", "-c", "echo $A; pwd; id -u"}, true},
		{[]string{"exec", "-T", "none", "true"}, true},
		{[]string{"exec", "-T", "built", "true"}, true},
		{[]string{"attach", "built"}, true},
		{[]string{"build", "-q", "built"}, true},
		{[]string{"build", "--progress", "plain", "-q", "built"}, true},
		{[]string{"run", "--rm", "-T", "--no-deps", "-e", "VALUE=x", "web", "sh", "-c", "echo $VALUE; exit 4"}, true},
		{[]string{"run", "--rm", "-T", "--no-deps", "--entrypoint", "echo a", "-v", "/tmp:/there", "-u", "2", "many", "b"}, true},
		{[]string{"run", "--rm", "--no-TTY", "--no-deps", "-e", "VALUE", "-e", "NONE", "web", "sh", "-c", "echo $VALUE; env | grep -c NONE"}, true},
		{[]string{"run", "--rm", "-T", "--no-deps", "--cap-drop", "NET_ADMIN", "many", "grep", "CapEff", "/proc/self/status"}, true},
		{[]string{"run", "--rm", "-T", "--no-deps", "--labels", "a=b", "--volumes", "/tmp:/there", "many", "ls", "-d", "/there"}, true},
		{[]string{"run", "--rm", "-T", "-P", "-p", "80", "many", "true"}, true},
		{[]string{"exec", "--no-TTY", "web", "echo", "there"}, true},
		{[]string{"logs", "--index", "1"}, true},
		{[]string{"logs", "--index", "1", "many", "web"}, true},
		{[]string{"ps", "--filter", "source=web"}, true},
		{[]string{"volumes"}, false},
		{[]string{"volumes", "-q"}, false},
		{[]string{"top", "many"}, true}, // without a health check, which is a process now and then
		{[]string{"version", "--short"}, true},
		{[]string{"kill", "-s", "NONE", "web"}, true},
		{[]string{"rm", "-f", "web"}, true},
		{[]string{"up", "-d", "none"}, true},
		{[]string{"up", "--frobnicate"}, true},
		{[]string{"cp", "web:/srv/index.html", "-"}, true},
		{[]string{"cp", "none:/x", "-"}, true},
		{[]string{"scale", "many"}, true},
		{[]string{"scale", "none=2"}, true},
		{[]string{"scale", "many=few"}, true},
	} {
		want, got := theirs.run(t, c.args...), ours.run(t, c.args...)
		if want.Code != got.Code {
			t.Errorf("%q: stock %d %s\ncleat %d %s", c.args, want.Code, want.Stderr, got.Code, got.Stderr)
		}
		if w, g := alike(want.Stdout, c.ordered), alike(got.Stdout, c.ordered); !slices.Equal(w, g) {
			t.Errorf("%q:\nstock\n%s\ncleat\n%s", c.args, strings.Join(w, "\n"), strings.Join(g, "\n"))
		}
		// Their errors, word by word, where programs may look at them.
		if slices.Contains([]string{"cp", "scale", "exec"}, c.args[0]) && want.Code != 0 && !strings.Contains(got.Stderr, strings.TrimSpace(want.Stderr)) {
			t.Errorf("%q: stock says\n%s\ncleat says\n%s", c.args, want.Stderr, got.Stderr)
		} else if want.Code != 0 && want.Stderr != "" && !strings.Contains(got.Stderr, strings.TrimSpace(want.Stderr)) {
			t.Logf("%q: stock says\n%s\ncleat says\n%s", c.args, want.Stderr, got.Stderr)
		}
	}
	for _, args := range [][]string{{"ps", "-a", "--format", "json"}, {"images", "--format", "json"}, {"volumes", "--format", "json"}} {
		want, got := objects(t, theirs.ok(t, args...)), objects(t, ours.ok(t, args...))
		if len(want) != len(got) {
			t.Errorf("%v: stock %v, cleat %v", args, want, got)
			continue
		}
		for i := range want {
			for key := range maps.Keys(want[i]) {
				if !slices.Contains([]string{"CreatedAt", "RunningFor", "Status", "LastTagTime", "Created"}, key) && inOrder(want[i][key]) != inOrder(got[i][key]) {
					t.Errorf("%v: %s: stock %v, cleat %v", args, key, want[i][key], got[i][key])
				}
				if _, ok := got[i][key]; !ok {
					t.Errorf("%v: no %s", args, key)
				}
			}
			for key := range got[i] {
				if _, ok := want[i][key]; !ok {
					t.Errorf("%v: cleat has %s besides", args, key)
				}
			}
		}
	}
}

// inOrder is a value as text; a list in it that is joined by commas has no order.
func inOrder(value any) string {
	text, _ := json.Marshal(value) // it was JSON
	parts := strings.Split(strings.Trim(string(text), `"`), ",")
	slices.Sort(parts)
	return strings.Join(parts, ",")
}

// objects are those of a list in JSON, or of one in each line, by their names.
func objects(t *testing.T, text string) []map[string]any {
	t.Helper()
	var list []map[string]any
	d := json.NewDecoder(strings.NewReader(text))
	for d.More() {
		var next any
		if err := d.Decode(&next); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		all, ok := next.([]any)
		if !ok {
			all = []any{next}
		}
		for _, object := range all {
			list = append(list, object.(map[string]any))
		}
	}
	key := func(o map[string]any) string {
		for _, k := range []string{"ContainerName", "Name", "ID"} {
			if name, ok := o[k].(string); ok {
				return name
			}
		}
		return ""
	}
	slices.SortFunc(list, func(a, b map[string]any) int { return strings.Compare(key(a), key(b)) })
	return list
}
