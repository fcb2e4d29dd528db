package show

import (
	"bytes"
	"unicode/utf8"
)

// longest is how much of a line is kept until its end comes, bytes: a container that writes no line's end would else
// fill the memory of who looks at it.
const longest = 1 << 20

// Parts parts a stream into lines, and lines of more than 1 MiB into several parts. It is used by one goroutine.
type Parts struct {
	To   func(line []byte) error // is given each with its end, but for parts of lines; valid during the call
	rest []byte                  // of a line whose end has not come
}

// Write implements io.Writer. Its errors are those of To.
func (s *Parts) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		if err := s.add(line); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (s *Parts) add(line []byte) error {
	begun := len(s.rest) > 0
	if begun {
		line = append(s.rest, line...)
	}
	for len(bytes.TrimSuffix(line, []byte("\n"))) > longest {
		cut := longest
		for cut > longest-utf8.UTFMax && !utf8.RuneStart(line[cut]) {
			cut--
		}
		if err := s.To(line[:cut]); err != nil {
			return err
		}
		line = line[cut:]
	}
	switch {
	case line[len(line)-1] == '\n':
		s.rest = nil
		return s.To(line)
	case begun:
		s.rest = line
	default:
		s.rest = bytes.Clone(line)
	}
	return nil
}

// Flush hands on what there is of an unfinished line.
func (s *Parts) Flush() error {
	if len(s.rest) == 0 {
		return nil
	}
	line := s.rest
	s.rest = nil
	return s.To(line)
}

// Close implements io.Closer: it is Flush.
func (s *Parts) Close() error { return s.Flush() }
