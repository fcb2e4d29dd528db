package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/docker/cli/templates"
	"github.com/moby/moby/api/types/container"
)

// TestPlainFormat: what is written out directly is what the template engine makes of it.
func TestPlainFormat(t *testing.T) {
	data, err := os.ReadFile("testdata/containers.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []container.Summary
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	more := list[0]
	for _, image := range []string{"nginx", "nginx:1", "Not An Image", "localhost", "localhost:5000", "docker.io/library/nginx:1", "quay.io/a/b",
		"nginx@sha256:" + "0123456789012345678901234567890123456789012345678901234567890123", "0123456789012345678901234567890123456789012345678901234567890123"} {
		more.Image = image
		list = append(list, more)
	}
	for _, trunc := range []bool{true, false} {
		rows := make([]any, len(list))
		for i := range list {
			rows[i] = &containerRow{c: &list[i], trunc: trunc}
		}
		plain := 0
		for _, format := range []string{containerFormat("", false, false), containerFormat("", false, true), containerFormat("", true, false),
			"{{.ID}}", "table {{.Names}}\t{{.State}}", "{{.Names}} {{.Image}}, {{.CreatedAt}}{{.Size}} {{", "{{.Platform}}", "{{ .ID }}", "{{.ID}}}}", "{{json .}}", "{{.}}", "", "x"} {
			l := listing{format: format, headers: containerHeaders}
			_, body, ok := l.plain(rows)
			tmpl, err := templates.Parse(templateText(format))
			if err != nil {
				if ok {
					t.Errorf("%q is no template, but was written as %q", format, body)
				}
				continue
			}
			if !ok {
				continue
			}
			plain++
			var want bytes.Buffer
			for _, row := range rows {
				if err := tmpl.Execute(&want, row); err != nil {
					t.Fatal(err)
				}
				want.WriteByte('\n')
			}
			if !bytes.Equal(body, want.Bytes()) {
				t.Errorf("%q:\n%s\nwant\n%s", format, body, &want)
			}
		}
		if plain < 6 {
			t.Errorf("only %d formats were plain", plain)
		}
	}
}

func FuzzParsePlain(f *testing.F) {
	for _, s := range []string{"{{.ID}}", "a{{.B}}c{{.D}}", "{{.ID", "}}{{", "{{{.ID}}", "{{.ID}}}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		parsed, ok := parsePlain(text)
		if !ok {
			return
		}
		tmpl, err := templates.Parse(text)
		if err != nil {
			t.Fatalf("%q is plain, but no template: %v", text, err)
		}
		fields := map[string]string{}
		for _, p := range parsed {
			if p.field != "" {
				fields[p.field] = "<" + p.field + ">"
			}
		}
		var want, got bytes.Buffer
		if err := tmpl.Execute(&want, fields); err != nil {
			t.Fatal(err)
		}
		want.WriteByte('\n')
		parsed.line(&got, func(name string) (string, bool) { return fields[name], true })
		if want.String() != got.String() {
			t.Errorf("%q: %q, want %q", text, got.String(), want.String())
		}
	})
}
