package reference

import (
	"regexp"
	"sync"
)

// LazyRegexp is a regular expression that is compiled when it is first used (in the original: in every process that
// links this package, at its start). It may be used by several goroutines.
type LazyRegexp struct {
	expr     string
	once     sync.Once
	compiled *regexp.Regexp
}

func (l *LazyRegexp) regexp() *regexp.Regexp {
	l.once.Do(func() { l.compiled = regexp.MustCompile(l.expr) })
	return l.compiled
}

// String is the expression's text.
func (l *LazyRegexp) String() string { return l.expr }

// MatchString is that of regexp.Regexp.
func (l *LazyRegexp) MatchString(s string) bool { return l.regexp().MatchString(s) }

// FindStringSubmatch is that of regexp.Regexp.
func (l *LazyRegexp) FindStringSubmatch(s string) []string { return l.regexp().FindStringSubmatch(s) }

// NumSubexp is that of regexp.Regexp.
func (l *LazyRegexp) NumSubexp() int { return l.regexp().NumSubexp() }
