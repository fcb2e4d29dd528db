package stdio_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/stdio"
)

func TestParseDetachKeys(t *testing.T) {
	good := map[string]string{
		"": "\x10\x11", "ctrl-p,ctrl-q": "\x10\x11", "ctrl-a,b": "\x01b", "DEL": "\x7f", "ctrl-@": "\x00",
		`ctrl-[,ctrl-\,ctrl-],ctrl-^,ctrl-_`: "\x1b\x1c\x1d\x1e\x1f", "q": "q", "ctrl-z,A": "\x1aA",
	}
	for in, want := range good {
		if got, err := stdio.ParseDetachKeys(in); string(got) != want || err != nil {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"ctrl-A", "shift-a", "ctrl-", "ctrl-ab", ",", "a,,b", "del"} {
		got, err := stdio.ParseDetachKeys(in)
		if !errdefs.IsInvalidArgument(err) || !strings.HasPrefix(err.Error(), "Unknown character: '") {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

// typed copies input through CopyStdin, whole or byte by byte.
func typed(t *testing.T, input string, keys string, slow bool) (passed string, err error) {
	t.Helper()
	r, w := pipe(t)
	var src io.Reader = strings.NewReader(input)
	if slow {
		src = iotest.OneByteReader(src)
	}
	err = stdio.CopyStdin(w, src, []byte(keys))
	w.Close()
	b, rerr := io.ReadAll(r)
	if rerr != nil {
		t.Fatal(rerr)
	}
	return string(b), err
}

func TestDetachKeys(t *testing.T) {
	cases := []struct {
		in, keys, out string
		detached      bool
	}{
		{"plain", "pq", "plain", false},
		{"ls\npq", "pq", "ls\n", true},
		{"pqrest", "pq", "", true},
		{"ap", "pq", "ap", false},
		{"apx", "pq", "apx", false},
		{"ppq", "pq", "p", true},
		{"aabaaab", "aaab", "aab", true},
		{"abababc", "ababc", "ab", true},
		{"text", "", "text", false},
		{"\x10\x11", "\x10\x11", "", true},
	}
	for _, c := range cases {
		for _, slow := range []bool{false, true} {
			got, err := typed(t, c.in, c.keys, slow)
			if got != c.out || errors.Is(err, stdio.ErrDetached) != c.detached || err != nil && !c.detached {
				t.Errorf("%q with keys %q (slow %v): passed %q, %v", c.in, c.keys, slow, got, err)
			}
		}
	}
}

func TestCopyStdinEndsQuietlyWhenTheProcessCloses(t *testing.T) {
	r, w := pipe(t)
	r.Close()
	if err := stdio.CopyStdin(w, strings.NewReader("unread"), nil); err != nil {
		t.Error(err)
	}
	r, w = pipe(t)
	broken := errors.New("connection reset")
	if err := stdio.CopyStdin(w, iotest.ErrReader(broken), nil); !errors.Is(err, broken) {
		t.Errorf("the client's error is lost: %v", err)
	}
	r.Close()
}

func FuzzDetachKeys(f *testing.F) {
	f.Add([]byte("ababcabab"), []byte("abab"), 3)
	f.Add([]byte("\x10\x10\x11"), []byte("\x10\x11"), 1)
	r, w, err := os.Pipe()
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { r.Close(); w.Close() })
	f.Fuzz(func(t *testing.T, in, keys []byte, chunk int) {
		if len(in) > 60000 || chunk < 1 || len(keys) > 100 {
			return
		}
		err := stdio.CopyStdin(w, &chunks{in, chunk}, keys)
		want, found := in, -1
		if len(keys) > 0 {
			found = bytes.Index(in, keys)
		}
		if found >= 0 {
			want = in[:found]
		}
		got := make([]byte, len(want))
		if _, rerr := io.ReadFull(r, got); rerr != nil || !bytes.Equal(got, want) || errors.Is(err, stdio.ErrDetached) != (found >= 0) {
			t.Errorf("%q with keys %q: passed %q, %v", in, keys, got, err)
		}
	})
}

type chunks struct {
	b []byte
	n int
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(c.n, len(p))], c.b)
	c.b = c.b[n:]
	return n, nil
}

// writes counts calls.
type writes [][]byte

func (w *writes) Write(p []byte) (int, error) {
	*w = append(*w, bytes.Clone(p))
	return len(p), nil
}

func TestMuxWriterPutsAHeaderBeforeEachWrite(t *testing.T) {
	var w writes
	if n, err := stdio.NewMuxWriter(&w, stdio.Stderr).Write([]byte("oops\n")); n != 5 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if len(w) != 1 || string(w[0]) != "\x02\x00\x00\x00\x00\x00\x00\x05oops\n" {
		t.Errorf("wrote %q", w)
	}
	w = nil
	large := bytes.Repeat([]byte("x"), 20000)
	if n, err := stdio.NewMuxWriter(&w, stdio.Stdout).Write(large); n != len(large) || err != nil {
		t.Errorf("a large frame: %d, %v", n, err)
	}
	if got := bytes.Join(w, nil); string(got[:8]) != "\x01\x00\x00\x00\x00\x00\x4e\x20" || !bytes.Equal(got[8:], large) {
		t.Errorf("a large frame begins with %q", got[:16])
	}
	if n, err := stdio.NewMuxWriter(iotest.TruncateWriter(io.Discard, 3), stdio.Stdout).Write(nil); n != 0 || err != nil {
		t.Errorf("an empty frame: %d, %v", n, err)
	}
}
