package proctable

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cleatlabs/cleat/internal/failure"
)

// ticks are the clock ticks a second in which /proc counts; part of the kernel's ABI.
const ticks = 100

// Rows describes those of the processes that are still there, by ascending id, one cell
// for each title.
func (f *Format) Rows(pids []int) ([][]string, error) {
	h, err := readHost()
	if err != nil {
		return nil, err
	}
	pids = slices.Clone(pids)
	slices.Sort(pids)
	rows := [][]string{}
	pids = slices.Compact(pids)
	longest := longestArgs(len(pids))
	for _, pid := range pids {
		p := &process{host: h, pid: pid, longest: longest}
		if !p.readStat() {
			continue // it has ended
		}
		row := make([]string, len(f.columns))
		for i, c := range f.columns {
			row[i] = c.value(p)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// longestArgs is how many bytes of each command line are shown where there are so many processes. A process may have
// megabytes of them, and share them with ten thousand copies of itself: they cost what runs in a container nothing, and
// each row of the table as much memory.
func longestArgs(processes int) int {
	const least, most, all = 1 << 10, 128 << 10, 32 << 20 // ps shows 128 KiB
	return min(max(all/max(processes, 1), least), most)
}

// host is what all rows of one table share.
type host struct {
	now, boot time.Time
	uptime    float64 // seconds
	memory    uint64  // bytes
	pageSize  uint64
	users     map[string]string // by id; read when first asked for
	groups    map[string]string
}

func readHost() (*host, error) {
	h := &host{now: time.Now(), pageSize: uint64(os.Getpagesize())}
	if _, err := fmt.Sscan(readFile("/proc/uptime"), &h.uptime); err != nil {
		return nil, failure.Unavailable("/proc/uptime cannot be read: is /proc mounted? (%w)", err)
	}
	for line := range strings.Lines(readFile("/proc/stat")) {
		if text, ok := strings.CutPrefix(line, "btime "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
			h.boot = time.Unix(n, 0)
		}
	}
	if text, ok := fieldOf(readFile("/proc/meminfo"), "MemTotal:"); ok {
		h.memory = number(text) * 1024
	}
	return h, nil
}

// user is the name of a user of the host: ps knows no others either.
func (h *host) user(id string) string {
	if h.users == nil {
		h.users = names("/etc/passwd")
	}
	if n := h.users[id]; n != "" {
		return n
	}
	return id
}

func (h *host) group(id string) string {
	if h.groups == nil {
		h.groups = names("/etc/group")
	}
	if n := h.groups[id]; n != "" {
		return n
	}
	return id
}

// names reads the first name for each id of a file with lines "name:x:id:…".
func names(path string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(readFile(path)) {
		f := strings.SplitN(line, ":", 4)
		if len(f) == 4 && out[f[2]] == "" {
			out[f[2]] = f[0]
		}
	}
	return out
}

// process is one row in the making. What only some columns need is read for them.
type process struct {
	*host
	pid     int
	comm    string
	stat    []string // the fields behind the command, from the state on
	status  *string
	longest int // bytes of its command line
}

// Places in stat, from the state on; see proc(5).
const (
	statState, statParent, statGroup, statSession, statTTY, statForeground, statFlags = 0, 1, 2, 3, 4, 5, 6
	statMinor, statMajor, statUser, statSystem, statPriority, statNice                = 7, 9, 11, 12, 15, 16
	statThreads, statStart, statVirtual                                               = 17, 19, 20
	statProcessor, statRealtime, statPolicy, statFields                               = 36, 37, 38, 39
)

func (p *process) path(name string) string { return "/proc/" + strconv.Itoa(p.pid) + "/" + name }

func (p *process) readStat() bool {
	comm, fields, ok := parseStat(readFile(p.path("stat")))
	p.comm, p.stat = comm, fields
	return ok
}

// parseStat splits /proc/PID/stat. The command is in parentheses and may hold any.
func parseStat(text string) (comm string, fields []string, ok bool) {
	open, end := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || end < open {
		return "", nil, false
	}
	fields = strings.Fields(text[end+1:])
	return printable(text[open+1 : end]), fields, len(fields) >= statFields
}

func (p *process) num(field int) uint64 { return number(p.stat[field]) }

func (p *process) signed(field int) int64 {
	n, _ := strconv.ParseInt(p.stat[field], 10, 64)
	return n
}

// statusField is the nth word of a line of /proc/PID/status.
func (p *process) statusField(key string, n int) string {
	if p.status == nil {
		s := readFile(p.path("status"))
		p.status = &s
	}
	for line := range strings.Lines(*p.status) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			if f := strings.Fields(rest); n < len(f) {
				return f[n]
			}
		}
	}
	return "-"
}

// args is the command line, the command in brackets where there is none.
func (p *process) args() string {
	if p.stat[statState] == "Z" {
		return "[" + p.comm + "] <defunct>"
	}
	line := strings.TrimRight(readHead(p.path("cmdline"), p.longest), "\x00")
	if line == "" {
		return "[" + p.comm + "]"
	}
	return printable(strings.ReplaceAll(line, "\x00", " "))
}

func (p *process) used() float64 { return float64(p.num(statUser)+p.num(statSystem)) / ticks }

func (p *process) age() float64 { return max(p.uptime-float64(p.num(statStart))/ticks, 0) }

func (p *process) started() time.Time {
	return p.boot.Add(time.Duration(p.num(statStart)) * (time.Second / ticks))
}

// state is the long form of ps: the letter and what more there is to say.
func (p *process) state() string {
	s := p.stat[statState]
	switch nice := p.signed(statNice); {
	case nice < 0:
		s += "<"
	case nice > 0:
		s += "N"
	}
	if locked := p.statusField("VmLck", 0); locked != "0" && locked != "-" {
		s += "L"
	}
	if p.num(statSession) == uint64(p.pid) {
		s += "s"
	}
	if p.num(statThreads) > 1 {
		s += "l"
	}
	if p.stat[statForeground] == p.stat[statGroup] {
		s += "+"
	}
	return s
}

// tty is the name of the controlling terminal as the host has it.
func (p *process) tty() string {
	n := uint32(p.signed(statTTY))
	major, minor := n>>8&0xfff, n&0xff|n>>12&0xfff00
	switch {
	case n == 0:
		return "?"
	case major >= 136 && major <= 143:
		return "pts/" + strconv.Itoa(int((major-136)<<8+minor))
	case major == 4 && minor < 64:
		return "tty" + strconv.Itoa(int(minor))
	case major == 4:
		return "ttyS" + strconv.Itoa(int(minor-64))
	case major == 5 && minor == 1:
		return "console"
	}
	return "?"
}

// namespace is the number of one of the process's namespaces.
func (p *process) namespace(kind string) string {
	link, err := os.Readlink(p.path("ns/" + kind))
	if err != nil {
		return "-"
	}
	_, id, _ := strings.Cut(link, ":[")
	return strings.TrimSuffix(id, "]")
}

// readFile is a file's text, "" if it cannot be read: a process may end at any moment.
func readFile(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(b)
}

// readHead is readFile up to most bytes.
func readHead(path string, most int) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(most)))
	if err != nil {
		return ""
	}
	return string(b)
}

func number(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}

// fieldOf is the first word behind a key at the beginning of a line.
func fieldOf(text, key string) (string, bool) {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == key {
			return f[1], true
		}
	}
	return "", false
}

// printable replaces what would break a line, or a terminal.
func printable(s string) string {
	return string(bytes.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, []byte(s)))
}
