package api_test

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// withoutEffect are parameters of served operations that are not read, and why
// that is no loss. An entry that the description does not have is an error.
var withoutEffect = map[string]string{
	"POST /containers/{id}/start detachKeys": "a start attaches nobody; Docker does not read it either",
	"GET /images/json digests":               "digests are always part of the answer",
	"POST /build forcerm":                    "no intermediate containers are kept",
	"POST /build rm":                         "no intermediate containers are kept",
	"POST /build Content-type":               "whatever it says, a tar archive is read",
	"GET /images/json all":                   "there are no intermediate images",
	"DELETE /images/{name} noprune":          "no image has a parent that could be removed with it",
	"GET /plugins filters":                   "there are no plugins to choose from",
}

// parameters reads the query and header parameters of all operations out of the
// API description, as "METHOD /path name".
func parameters(t *testing.T) []string {
	t.Helper()
	file := description(t)
	var found []string
	var path, method, name string
	inPaths, inParameters := false, false
	for scan := bufio.NewScanner(file); scan.Scan(); {
		line := scan.Text()
		text := strings.TrimSpace(line)
		indent := len(line) - len(strings.TrimLeft(line, " "))
		switch {
		case text == "" || text[0] == '#':
		case indent == 0:
			inPaths = text == "paths:"
		case !inPaths:
		case indent == 2:
			path, method = strings.TrimSuffix(text, ":"), ""
		case indent == 4:
			method, inParameters = strings.ToUpper(strings.TrimSuffix(text, ":")), false
		case indent == 6:
			inParameters = text == "parameters:"
		case inParameters && indent == 8 && strings.HasPrefix(text, "- name:"):
			name = strings.Trim(strings.TrimSpace(strings.TrimPrefix(text, "- name:")), `"`)
		case inParameters && indent == 10 && (text == `in: "query"` || text == "in: query" || text == `in: "header"`):
			found = append(found, method+" "+path+" "+name)
		}
	}
	if len(found) < 80 {
		t.Fatalf("found only %d parameters: the description is not read right", len(found))
	}
	return found
}

// Every parameter of a served operation is read by the door, or stands in the
// list above: an option that is accepted and ignored is a defect.
func TestEveryParameterIsRead(t *testing.T) {
	var source strings.Builder
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !strings.HasSuffix(file, "_test.go") {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			source.Write(text)
		}
	}
	all := parameters(t)
	for _, parameter := range all {
		fields := strings.Fields(parameter)
		name := fields[2]
		if !served[operation{fields[0], fields[1]}] || withoutEffect[parameter] != "" {
			continue
		}
		if name == "X-Registry-Auth" {
			name = "AuthHeader"
			if !strings.Contains(source.String(), "registry."+name) {
				t.Errorf("%s is not read", parameter)
			}
			continue
		}
		if !strings.Contains(source.String(), `"`+name+`"`) {
			t.Errorf("%s is not read", parameter)
		}
	}
	for parameter := range withoutEffect {
		if !slices.Contains(all, parameter) {
			t.Errorf("%s is not in the description", parameter)
		}
	}
}
