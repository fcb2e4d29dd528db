package e2e

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// tarFile is a file of a tar archive with a header that no library would write.
func tarFile(kind byte, name string, body []byte) []byte {
	h := make([]byte, 512, 512+len(body)+511)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[124:], fmt.Sprintf("%011o\x00%011o\x00", len(body), 0))
	copy(h[148:], "        ")
	h[156] = kind
	copy(h[257:], "ustar\x0000")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	h = append(h, body...)
	return append(h, make([]byte, -len(body)&511)...)
}

// petabyte is a tar archive of a few kilobytes with a file that is a hole of 1 PiB.
func petabyte() string {
	const size = 1 << 50
	var records bytes.Buffer
	for _, r := range [][2]string{
		{"GNU.sparse.major", "1"}, {"GNU.sparse.minor", "0"}, {"GNU.sparse.name", "hole"}, {"GNU.sparse.realsize", fmt.Sprint(size)},
	} {
		text := fmt.Sprintf(" %s=%s\n", r[0], r[1])
		fmt.Fprintf(&records, "%d%s", len(text)+2, text) // all of them have two digits
	}
	spots := make([]byte, 512)
	copy(spots, fmt.Sprintf("1\n%d\n0\n", size))
	return string(tarFile('x', "pax", records.Bytes())) + string(tarFile('0', "hole", spots)) + strings.Repeat("\x00", 1024)
}

// longName is a tar archive with a name that no path can hold.
func longName() string {
	name := strings.Repeat("d/", 5000)
	return string(tarFile('L', "././@LongLink", []byte(name+"\x00"))) + string(tarFile('5', "d", nil)) + strings.Repeat("\x00", 1024)
}

// TestArchivesThatDeclareTheImpossible: a few bytes that stand for a petabyte, or for
// a path that takes minutes to look up, are refused wherever an archive is taken, with
// the reason, before the disk is full of zeros.
func TestArchivesThatDeclareTheImpossible(t *testing.T) {
	e := engine(t, "busybox")
	e.OK(t, "cleat", "run", "-d", "--name", "impossible", "busybox", "sleep", "1000")
	t.Cleanup(func() { e.OK(t, "cleat", "rm", "-f", "impossible") })
	for _, tc := range []struct {
		what, archive, text string
		args                []string
	}{
		{"a hole that is copied", petabyte(), "1125899906842624 bytes, and the whole filesystem", []string{"cp", "-", "impossible:/tmp"}},
		{"a hole that is imported", petabyte(), "hole (1125899906842624 bytes", []string{"import", "-", "impossible:hole"}},
		{"a hole among images", petabyte(), "hole has 1125899906842624 bytes", []string{"load"}},
		{"a name that is copied", longName(), "a name of 10000 bytes", []string{"cp", "-", "impossible:/tmp"}},
		{"a name that is imported", longName(), "a name of 10000 bytes", []string{"import", "-", "impossible:name"}},
	} {
		if r := e.Do(t, "cleat", tc.archive, tc.args...); r.Code == 0 || !strings.Contains(r.Stderr, tc.text) || len(r.Stderr) > 1000 {
			t.Errorf("%s: exit %d, %.1000s", tc.what, r.Code, r.Stderr)
		}
	}
	if images := e.OK(t, "cleat", "images", "-aq", "impossible"); images != "" {
		t.Errorf("images of it are left: %s", images)
	}
}
