package api

import (
	"context"
	"encoding/json"
	"io"
	"math"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	eventtypes "github.com/moby/moby/api/types/events"

	"github.com/cleatlabs/cleat/internal/events"
	"github.com/cleatlabs/cleat/internal/failure"
)

func (h *Handler) systemEvents(ctx context.Context, w http.ResponseWriter, q *request) error {
	since, err := parseTimestamp("since", q.query.Get("since"))
	if err != nil {
		return err
	}
	until, err := parseTimestamp("until", q.query.Get("until"))
	if err != nil {
		return err
	}
	if !until.IsZero() && until.Before(since) {
		return failure.Invalid("`since` time (%s) cannot be after `until` time (%s)", q.query.Get("since"), q.query.Get("until"))
	}
	filters, err := parseFilters(q.query.Get("filters"))
	if err != nil {
		return err
	}
	match, err := events.NewFilter(filters)
	if err != nil {
		return err
	}

	ctx, cancel := h.streamContext(ctx, w)
	defer cancel()
	if since.IsZero() && until.IsZero() {
		since = h.listings.latest(peerOf(ctx), filters["label"])
	}
	past, live, unsubscribe := h.deps.Events.Subscribe(since, until, match)
	defer unsubscribe()

	media := eventsMedia(q.Header.Values("Accept"), q.version)
	w.Header().Set("Content-Type", media)
	w.WriteHeader(http.StatusOK)
	out := newRecordWriter(w, media == mediaJSONSeq)
	out.flush()
	for _, event := range past {
		if err := writeEvent(out, &event, q.version); err != nil {
			return nil // the client has gone
		}
	}
	for {
		select {
		case event, open := <-live:
			if !open || writeEvent(out, &event, q.version) != nil {
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// writeEvent writes one event in the shape of an API version.
func writeEvent(out *recordWriter, event *eventtypes.Message, asked version) error {
	if asked.below(46) && event.Type == eventtypes.ImageEventType && event.Action == eventtypes.ActionCreate {
		return nil
	}
	legacy := legacyEvent{Message: event}
	switch event.Type {
	case eventtypes.ContainerEventType:
		legacy.Status, legacy.ID, legacy.From = string(event.Action), event.Actor.ID, event.Actor.Attributes["image"]
	case eventtypes.ImageEventType:
		legacy.Status, legacy.ID = string(event.Action), event.Actor.ID
	}
	return out.write(legacy)
}

// legacyEvent repeats at the top level what clients of API 1.21 and older read there. Many
// later ones never stopped: CLIs before 25, VS Code, scripts with curl or Docker's Python SDK,
// docker-events of npm. Those that ask for the newest version, or for none, find it, too, which
// dockerd leaves out from 1.52 on.
type legacyEvent struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	*eventtypes.Message
}

// eventsMedia chooses the format of the event stream from the Accept headers.
func eventsMedia(accept []string, asked version) string {
	chosen, best := mediaJSON, 0.0
	if asked.from(52) {
		chosen = mediaJSONLines
	}
	for _, header := range accept {
		for part := range strings.SplitSeq(header, ",") {
			media, params, err := mime.ParseMediaType(strings.TrimSpace(part))
			if err != nil {
				continue
			}
			offered := media == mediaNDJSON || media == mediaJSONSeq || media == mediaJSONLines && asked.from(52)
			quality := 1.0
			if text, given := params["q"]; given {
				if quality, err = strconv.ParseFloat(text, 64); err != nil {
					continue
				}
			}
			if offered && quality > best {
				chosen, best = media, quality
			}
		}
	}
	return chosen
}

// parseTimestamp reads Unix seconds with an optional fraction. Empty is the
// zero time. Times are compared by their nanoseconds, which end in the year 2262:
// one that is later (9999-12-31, or milliseconds by mistake) is the last there is.
func parseTimestamp(key, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	whole, fraction, _ := strings.Cut(text, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	var nanos int64
	if err == nil && fraction != "" {
		if len(fraction) > 9 {
			fraction = fraction[:9]
		}
		nanos, err = strconv.ParseInt(fraction+strings.Repeat("0", 9-len(fraction)), 10, 64)
	}
	if err != nil || nanos < 0 {
		return time.Time{}, failure.Invalid("invalid value %q for %s: it must be Unix seconds with an optional fraction, as in 1700000000.123456789", text, key)
	}
	const last = math.MaxInt64/int64(time.Second) - 1
	return time.Unix(min(max(seconds, -last), last), nanos), nil
}

// recordWriter writes a stream of JSON records, each sent on its own: some
// clients parse chunk by chunk.
type recordWriter struct {
	w        io.Writer
	flusher  http.Flusher
	enc      *json.Encoder
	sequence bool // RFC 7464: each record begins with a record separator
}

func newRecordWriter(w http.ResponseWriter, sequence bool) *recordWriter {
	out := &recordWriter{w: w, sequence: sequence, enc: json.NewEncoder(w)}
	out.flusher, _ = w.(http.Flusher)
	out.enc.SetEscapeHTML(false)
	return out
}

func (o *recordWriter) write(record any) error {
	if o.sequence {
		if _, err := o.w.Write([]byte{0x1e}); err != nil {
			return err
		}
	}
	if err := o.enc.Encode(record); err != nil {
		return err
	}
	o.flush()
	return nil
}

func (o *recordWriter) flush() {
	if o.flusher != nil {
		o.flusher.Flush()
	}
}
