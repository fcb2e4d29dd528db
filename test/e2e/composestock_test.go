package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// Stock docker compose v2 and `cleat compose` on the same engine: each takes over what the
// other has made, and they say the same of it.

// theirs is the same project under stock docker compose v2.
func (a *application) theirs(t *testing.T) *application {
	t.Helper()
	other := *a
	other.program = harness.StockCompose(t)
	return &other
}

// everyReference is a project whose services refer to each other in every way.
const everyReference = `
services:
  web:
    image: busybox
    command: sh -c "echo serving $$VALUE; echo loudly >&2; exec httpd -f -p 80 -h /srv"
    depends_on: {db: {condition: service_healthy, restart: true}}
    environment: {VALUE: "${VALUE:-one}", EMPTY: ~}
    env_file: [{path: web.env}, {path: none.env, required: false}]
    ports: ["127.0.0.1:%s:80", "127.0.0.1::81/udp"]
    expose: ["90", "9001-9003"]
    volumes: [".:/src:ro", data:/data, /anonymous, {type: tmpfs, target: /tmp2, tmpfs: {size: 1m}}]
    secrets: [token, {source: file, target: /etc/token}]
    configs: [{source: page, target: /srv/index.html}]
    networks: {front: {aliases: [www]}, back: {priority: 10}}
    labels: {some: label, "com.example.dollar": "a$$b"}
    deploy: {resources: {limits: {memory: 64M, cpus: "0.5"}}, labels: {of: deploy}}
    ulimits: {nofile: {soft: 1000, hard: 2000}, nproc: 512}
    sysctls: {net.core.somaxconn: 100}
    extra_hosts: ["elsewhere=10.1.2.3"]
    logging: {driver: json-file, options: {max-size: 1m}}
    stop_signal: SIGKILL
  db:
    image: busybox
    command: sh -c "touch /ready; echo ready; exec sleep 1000"
    attach: false
    healthcheck: {test: [CMD, test, -f, /ready], interval: 1s, start_period: 60s, start_interval: 100ms}
    volumes: ["data:/data:z"]
    networks: [back]
    stop_signal: SIGKILL
    stop_grace_period: 1m30s
  side: {image: busybox, command: sleep 1000, network_mode: "service:db", pid: "service:db", volumes_from: ["db:ro"], stop_signal: SIGKILL}
  many: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, scale: 2, networks: [back], restart: "on-failure:3", cap_add: [NET_ADMIN], read_only: true}
  built: {build: {context: ., dockerfile_inline: "FROM busybox\nLABEL of=this\nRUN touch /made\n"}, command: sleep 1000, stop_signal: SIGKILL, networks: [back], healthcheck: {test: "true", interval: 100ms}}
  later: {image: busybox, command: sleep 1000, profiles: [extra]}
networks:
  front: {}
  back: {driver: bridge, driver_opts: {com.docker.network.driver.mtu: "1400"}, internal: true, labels: {some: label}, ipam: {config: [{subnet: 10.113.%d.0/24}]}}
  unused: {}
volumes:
  data: {labels: {some: label}}
  unused: {}
secrets:
  token: {environment: TOKEN}
  file: {file: ./web.env}
configs: {page: {content: "page of ${VALUE:-one}\n"}}
`

func references(t *testing.T, e *harness.Engine) *application {
	// Another run of the suite on this machine has another subnet.
	a := compose(t, e, map[string]string{"compose.yaml": fmt.Sprintf(everyReference, freePort(t), os.Getpid()%256), "web.env": "FROM_FILE=${VALUE:-one}\n"})
	a.env = []string{"TOKEN=hush"}
	return a
}

