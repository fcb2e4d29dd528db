package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"text/template"

	"github.com/docker/cli/templates"

	"github.com/cleatlabs/cleat/client/term"
)

// listing prints rows in the format that the user has asked for: a table, one JSON
// object a line, or a Go template. Rows are pointers to structs whose methods without
// arguments are the fields, as templates see them.
type listing struct {
	format  string            // as given, or the default table's
	headers map[string]string // of the table's columns, by field
}

const (
	quietID    = "{{.ID}}"
	jsonFormat = "json"
)

// isTable says whether the format is a table, with or without columns of its own.
func isTable(format string) bool { return strings.HasPrefix(format, "table") }

// templateText is the template of a format.
func templateText(format string) string {
	switch format {
	case "table":
		return ""
	case jsonFormat:
		return "{{json .}}"
	}
	text, _ := strings.CutPrefix(format, "table")
	if !isTable(format) {
		text = format
	}
	return strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(strings.Trim(text, " "))
}

// write prints the rows.
func (l listing) write(w io.Writer, rows []any) error {
	if header, body, ok := l.plain(rows); ok {
		if !isTable(l.format) {
			_, err := w.Write(body)
			return err
		}
		t := term.NewTable(w, 10, 3)
		_, _ = t.Write(header)
		_, _ = t.Write(body)
		return t.Flush()
	}
	tmpl, err := templates.Parse(templateText(l.format))
	if err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	var body bytes.Buffer
	for _, row := range rows {
		if err := tmpl.Execute(&body, row); err != nil {
			return fmt.Errorf("template parsing error: %w", err)
		}
		body.WriteByte('\n')
	}
	if !isTable(l.format) {
		_, err = w.Write(body.Bytes())
		return err
	}
	t := term.NewTable(w, 10, 3)
	if err := l.writeHeader(t, tmpl); err != nil {
		return err
	}
	_, _ = t.Write(body.Bytes())
	return t.Flush()
}

func (l listing) writeHeader(t io.Writer, tmpl *template.Template) error {
	head, err := tmpl.Clone()
	if err != nil {
		return err
	}
	var line bytes.Buffer
	// A template that computes with its fields may fail on their names: the header
	// then ends there, the rows do not.
	_ = head.Funcs(templates.HeaderFunctions).Execute(&line, tableHeader(l.headers))
	line.WriteByte('\n')
	_, err = t.Write(line.Bytes())
	return err
}

// tableHeader answers a template's fields with the names of the columns.
type tableHeader map[string]string

// Label is the heading of a column that shows one label.
func (tableHeader) Label(name string) string {
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		name = name[i+1:]
	}
	return strings.NewReplacer("-", " ", "_", " ").Replace(name)
}

// fields are what row's methods without arguments return, by their names.
func fields(row any) map[string]any {
	v := reflect.ValueOf(row)
	out := map[string]any{}
	for i := range v.NumMethod() {
		if m := v.Method(i); m.Type().NumIn() == 0 && m.Type().NumOut() == 1 && v.Type().Method(i).Name != "MarshalJSON" {
			out[v.Type().Method(i).Name] = m.Call(nil)[0].Interface()
		}
	}
	return out
}

// marshalRow is for rows' MarshalJSON, which `{{json .}}` uses.
func marshalRow(row any) ([]byte, error) { return json.Marshal(fields(row)) }

// shortID is the id as tables show it.
func shortID(id string) string {
	if _, hex, ok := strings.Cut(id, ":"); ok {
		id = hex
	}
	if len(id) > 12 {
		id = id[:12]
	}
	return id
}

// joinLabels is k=v,… sorted.
func joinLabels(labels map[string]string) string {
	list := make([]string, 0, len(labels))
	for k, v := range labels {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}
