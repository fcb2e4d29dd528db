package instruction

import (
	"strings"

	"github.com/cleatlabs/cleat/internal/failure"
)

// split cuts a text into words at blanks that are neither quoted nor escaped. Quotes and
// escapes stay: expand reads them.
func split(s string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord, quote := false, byte(0)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(s):
			word.WriteByte(c)
			i++
			word.WriteByte(s[i])
			inWord = true
			continue
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote, inWord = c, true
		case c == ' ' || c == '\t' || c == '\n':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
			continue
		default:
			inWord = true
		}
		word.WriteByte(c)
	}
	if quote != 0 {
		return nil, failure.Invalid("unexpected end of statement while looking for matching %q", quote)
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}

// expand takes quotes and escapes away and puts in the values of variables.
func (s *state) expand(word string) (string, error) {
	var out strings.Builder
	for i := 0; i < len(word); {
		switch c := word[i]; {
		case c == '\'':
			end := strings.IndexByte(word[i+1:], '\'')
			if end < 0 {
				return "", failure.Invalid("unexpected end of statement while looking for matching single-quote")
			}
			out.WriteString(word[i+1 : i+1+end])
			i += end + 2
		case c == '"':
			n, err := s.quoted(&out, word[i+1:])
			if err != nil {
				return "", err
			}
			i += n + 1
		case c == '\\' && i+1 < len(word):
			out.WriteByte(word[i+1])
			i += 2
		case c == '$':
			n, err := s.variable(&out, word[i:])
			if err != nil {
				return "", err
			}
			i += n
		default:
			out.WriteByte(c)
			i++
		}
	}
	return out.String(), nil
}

// quoted reads up to the closing quote and says how much it was.
func (s *state) quoted(out *strings.Builder, text string) (int, error) {
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '"':
			return i + 1, nil
		case c == '\\' && i+1 < len(text):
			if !strings.ContainsRune("\"$\\", rune(text[i+1])) {
				out.WriteByte(c)
			}
			out.WriteByte(text[i+1])
			i += 2
		case c == '$':
			n, err := s.variable(out, text[i:])
			if err != nil {
				return 0, err
			}
			i += n
		default:
			out.WriteByte(c)
			i++
		}
	}
	return 0, failure.Invalid("unexpected end of statement while looking for matching double-quote")
}

// variable reads $name, ${name}, ${name:-default} or ${name:+other}.
func (s *state) variable(out *strings.Builder, text string) (int, error) {
	if !strings.HasPrefix(text, "${") {
		n := 1
		for n < len(text) && isName(text[n]) {
			n++
		}
		if n == 1 {
			out.WriteByte('$')
			return 1, nil
		}
		out.WriteString(s.lookup(text[1:n]))
		return n, nil
	}
	end := strings.IndexByte(text, '}')
	if end < 0 {
		return 0, failure.Invalid("syntax error: missing '}'")
	}
	body := text[2:end]
	n := 0
	for n < len(body) && isName(body[n]) {
		n++
	}
	name, modifier := body[:n], body[n:]
	value := s.lookup(name)
	switch {
	case name == "":
		return 0, failure.Invalid("syntax error: bad substitution")
	case modifier == "":
	case strings.HasPrefix(modifier, ":-"):
		if value == "" {
			value = modifier[2:]
		}
	case strings.HasPrefix(modifier, ":+"):
		if value != "" {
			value = modifier[2:]
		}
	default:
		return 0, failure.Invalid("unsupported modifier (%s) in substitution", modifier)
	}
	out.WriteString(value)
	return end + 1, nil
}

func isName(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func (s *state) lookup(name string) string {
	for _, e := range s.config.Env {
		if value, ok := strings.CutPrefix(e, name+"="); ok {
			return value
		}
	}
	return ""
}
