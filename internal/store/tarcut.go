package store

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"strings"
)

// tarCutter looks at an archive while it is written, and says of each piece whether it belongs to the content of a file
// that may be left out. What it does not understand it never lets be left out.
type tarCutter struct {
	// leaveOut decides about a regular file when its content is about to come.
	leaveOut func(name string, size, at int64) bool

	at     int64  // bytes until now
	header []byte // of the next member, as far as it has come
	body   int64  // bytes of the member's content that are still to come
	fill   int64  // and of what follows it up to a full block
	skip   bool   // the content is left out
	extra  []byte // content of a member that tells of the next one
	kind   byte   // of that member; 0 is none
	name   string // of the next member, if it was told
	size   int64  // likewise; -1 if it was not
	lost   bool   // the rest is not understood
}

const (
	tarBlock = 512
	// largestExtra bounds what one member may tell of the next; longer is not understood.
	largestExtra = 1 << 20
)

func newTarCutter(leaveOut func(name string, size, at int64) bool) *tarCutter {
	return &tarCutter{leaveOut: leaveOut, size: -1}
}

// next says how many of the bytes, at least one, are alike, and whether they are left out.
func (c *tarCutter) next(p []byte) (n int, out bool) {
	switch {
	case c.lost:
		n = len(p)
	case c.body > 0:
		n, out = int(min(c.body, int64(len(p)))), c.skip
		if c.kind != 0 {
			c.extra = append(c.extra, p[:n]...)
		}
		if c.body -= int64(n); c.body == 0 {
			c.told()
		}
	case c.fill > 0:
		n = int(min(c.fill, int64(len(p))))
		c.fill -= int64(n)
	default:
		n = min(tarBlock-len(c.header), len(p))
		c.header = append(c.header, p[:n]...)
	}
	c.at += int64(n)
	if len(c.header) == tarBlock {
		c.member(c.header)
		c.header = c.header[:0]
	}
	return n, out
}

// member begins one by its header.
func (c *tarCutter) member(h []byte) {
	kind := h[156]
	size, ok := tarNumber(h[124:136])
	if !ok {
		c.lost = true
		return
	}
	c.skip = false
	switch kind {
	case 'x', 'L', 'K', 'g':
		if size > largestExtra {
			c.lost = true
			return
		}
		c.kind, c.extra, c.body = kind, c.extra[:0], size
		if size == 0 {
			c.told()
		}
	case '0', 0, '7':
		name := c.name
		if name == "" {
			name = tarText(h[:100])
			if prefix := tarText(h[345:500]); prefix != "" && bytes.HasPrefix(h[257:], []byte("ustar\x00")) {
				name = prefix + "/" + name
			}
		}
		if c.size >= 0 {
			size = c.size
		}
		c.body = size
		c.skip = size > 0 && c.leaveOut(name, size, c.at)
		c.name, c.size = "", -1
	case '1', '2', '3', '4', '5', '6':
		if c.size > 0 || size > 0 { // nothing writes that, and readers differ about it
			c.lost = true
			return
		}
		c.body, c.name, c.size = 0, "", -1
	default: // sparse files of GNU tar and more, and the end's zeros
		c.lost = true
		return
	}
	c.fill = -c.body & (tarBlock - 1)
}

// told takes what a member has said of the next one, if it was such.
func (c *tarCutter) told() {
	kind := c.kind
	c.kind, c.skip = 0, false
	switch kind {
	case 'L':
		c.name = tarText(c.extra)
	case 'g':
		c.lost = true // it counts for all that follow
	case 'x':
		for rest := c.extra; len(rest) > 0; {
			var key, value string
			var ok bool
			if key, value, rest, ok = paxRecord(rest); !ok {
				c.lost = true
				return
			}
			switch {
			case key == "path":
				c.name = value
			case key == "size":
				size, err := strconv.ParseInt(value, 10, 64)
				if err != nil || size < 0 {
					c.lost = true
					return
				}
				c.size = size
			case strings.HasPrefix(key, "GNU.sparse."):
				c.lost = true
				return
			}
		}
	}
}

// paxRecord reads "LENGTH KEY=VALUE\n".
func paxRecord(b []byte) (key, value string, rest []byte, ok bool) {
	digits, _, found := bytes.Cut(b[:min(len(b), 20)], []byte(" "))
	n, err := strconv.Atoi(string(digits))
	if !found || err != nil || n < len(digits)+3 || n > len(b) || b[n-1] != '\n' {
		return "", "", nil, false
	}
	key, value, ok = strings.Cut(string(b[len(digits)+1:n-1]), "=")
	return key, value, b[n:], ok
}

// tarText is a text that ends with the field or at a zero.
func tarText(field []byte) string {
	text, _, _ := bytes.Cut(field, []byte{0})
	return string(text)
}

// tarNumber reads a number of a header: octal, or of GNU's and star's kind with the highest bit set.
func tarNumber(field []byte) (int64, bool) {
	if field[0]&0x80 != 0 {
		if field[0] != 0x80 || field[1] != 0 || field[2] != 0 || field[3] != 0 {
			return 0, false
		}
		n := binary.BigEndian.Uint64(field[4:])
		return int64(n), n < 1<<60
	}
	text := strings.Trim(string(field), " \x00")
	if text == "" {
		return 0, true
	}
	n, err := strconv.ParseInt(text, 8, 64)
	return n, err == nil && n >= 0
}
