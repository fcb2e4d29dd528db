package project

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	"go.yaml.in/yaml/v4"
)

// whatever are the kinds of value that somebody may write in the place of the right one.
var whatever = []string{"null", "1", "{x: null}", "[null]"}

// A value of the wrong kind, wherever it stands, is an error that says so, and nothing worse: the library panics at some.
func TestWrongValues(t *testing.T) {
	logrus.SetOutput(new(bytes.Buffer))
	defer logrus.SetOutput(os.Stderr)
	const text = `name: app
services:
  web:
    image: x
    build: {context: ., args: {A: b}, secrets: [s]}
    ports: ["80:80", {target: 81}]
    environment: {A: b}
    env_file: [{path: none, required: false}]
    depends_on: {db: {condition: service_started}}
    deploy: {replicas: 1, resources: {limits: {cpus: "1"}, reservations: {devices: [{capabilities: [gpu]}]}}}
    healthcheck: {test: [CMD, "true"], interval: 1s}
    networks: {n: {aliases: [a]}}
    volumes: [v:/v, {type: bind, source: ., target: /t, bind: {propagation: shared}}]
    secrets: [s]
    configs: [{source: c, target: /c}]
    ulimits: {nofile: {soft: 1, hard: 2}}
    develop: {watch: [{path: ., action: sync, target: /a}]}
    logging: {driver: json-file, options: {a: b}}
    post_start: [{command: [a]}]
    labels: [a=b]
    extra_hosts: ["a:1.2.3.4"]
    models: [m]
  db: {image: x}
networks: {n: {ipam: {config: [{subnet: 10.0.0.0/8}]}}}
volumes: {v: {driver: local}}
secrets: {s: {file: ./s}}
configs: {c: {content: c}}
models: {m: {model: x}}
`
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "compose.yaml")
	replaceEach(t, doc.Content[0], func(where string) {
		data, err := yaml.Marshal(&doc)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
		_, err = Load(t.Context(), Options{Files: []string{file}}, Raw{})
		if err != nil && strings.Contains(err.Error(), "of a kind that cannot stand where it does") {
			t.Errorf("%s: what is wrong is not said: %v", where, err)
		}
		if err != nil {
			return
		}
		if _, said := loaded(t, []string{file}, false); said != "" {
			t.Errorf("%s: it is loaded, though the library says %s", where, said)
		}
	})
}

// replaceEach puts each of whatever into the place of each value below a node, and calls try.
func replaceEach(t *testing.T, n *yaml.Node, try func(where string)) {
	t.Helper()
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			continue
		}
		for _, text := range whatever {
			var other yaml.Node
			if err := yaml.Unmarshal([]byte(text), &other); err != nil {
				t.Fatal(err)
			}
			n.Content[i] = other.Content[0]
			try(fmt.Sprintf("line %d, %s", c.Line, text))
		}
		n.Content[i] = c
		replaceEach(t, c, try)
	}
}
