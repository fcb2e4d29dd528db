package logs

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/internal/stdio"
)

// FuzzDecode holds the hand-written decoder against encoding/json: where both
// can read a line, they must agree.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{"log":"a\n","stream":"stdout","time":"2024-05-01T10:11:12.123456789Z"}`,
		`{"log":"\u00e4\ud83d\ude80\ud83d\"\\\/\b","stream":"stderr","attrs":{"k":"v"},"time":"2024-02-29T10:11:12Z"}`,
		`{"log":"a\n","stream":"stdout","time":"1960-05-01T10:11:12.1Z"}`,
		`{"log":"","stream":"x"}`, "\x00", `{"log":"\`, `{"log":"\u12`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		var l struct {
			Log    string          `json:"log"`
			Stream string          `json:"stream"`
			Attrs  json.RawMessage `json:"attrs"`
			Time   time.Time       `json:"time"`
		}
		jerr := json.Unmarshal(line, &l)
		var r record
		if !decodeFast(bytes.Clone(line), &r) || jerr != nil {
			return
		}
		if string(r.text) != l.Log || r.stream.String() != l.Stream || r.nano != l.Time.UnixNano() {
			// Bytes that are not UTF-8 stay as they are here; a repeated key
			// or one in another case is not what anybody writes.
			if !bytes.ContainsAny(line, "\ufffd") && json.Valid(line) && utf8Valid(line) && bytes.Count(line, []byte(`":`)) == 3 {
				t.Errorf("%q: got %q %s %d, want %q %s %d", line, r.text, r.stream, r.nano, l.Log, l.Stream, l.Time.UnixNano())
			}
		}
	})
}

// FuzzRoundTrip encodes any output and decodes it again.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("plain"), int64(1), false, false)
	f.Add([]byte("\xff<&>\u2028\r\n\x00\"\\"), int64(1700000000123456789), true, false)
	f.Add([]byte("\xff<&>\u2028\r\n\x00\"\\ plain \xe2\x82"), int64(1700000000123456789), true, true)
	f.Fuzz(func(t *testing.T, text []byte, nano int64, partial, raw bool) {
		if nano < 0 || nano > 4e18 {
			return
		}
		e := encoder{raw: raw}
		line := e.append(nil, stdio.Stderr, text, partial, nano)
		body := line[:len(line)-1]
		if !raw && (!json.Valid(body) || !utf8Valid(body)) || bytes.IndexByte(body, '\n') >= 0 {
			t.Fatalf("bad line %q", line)
		}
		var r record
		if !decodeFast(bytes.Clone(body), &r) {
			t.Fatalf("cannot read back %q", line)
		}
		want := string(text)
		if !raw {
			want = toValid(text)
		}
		if !partial {
			want += "\n"
		}
		if string(r.text) != want || r.nano != nano || r.stream != stdio.Stderr {
			t.Errorf("got %q %d, want %q %d", r.text, r.nano, want, nano)
		}
	})
}

// toValid replaces each byte that is not UTF-8 as the encoder does.
func toValid(b []byte) string { return string([]rune(string(b))) }

func utf8Valid(b []byte) bool { return toValid(b) == string(b) }