// state is what the engine says of a project's objects, without what is different at each
// making.
func (a *application) state(t *testing.T) map[string]string {
	t.Helper()
	state := map[string]string{}
	add := func(kind, text string) {
		var list []map[string]any
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		for _, object := range list {
			name := kind + " " + strings.TrimPrefix(object["Name"].(string), "/")
			for _, path := range []string{"Config", "HostConfig", "Labels", "Driver", "Options", "Internal", "IPAM", "EnableIPv6"} {
				flatten(state, name+" "+path, object[path])
			}
			if networks, ok := object["NetworkSettings"].(map[string]any); ok {
				for n, endpoint := range networks["Networks"].(map[string]any) {
					flatten(state, name+" network "+n+" Aliases", endpoint.(map[string]any)["Aliases"])
				}
			}
		}
	}
	filter := "label=com.docker.compose.project=" + a.name
	for kind, list := range map[string][]string{"container": {"ps", "-aq"}, "network": {"network", "ls", "-q"}, "volume": {"volume", "ls", "-q"}} {
		if ids := strings.Fields(a.e.OK(t, "docker", append(list, "--filter", filter)...)); len(ids) > 0 {
			add(kind, a.e.OK(t, "docker", append([]string{kind, "inspect"}, ids...)...))
		}
	}
	return state
}

// changing matches what is another at each making: ids, and names that are made of them.
var changing = regexp.MustCompile(`[0-9a-f]{64}|^[0-9a-f]{12}$`)

func flatten(into map[string]string, path string, value any) {
	switch v := value.(type) {
	case map[string]any:
		for key, part := range v {
			flatten(into, path+"."+key, part)
		}
	case []any:
		parts := make([]string, 0, len(v))
		for _, part := range v {
			if m, ok := part.(map[string]any); ok && m["Type"] == "file" {
				continue // a secret or config, which docker compose copies into the container
			}
			text, _ := json.Marshal(part) // it was JSON
			parts = append(parts, string(text))
		}
		slices.Sort(parts)
		into[path] = changing.ReplaceAllString(strings.Join(parts, ", "), "ID")
	default:
		text := fmt.Sprint(v)
		if strings.HasSuffix(path, "depends_on") {
			parts := strings.Split(text, ",")
			slices.Sort(parts)
			text = strings.Join(parts, ",")
		}
		into[path] = changing.ReplaceAllString(text, "ID")
	}
}

// differences are the entries in which two states differ, but for those in ignored.
func differences(one, other map[string]string, ignored ...string) []string {
	var found []string
	keys := maps.Clone(one)
	maps.Copy(keys, other)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if one[key] != other[key] && !slices.ContainsFunc(ignored, func(i string) bool { return strings.Contains(key, i) }) {
			found = append(found, fmt.Sprintf("%s: stock %q, cleat %q", key, one[key], other[key]))
		}
	}
	return found
}

// What one has brought up the other finds as it would have made it.
func TestComposeTakeover(t *testing.T) {
	e := engine(t, "busybox")
	ours := references(t, e)
	theirs := ours.theirs(t)
	states := map[string]map[string]string{}
	for _, c := range []struct {
		who           string
		first, second *application
	}{{"stock", theirs, ours}, {"cleat", ours, theirs}} {
		c.first.ok(t, "up", "-d", "--wait")
		before := ours.ids(t)
		states[c.who] = ours.state(t)
		r := c.second.run(t, "up", "-d", "--wait")
		if after := ours.ids(t); r.Code != 0 || !maps.Equal(before, after) || len(after) != 6 {
			t.Fatalf("made by %s first: %v, then %v\n%s", c.who, before, after, r)
		}
		if strings.Contains(r.Stderr, "Recreate") || strings.Count(r.Stderr, "Running") < 6 {
			t.Errorf("made by %s first, then:\n%s", c.who, r.Stderr)
		}
		// Scaled by one, changed by the other, taken down by the other.
		c.second.ok(t, "up", "-d", "--scale", "many=3")
		if now := ours.ids(t); now[ours.name+"-many-3"] == "" || len(now) != 7 {
			t.Errorf("scaled: %v", now)
		}
		c.first.ok(t, "up", "-d", "--scale", "many=1")
		now := ours.ids(t)
		if len(now) != 5 || now[ours.name+"-many-1"] != before[ours.name+"-many-1"] {
			t.Errorf("scaled back: %v, before %v", now, before)
		}
		c.second.ok(t, "down", "-v", "-t", "0")
		if left := ours.ids(t); len(left) != 0 {
			t.Errorf("left after a down: %v", left)
		}
	}
	if len(states["stock"]) < 100 {
		t.Errorf("the engine says too little: %v", states["stock"])
	}
	// docker compose mounts the volumes of volumes_from as their container has them, though
	// the file says `:ro`. Which subnet a network gets depends on what else the machine has just then.
	for _, d := range differences(states["stock"], states["cleat"], "HostConfig.VolumesFrom", "_front IPAM.Config", "_default IPAM.Config") {
		t.Error(d)
	}
}

