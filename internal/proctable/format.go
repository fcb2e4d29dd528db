package proctable

import (
	"slices"
	"strings"

	"github.com/cleatlabs/cleat/internal/failure"
)

// Format is a choice of columns. It is immutable.
type Format struct {
	columns []column
}

// column is one of the table, under the title that was asked for.
type column struct {
	title string
	value func(*process) string
}

// Titles are the columns' names.
func (f *Format) Titles() []string {
	titles := make([]string, len(f.columns))
	for i, c := range f.columns {
		titles[i] = c.title
	}
	return titles
}

// The formats of ps by their fields; a field with "=" has a title other than its usual.
const (
	fullFields   = "user=UID,pid,ppid,c,stime,tname,time,cmd"
	extraFields  = "user=UID,pid,ppid,c,sz,rss,psr,stime,tname,time,cmd"
	plainFields  = "pid,tname,time,ucmd"
	longFields   = "f,s,uid,pid,ppid,c,opri=PRI,ni,addr,sz,wchan,tname,time,ucmd"
	longFull     = "f,s,user=UID,pid,ppid,c,opri=PRI,ni,addr,sz,wchan,stime,tname,time,cmd"
	jobFields    = "pid,pgid,sid,tname,time,ucmd"
	jobFull      = "user=UID,pid,ppid,pgid,sid,c,stime,tname,time,cmd"
	bsdFields    = "pid,tname,stat,bsdtime,args"
	bsdUser      = "user,pid,pcpu,pmem,vsz,rss,tname,stat,start_time,bsdtime,args"
	bsdLong      = "f,uid,pid,ppid,priority=PRI,ni,vsz,rss,wchan,stat,tname,bsdtime,args"
	bsdJob       = "ppid,pid,pgid,sid,tname,tpgid,stat,uid,bsdtime,args"
	longestField = 64
)

// options are what arguments have asked for so far.
type options struct {
	full, extra, long, job      bool // -f -F -l -j
	bsd, bsdUser, bsdLong, bsdJ bool // any BSD flag, u, l, j
	fields                      []string
}

// Parse reads the arguments of ps, joined by blanks as clients send them; none are -ef.
func Parse(args string) (*Format, error) {
	words := strings.Fields(args)
	if len(words) == 0 {
		words = []string{"-ef"}
	}
	var o options
	for len(words) > 0 {
		word := words[0]
		rest, err := o.take(word, words[1:])
		if err != nil {
			return nil, err
		}
		words = rest
	}
	return o.format()
}

// take reads one argument and what belongs to it, and returns the others.
func (o *options) take(word string, rest []string) ([]string, error) {
	if long, ok := strings.CutPrefix(word, "--"); ok {
		return o.takeLong(word, long, rest)
	}
	letters, unix := strings.CutPrefix(word, "-")
	if unix && letters == "" {
		return nil, unsupported("argument", word)
	}
	for i, letter := range letters {
		if letter == 'o' {
			return o.takeFields(word, letters[i+1:], rest)
		}
		known := false
		if unix {
			known = o.unixFlag(letter)
		} else {
			known = o.bsdFlag(letter)
		}
		switch {
		case known:
		case unix:
			return nil, unsupported("flag", "-"+string(letter))
		default:
			return nil, unsupported("flag", string(letter))
		}
	}
	return rest, nil
}

// takeFields reads the value of o, which is the rest of its word or the next one.
func (o *options) takeFields(word, value string, rest []string) ([]string, error) {
	if value == "" {
		if len(rest) == 0 {
			return nil, failure.Invalid("ps argument %q: a list of columns must follow", word)
		}
		value, rest = rest[0], rest[1:]
	}
	o.fields = append(o.fields, splitFields(value)...)
	return rest, nil
}

func (o *options) takeLong(word, long string, rest []string) ([]string, error) {
	name, value, joined := strings.Cut(long, "=")
	switch {
	case name == "format":
		if joined && value == "" {
			return nil, failure.Invalid("ps argument %q: a list of columns must follow", word)
		}
		return o.takeFields(word, value, rest)
	case (name == "cols" || name == "columns" || name == "width") && joined:
		return rest, nil // nothing is cut off
	}
	return nil, unsupported("flag", "--"+name)
}

// splitFields splits at commas and leaves out what is empty.
func splitFields(value string) []string {
	return slices.DeleteFunc(strings.Split(value, ","), func(f string) bool { return f == "" })
}

// unixFlag takes a letter behind a dash. A and e choose all processes, w the width.
func (o *options) unixFlag(letter rune) bool {
	switch letter {
	case 'A', 'e', 'a', 'd', 'w':
	case 'f':
		o.full = true
	case 'F':
		o.full, o.extra = true, true
	case 'l':
		o.long = true
	case 'j':
		o.job = true
	default:
		return false
	}
	return true
}

// bsdFlag takes a letter without a dash.
func (o *options) bsdFlag(letter rune) bool {
	o.bsd = true
	switch letter {
	case 'a', 'x', 'w', 'g':
	case 'u':
		o.bsdUser = true
	case 'l':
		o.bsdLong = true
	case 'j':
		o.bsdJ = true
	default:
		return false
	}
	return true
}

func (o *options) format() (*Format, error) {
	fields := o.fields
	if fields == nil {
		fields = strings.Split(o.builtin(), ",")
	}
	f := &Format{}
	for _, field := range fields {
		name, title, titled := strings.Cut(field, "=")
		k, ok := kinds[name]
		if !ok {
			if len(name) > longestField {
				name = name[:longestField] + "…"
			}
			return nil, unsupported("column", name)
		}
		if !titled {
			title = k.title
		}
		f.columns = append(f.columns, column{title: title, value: k.value})
	}
	if !slices.ContainsFunc(f.columns, func(c column) bool { return c.title != "" }) {
		return nil, failure.Invalid("ps arguments: every column is without a title")
	}
	return f, nil
}

// builtin is the list of columns that the flags ask for together.
func (o *options) builtin() string {
	switch {
	case o.bsdUser:
		return bsdUser
	case o.bsdLong:
		return bsdLong
	case o.bsdJ:
		return bsdJob
	case o.long && o.full:
		return longFull
	case o.long:
		return longFields
	case o.job && o.full:
		return jobFull
	case o.job:
		return jobFields
	case o.extra:
		return extraFields
	case o.full:
		return fullFields
	case o.bsd:
		return bsdFields
	}
	return plainFields
}

func unsupported(what, name string) error {
	return failure.Invalid("ps %s %q is not supported by this engine, which reads /proc itself: use -ef, aux, or -o with %s", what, name,
		"pid, ppid, user, uid, group, gid, comm, args, pcpu, pmem, vsz, rss, tty, stat, stime, etime, time, nice, nlwp and the like")
}
