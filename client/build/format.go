package build

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/docker/cli/templates"
	"github.com/docker/go-units"

	"github.com/cleatlabs/cleat/client/term"
)

// row is what a template sees of one thing in a list.
type row map[string]any

// Formats that have a name.
const (
	tableFormat = "table"
	jsonFormat  = "json"
)

// list prints rows in format: a table ("table" and a template), one JSON object a line, or
// a template. headers are the names of the columns, and what a row has that is none of
// them is seen by templates only.
func list(w io.Writer, format string, headers map[string]string, rows []row) error {
	text, table := strings.CutPrefix(format, tableFormat)
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(strings.TrimLeft(text, " "))
	if format == jsonFormat {
		text = "{{json .}}"
	}
	tmpl, err := templates.Parse(text)
	if err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	tmpl = tmpl.Option("missingkey=error")
	var body bytes.Buffer
	for _, r := range rows {
		if err := tmpl.Execute(&body, map[string]any(r)); err != nil {
			return fmt.Errorf("template parsing error: %w", err)
		}
		body.WriteByte('\n')
	}
	if !table {
		_, err := w.Write(body.Bytes())
		return err
	}
	t := term.NewTable(w, 10, 3)
	var head bytes.Buffer
	// A template that computes with its fields may fail on their names: the header then
	// ends there, the rows do not.
	clone, err := tmpl.Clone()
	if err != nil {
		return err
	}
	_ = clone.Funcs(templates.HeaderFunctions).Execute(&head, headers)
	head.WriteByte('\n')
	_, _ = t.Write(head.Bytes())
	_, _ = t.Write(body.Bytes())
	return t.Flush()
}

func ago(t *time.Time) string {
	if t == nil {
		return ""
	}
	return units.HumanDuration(time.Since(*t)) + " ago"
}

// span is how long something took, as buildx writes it.
func span(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return fmt.Sprintf("%dm %2ds", int(d.Minutes()), int(d.Seconds())%60)
}
