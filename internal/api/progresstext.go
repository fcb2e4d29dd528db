package api

import (
	"fmt"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/jsonstream"
)

// lastProgressText is the last API version whose progress records also have a text
// that is ready to be shown.
const lastProgressText = 51

// textedMessage is a progress record with its text, in Docker's order of fields.
type textedMessage struct {
	Stream   string               `json:"stream,omitempty"`
	Status   string               `json:"status,omitempty"`
	Progress *jsonstream.Progress `json:"progressDetail,omitempty"`
	Text     string               `json:"progress,omitempty"`
	ID       string               `json:"id,omitempty"`
	Error    *jsonstream.Error    `json:"errorDetail,omitempty"`
	Aux      any                  `json:"aux,omitempty"`
}

// withProgressText is message as a client of an older version expects it.
func withProgressText(m jsonstream.Message) any {
	text := progressText(m.Progress)
	if text == "" {
		return m
	}
	t := textedMessage{Stream: m.Stream, Status: m.Status, Progress: m.Progress, Text: text, ID: m.ID, Error: m.Error}
	if m.Aux != nil {
		t.Aux = m.Aux
	}
	return t
}

// progressText is a bar of fifty places and the counts: "[=====>   …]  1.2MB/12MB".
func progressText(p *jsonstream.Progress) string {
	if p == nil || (p.Current <= 0 && p.Total <= 0) {
		return ""
	}
	count := func(n int64) string { return units.HumanSize(float64(n)) }
	unit := ""
	if p.Units != "" {
		count, unit = func(n int64) string { return fmt.Sprint(n) }, " "+p.Units
	}
	if p.Total <= 0 {
		return fmt.Sprintf("%8s%s", count(p.Current), unit)
	}
	const places = 50
	done := min(int(float64(p.Current)/float64(p.Total)*places), places)
	bar := "[" + strings.Repeat("=", done) + ">" + strings.Repeat(" ", places-done) + "] "
	switch {
	case p.HideCounts:
		return bar
	case p.Current > p.Total:
		return bar + fmt.Sprintf("%8s%s", count(p.Current), unit)
	default:
		return bar + fmt.Sprintf("%8s/%s%s", count(p.Current), count(p.Total), unit)
	}
}
