package logs

import (
	"bytes"
	"encoding/json"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/cleatlabs/cleat/internal/stdio"
)

// record is one decoded line of a log file.
type record struct {
	stream stdio.Stream
	nano   int64 // Unix nanoseconds
	text   []byte
	attrs  []byte // the attrs object as JSON, nil if there is none
}

var (
	logPrefix    = []byte(`{"log":"`)
	stdoutPrefix = []byte(`,"stream":"stdout"`)
	stderrPrefix = []byte(`,"stream":"stderr"`)
	attrsPrefix  = []byte(`,"attrs":`)
	timePrefix   = []byte(`,"time":"`)
)

// decode reads one line (without its newline). It may change line: text lies
// inside it where possible. Lines that are not log lines, such as the zeros that
// a power failure leaves, are not ok.
func decode(line []byte, r *record) (ok bool) {
	return decodeFast(line, r) || decodeSlow(line, r)
}

// decodeFast reads the form that Docker and this package write.
func decodeFast(line []byte, r *record) bool {
	body, ok := bytes.CutPrefix(line, logPrefix)
	if !ok {
		return false
	}
	end, escaped := stringEnd(body)
	if end < 0 {
		return false
	}
	rest := body[end+1:]
	switch {
	case bytes.HasPrefix(rest, stdoutPrefix):
		r.stream = stdio.Stdout
	case bytes.HasPrefix(rest, stderrPrefix):
		r.stream = stdio.Stderr
	default:
		return false
	}
	rest = rest[len(stdoutPrefix):]
	r.attrs = nil
	if len(rest) > 0 && !bytes.HasPrefix(rest, timePrefix) {
		i := bytes.LastIndex(rest, timePrefix)
		if i < len(attrsPrefix) || !bytes.HasPrefix(rest, attrsPrefix) {
			return false
		}
		r.attrs = rest[len(attrsPrefix):i]
		rest = rest[i:]
	}
	stamp, ok := bytes.CutPrefix(rest, timePrefix)
	if !ok {
		return false
	}
	if stamp, ok = bytes.CutSuffix(stamp, []byte(`"}`)); !ok {
		return false
	}
	if r.nano, ok = parseStamp(stamp); !ok {
		return false
	}
	switch {
	case escaped < 0:
		r.text = body[:end]
	case escaped == end-2 && body[escaped+1] == 'n':
		body[escaped] = '\n'
		r.text = body[:escaped+1]
	default:
		r.text = unescape(body[:end], escaped)
	}
	return true
}

// stringEnd finds the quote that ends a JSON string and its first backslash (-1
// if there is none).
func stringEnd(b []byte) (end, escaped int) {
	escaped = bytes.IndexByte(b, '\\')
	if escaped < 0 {
		return bytes.IndexByte(b, '"'), -1
	}
	if q := bytes.IndexByte(b[:escaped], '"'); q >= 0 {
		return q, -1
	}
	for i := escaped; i < len(b); {
		switch b[i] {
		case '\\':
			i += 2
		case '"':
			return i, escaped
		default:
			i++
		}
	}
	return -1, escaped
}

// unescape replaces the escapes of a JSON string in place, where none is
// shorter than what it stands for. from is the first backslash.
func unescape(b []byte, from int) []byte {
	w := from
	for i := from; i < len(b); {
		c := b[i]
		if c != '\\' || i+1 >= len(b) {
			b[w] = c
			w++
			i++
			continue
		}
		c = b[i+1]
		i += 2
		if c == 'u' {
			r, n := unescapeRune(b[i:])
			i += n
			w += utf8.EncodeRune(b[w:w+utf8.RuneLen(r)], r)
			continue
		}
		if t := bytes.IndexByte([]byte(`nrtbf`), c); t >= 0 {
			c = "\n\r\t\b\f"[t]
		}
		b[w] = c
		w++
	}
	return b[:w]
}

// unescapeRune reads the hex digits behind \u, and a second half of a surrogate
// pair, and says how many bytes that took.
func unescapeRune(b []byte) (rune, int) {
	r, ok := hex4(b)
	if !ok {
		return utf8.RuneError, min(4, len(b))
	}
	if !utf16.IsSurrogate(r) {
		return r, 4
	}
	if len(b) >= 10 && b[4] == '\\' && b[5] == 'u' {
		if low, ok := hex4(b[6:]); ok {
			if full := utf16.DecodeRune(r, low); full != utf8.RuneError {
				return full, 10
			}
		}
	}
	return utf8.RuneError, 4
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// parseStamp reads an RFC 3339 time in UTC without going through time.Parse,
// which would take longer than all the rest of a line.
func parseStamp(b []byte) (int64, bool) {
	if len(b) < 20 || b[4] != '-' || b[7] != '-' || b[10] != 'T' || b[13] != ':' || b[16] != ':' || b[len(b)-1] != 'Z' {
		return 0, false
	}
	year, a := digits(b[0:4])
	month, c := digits(b[5:7])
	day, d := digits(b[8:10])
	hour, e := digits(b[11:13])
	minute, f := digits(b[14:16])
	second, g := digits(b[17:19])
	if !(a && c && d && e && f && g) || month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 59 {
		return 0, false
	}
	frac := 0
	if b = b[19 : len(b)-1]; len(b) > 0 {
		if b[0] != '.' || len(b) < 2 || len(b) > 10 {
			return 0, false
		}
		var ok bool
		if frac, ok = digits(b[1:]); !ok {
			return 0, false
		}
		for range 10 - len(b) {
			frac *= 10
		}
	}
	sec := daysFromCivil(year, month, day)*86400 + int64(hour*3600+minute*60+second)
	if sec > 9e9 || sec < -9e9 {
		return 0, false // beyond what fits into nanoseconds
	}
	return sec*1e9 + int64(frac), true
}

func digits(b []byte) (int, bool) {
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

// daysFromCivil counts the days from 1970-01-01 to a date of the Gregorian
// calendar, in years that begin in March so that the leap day comes last.
func daysFromCivil(year, month, day int) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	era := year / 400
	yoe := year - era*400
	doy := (153*(month-3)+2)/5 + day - 1
	doe := yoe*365 + yoe/4 - yoe/100 + doy
	return int64(era)*146097 + int64(doe) - 719468
}

// decodeSlow reads any JSON object with the keys of a log line.
func decodeSlow(line []byte, r *record) bool {
	var l struct {
		Log    string          `json:"log"`
		Stream string          `json:"stream"`
		Attrs  json.RawMessage `json:"attrs"`
		Time   time.Time       `json:"time"`
	}
	if json.Unmarshal(line, &l) != nil {
		return false
	}
	switch l.Stream {
	case "stdout", "":
		r.stream = stdio.Stdout
	case "stderr":
		r.stream = stdio.Stderr
	default:
		return false
	}
	r.text, r.attrs, r.nano = []byte(l.Log), l.Attrs, l.Time.UnixNano()
	return true
}
