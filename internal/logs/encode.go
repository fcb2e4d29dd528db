package logs

import (
	"encoding/binary"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/cleatlabs/cleat/internal/stdio"
)

// encoder writes json-file lines. Its output is byte for byte what Docker's
// hand-written encoder makes: the keys log, stream, attrs, time in this order,
// \n and \r by name, other control characters and < > & as \u00XX, invalid
// UTF-8 as \ufffd, U+2028 and U+2029 escaped, and the time in RFC 3339 with
// trailing zeros of the fraction cut. With raw, bytes that are no UTF-8 stand in
// the line as they are: that is no JSON, but the text itself comes back.
type encoder struct {
	raw   bool
	attrs []byte // `"attrs":{…},` or empty
	stamp stamp
}

// append adds one line. text is without its newline; partial ones (pieces of a
// line) get none.
func (e *encoder) append(b []byte, s stdio.Stream, text []byte, partial bool, nano int64) []byte {
	b = append(b, `{"log":"`...)
	b = appendEscaped(b, text, e.raw)
	if !partial {
		b = append(b, '\\', 'n')
	}
	if s == stdio.Stderr {
		b = append(b, `","stream":"stderr",`...)
	} else {
		b = append(b, `","stream":"stdout",`...)
	}
	b = append(b, e.attrs...)
	b = append(b, `"time":"`...)
	b = e.stamp.append(b, nano, false)
	return append(b, '"', '}', '\n')
}

const hexDigits = "0123456789abcdef"

// appendEscaped adds text as the inside of a JSON string. Runs of plain
// characters, the common case, are found eight bytes at a time: of v, a word of eight
// bytes, (v-ones)&^v has a byte's top bit set if the byte is zero (and no top bit if none
// is), and v^ones*c has a zero byte where v has c. With the top bits of v itself that
// tells whether any of them is a control character, one to escape, or beyond ASCII.
func appendEscaped(b, text []byte, raw bool) []byte {
	start := 0
	for i := 0; i < len(text); {
		// Written out: as a function it would not be inlined, and here a busy log's time goes.
		if i+8 <= len(text) {
			v := binary.LittleEndian.Uint64(text[i:])
			quote, slash, angle, amp := v^ones*'"', v^ones*'\\', (v&^(ones*2))^ones*'<', v^ones*'&'
			if (v|(v-ones*0x20)&^v|(quote-ones)&^quote|(slash-ones)&^slash|(angle-ones)&^angle|(amp-ones)&^amp)&tops == 0 {
				i += 8
				continue
			}
		}
		c := text[i]
		if c < utf8.RuneSelf {
			if plain(c) {
				i++
				continue
			}
			b = append(b, text[start:i]...)
			b = appendEscape(b, c)
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRune(text[i:])
		switch {
		case r == utf8.RuneError && size == 1 && raw:
		case r == utf8.RuneError && size == 1:
			b = append(b, text[start:i]...)
			b = append(b, `\ufffd`...)
			start = i + size
		case r == '\u2028' || r == '\u2029':
			b = append(b, text[start:i]...)
			b = append(b, `\u202`...)
			b = append(b, hexDigits[r&0xf])
			start = i + size
		}
		i += size
	}
	return append(b, text[start:]...)
}

func plain(c byte) bool {
	return c >= 0x20 && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
}

func appendEscape(b []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(b, '\\', c)
	case '\n':
		return append(b, '\\', 'n')
	case '\r':
		return append(b, '\\', 'r')
	}
	return append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
}

const (
	ones = 0x0101010101010101
	tops = 0x8080808080808080
)

// stamp formats times; the date and time up to the second are kept, as
// neighbouring lines share them.
type stamp struct {
	sec  int64
	text []byte // "2006-01-02T15:04:05"

	// The last fraction and its digits: lines of one batch are a nanosecond apart.
	frac   int64
	digits [10]byte // "." and nine digits
}

// append adds the time in UTC: with fixed, nine fraction digits, else without
// trailing zeros.
func (s *stamp) append(b []byte, nano int64, fixed bool) []byte {
	sec, frac := nano/1e9, nano%1e9
	if frac < 0 {
		sec, frac = sec-1, frac+1e9
	}
	if s.text == nil || sec != s.sec {
		s.sec = sec
		s.text = time.Unix(sec, 0).UTC().AppendFormat(s.text[:0], "2006-01-02T15:04:05")
	}
	b = append(b, s.text...)
	if frac == 0 && !fixed {
		return append(b, 'Z')
	}
	if frac == s.frac+1 && s.digits[0] == '.' {
		s.next()
	} else if frac != s.frac || s.digits[0] != '.' {
		strconv.AppendInt(s.digits[:0], frac+1e9, 10) // ten digits, the first a 1
		s.digits[0] = '.'
	}
	s.frac = frac
	d := s.digits[:]
	if !fixed {
		for d[len(d)-1] == '0' {
			d = d[:len(d)-1]
		}
	}
	return append(append(b, d...), 'Z')
}

// next counts the digits up by one; the last fraction of a second is not asked for it.
func (s *stamp) next() {
	for i := len(s.digits) - 1; ; i-- {
		if s.digits[i] != '9' {
			s.digits[i]++
			return
		}
		s.digits[i] = '0'
	}
}
