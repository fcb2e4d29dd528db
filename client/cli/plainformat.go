package cli

import (
	"bytes"
	"strings"
)

// plainRow is a row that answers fields by name, as its methods do. One with an unknown
// name is not for it.
type plainRow interface {
	field(name string) (string, bool)
}

// plainFormat is a template of nothing but texts and fields, as those of the default
// tables are. Writing it out directly takes a fraction of what the template engine, which
// looks up and calls each method by reflection, takes for the rows of a long list.
type plainFormat []plainPart

// plainPart is a field, or a text if field is empty.
type plainPart struct{ text, field string }

// parsePlain says whether the template is plain.
func parsePlain(template string) (plainFormat, bool) {
	var f plainFormat
	for template != "" {
		text, rest, found := strings.Cut(template, "{{")
		if text != "" {
			f = append(f, plainPart{text: text})
		}
		if !found {
			break
		}
		action, after, ok := strings.Cut(rest, "}}")
		name, dotted := strings.CutPrefix(action, ".")
		if !ok || !dotted || name == "" || strings.ContainsFunc(name, notLetter) {
			return nil, false
		}
		f = append(f, plainPart{field: name})
		template = after
	}
	return f, true
}

func notLetter(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') }

// write adds a line for each row, and says false if one has not all of the fields.
func (f plainFormat) write(b *bytes.Buffer, rows []any) bool {
	for _, row := range rows {
		r, ok := row.(plainRow)
		if !ok || !f.line(b, r.field) {
			return false
		}
	}
	return true
}

func (f plainFormat) line(b *bytes.Buffer, field func(string) (string, bool)) bool {
	for _, p := range f {
		text := p.text
		if p.field != "" {
			var ok bool
			if text, ok = field(p.field); !ok {
				return false
			}
		}
		b.WriteString(text)
	}
	b.WriteByte('\n')
	return true
}

// plain is the table's header and the lines of the rows, if format and rows are plain.
func (l listing) plain(rows []any) (header, body []byte, ok bool) {
	f, ok := parsePlain(templateText(l.format))
	if !ok || len(rows) == 0 {
		return nil, nil, false
	}
	var head, lines bytes.Buffer
	if !f.write(&lines, rows) {
		return nil, nil, false
	}
	ok = !isTable(l.format) || f.line(&head, func(name string) (string, bool) { h, ok := l.headers[name]; return h, ok })
	return head.Bytes(), lines.Bytes(), ok
}
