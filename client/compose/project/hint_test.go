package project

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The usual mistakes get a word on what to write.
func TestHints(t *testing.T) {
	for file, want := range map[string]string{
		"services:\n  web:\n    image: x\n    enviroment: {A: b}\n":         "'enviroment' not allowed\n  --> FILE:4:5\n    4 |     enviroment: {A: b}\nHint: did you mean environment?",
		"services:\n  web:\n    image: x\n    depend_on: [a]\n":             "Hint: did you mean depends_on?",
		"services:\n  web:\n    image: x\n    zzzzzz: 1\n":                  "zzzzzz: 1",
		"servces:\n  web: {image: x}\n":                                     "Hint: did you mean services?",
		"web:\n  image: x\n":                                                "Hint: services stand below a line 'services:', indented",
		"services:\n\tweb: {}\n":                                            "yaml: found character that cannot start any token\n  --> FILE:2\n    2 | \tweb: {}\nHint: this line begins with a tab",
		"services:\n  web:\n    image:x\n":                                  "services.web must be a mapping\n  --> FILE:2:3\n    2 |   web:\nHint: its attributes stand below it, indented, each with a space after the colon",
		"services:\n  web:\n    image: x\n    environment:\n      - A: b\n": "Hint: in a list, this is written KEY=VALUE",
		"services:\n  web:\n    image: x\n    command: {a: b}\n":            "Hint: it is a text, or a list of words",
		"services:\n  web:\n    image: x\n    ports: \"80:80\"\n":           "Hint: it is a list: [one, two], or a line for each entry, with '- ' before it",
		"services:\n  web:\n    image: \"x\n    command: y\n":               "yaml: found unexpected end of stream\n  --> FILE:3:12\n    3 |     image: \"x\nHint: the quote that begins here is not closed",
		"services:\n  a: {image: x}\n  a: {image: y}\n":                     "failed to parse FILE: mapping key \"a\" already defined at line 2\n  --> FILE:3\n",
		"services:\n  web:\n    image: x\n   command: y\n":                  "failed to parse FILE: yaml: did not find expected key\n  --> FILE:4:4\n",
	} {
		path := filepath.Join(t.TempDir(), "compose.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(t.Context(), Options{Files: []string{path}, Name: "p"}, Raw{})
		if err == nil {
			t.Errorf("%q is taken", file)
			continue
		}
		text := strings.ReplaceAll(err.Error(), path, "FILE")
		if !strings.Contains(text, want) || strings.Contains(text, "Hint:") != strings.Contains(want, "Hint:") {
			t.Errorf("%s\nwant %s", text, want)
		}
	}
}