// A network that has changed is made anew, and its containers are on the new one.
func TestComposeChangedNetwork(t *testing.T) {
	e := engine(t, "busybox")
	ours := compose(t, e, map[string]string{"compose.yaml": `
services:
  web: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, networks: {back: {aliases: [www]}}}
  db: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, networks: [back]}
networks: {back: {labels: {of: "${OF}"}}}
`})
	for i, a := range []*application{ours, ours.theirs(t)} {
		a.env = []string{"OF=first" + a.program}
		a.ok(t, "up", "-d")
		before := ours.ids(t)
		a.env = []string{"OF=second" + a.program}
		a.ok(t, "up", "-d")
		if got := e.OK(t, "docker", "network", "inspect", "-f", "{{.Labels.of}}", ours.name+"_back"); got != "second"+a.program {
			t.Errorf("%d: the network has the label %q", i, got)
		}
		if a.program != "" {
			continue // docker compose keeps the containers, and loses the names by which they are found
		}
		a.ok(t, "exec", "-T", "db", "nslookup", "web")
		a.ok(t, "exec", "-T", "db", "nslookup", "www")
		if after := ours.ids(t); after[ours.name+"-web-1"] == before[ours.name+"-web-1"] {
			t.Errorf("%v, then %v", before, after)
		}
		// What is not asked for is on the new network, too.
		a.env = []string{"OF=third"}
		a.ok(t, "up", "-d", "web")
		a.env = []string{"OF=third"}
		a.ok(t, "start")
		a.ok(t, "exec", "-T", "web", "nslookup", "db")
	}
}

// Containers that were taken off a network which then could not be made anew are on it again when it can be.
func TestComposeNetworkThatCannotBeMadeAnew(t *testing.T) {
	e := engine(t, "busybox")
	four, _ := harness.Subnet(t)
	other, _ := harness.Subnet(t)
	a := compose(t, e, map[string]string{"compose.yaml": `
services:
  web: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, networks: [back]}
  db: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, networks: [back]}
networks: {back: {ipam: {config: [{subnet: "${NET}"}]}}}
`})
	a.env = []string{"NET=" + four + "0/24"}
	a.ok(t, "up", "-d")
	a.env = []string{"NET=" + four + "5/24"}
	if r := a.run(t, "up", "-d"); r.Code == 0 || !strings.Contains(r.Stderr, "it should be "+four+"0/24") {
		t.Errorf("%s", r)
	}
	a.env = []string{"NET=" + other + "0/24"}
	a.ok(t, "up", "-d")
	a.ok(t, "exec", "-T", "db", "nslookup", "web")
}

// Both do the same to a project's containers, verb by verb.
func TestComposeVerbsOfStock(t *testing.T) {
	e := engine(t, "busybox")
	ours := compose(t, e, map[string]string{"compose.yaml": `
services:
  web: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, depends_on: [db]}
  db: {image: busybox, command: sleep 1000, stop_signal: SIGKILL, scale: 2}
  once: {image: busybox, command: "true"}
`})
	var histories [2][]string
	for i, a := range []*application{ours.theirs(t), ours} {
		for _, verb := range []string{
			"create", "start", "pause web", "unpause web", "stop web", "start web", "restart -t 0 db", "kill db", "up -d db", "scale db=3", "up -d --scale db=1",
			"stop -t 0", "rm -f once", "up -d --no-deps web", "up -d --force-recreate", "down -t 0",
		} {
			r := a.run(t, strings.Fields(verb)...)
			var states string
			harness.Eventually(t, func() (bool, string) { // `once` ends when it likes
				states = e.OK(t, "docker", "ps", "-a", "--filter", "label=com.docker.compose.project="+ours.name, "--format", "{{.Names}} {{.State}}")
				return !strings.Contains(states, "-once-1 running"), states
			})
			lines := strings.Split(states, "\n")
			slices.Sort(lines)
			histories[i] = append(histories[i], fmt.Sprintf("%s: %d %v", verb, r.Code, lines))
		}
	}
	for i, want := range histories[0] {
		if got := histories[1][i]; got != want {
			t.Errorf("stock %s\ncleat %s", want, got)
		}
	}
}
