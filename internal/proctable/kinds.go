package proctable

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// kind is a column that can be asked for.
type kind struct {
	title string
	value func(*process) string
}

// kinds are the columns by the names that ps has for them.
var kinds = map[string]kind{
	"pid": {"PID", pid}, "tgid": {"TGID", pid}, "lwp": {"LWP", pid}, "tid": {"TID", pid}, "spid": {"SPID", pid},
	"ppid": {"PPID", field(statParent)},
	"pgid": {"PGID", field(statGroup)}, "pgrp": {"PGRP", field(statGroup)},
	"sid": {"SID", field(statSession)}, "sess": {"SESS", field(statSession)}, "session": {"SESS", field(statSession)},
	"tpgid": {"TPGID", field(statForeground)},

	"uid": {"UID", effective("Uid")}, "euid": {"EUID", effective("Uid")}, "ruid": {"RUID", real("Uid")},
	"user": {"USER", euser}, "euser": {"EUSER", euser}, "uname": {"USER", euser},
	"ruser": {"RUSER", func(p *process) string { return p.user(p.statusField("Uid", 0)) }},
	"gid":   {"GID", effective("Gid")}, "egid": {"EGID", effective("Gid")}, "rgid": {"RGID", real("Gid")},
	"group": {"GROUP", egroup}, "egroup": {"EGROUP", egroup},
	"rgroup": {"RGROUP", func(p *process) string { return p.group(p.statusField("Gid", 0)) }},

	"comm": {"COMMAND", comm}, "ucomm": {"COMMAND", comm}, "ucmd": {"CMD", comm},
	"args": {"COMMAND", (*process).args}, "command": {"COMMAND", (*process).args}, "cmd": {"CMD", (*process).args},
	"exe": {"EXE", executable},

	"c":    {"C", func(p *process) string { return strconv.Itoa(min(int(p.load()*100), 99)) }},
	"pcpu": {"%CPU", percentCPU}, "%cpu": {"%CPU", percentCPU},
	"pmem": {"%MEM", percentMemory}, "%mem": {"%MEM", percentMemory},
	"vsz": {"VSZ", virtual}, "vsize": {"VSZ", virtual},
	"rss": {"RSS", resident}, "rssize": {"RSS", resident}, "rsz": {"RSZ", resident},
	"sz":      {"SZ", func(p *process) string { return decimal(p.num(statVirtual) / p.pageSize) }},
	"maj_flt": {"MAJFLT", field(statMajor)}, "majflt": {"MAJFLT", field(statMajor)},
	"min_flt": {"MINFLT", field(statMinor)}, "minflt": {"MINFLT", field(statMinor)},

	"tty": {"TT", (*process).tty}, "tt": {"TT", (*process).tty}, "tname": {"TTY", (*process).tty},
	"s": {"S", field(statState)}, "state": {"S", field(statState)}, "stat": {"STAT", (*process).state},
	"f": {"F", flags}, "flag": {"F", flags}, "flags": {"F", flags},
	"wchan": {"WCHAN", wchan}, "addr": {"ADDR", func(*process) string { return "-" }},

	"stime": {"STIME", startShort}, "start_time": {"START", startShort},
	"bsdstart": {"START", startBSD}, "start": {"STARTED", startMedium},
	"lstart": {"STARTED", func(p *process) string { return p.started().Local().Format("Mon Jan _2 15:04:05 2006") }},
	"etime":  {"ELAPSED", func(p *process) string { return elapsed(int64(p.age())) }},
	"etimes": {"ELAPSED", func(p *process) string { return strconv.FormatInt(int64(p.age()), 10) }},
	"time":   {"TIME", cpuTime}, "cputime": {"TIME", cpuTime},
	"times": {"TIME", cpuSeconds}, "cputimes": {"TIME", cpuSeconds},
	"bsdtime": {"TIME", func(p *process) string { t := int64(p.used()); return fmt.Sprintf("%d:%02d", t/60, t%60) }},

	"ni": {"NI", field(statNice)}, "nice": {"NI", field(statNice)},
	"pri":      {"PRI", func(p *process) string { return strconv.FormatInt(39-p.signed(statPriority), 10) }},
	"opri":     {"PRI", func(p *process) string { return strconv.FormatInt(60+p.signed(statPriority), 10) }},
	"priority": {"PRI", field(statPriority)},
	"rtprio":   {"RTPRIO", realtime}, "psr": {"PSR", field(statProcessor)},
	"cls": {"CLS", policy}, "class": {"CLS", policy}, "policy": {"POL", policy},
	"nlwp": {"NLWP", field(statThreads)}, "thcount": {"THCNT", field(statThreads)},

	"cgroup":   {"CGROUP", controlGroups},
	"cgroupns": {"CGROUPNS", ns("cgroup")}, "ipcns": {"IPCNS", ns("ipc")}, "mntns": {"MNTNS", ns("mnt")}, "netns": {"NETNS", ns("net")},
	"pidns": {"PIDNS", ns("pid")}, "userns": {"USERNS", ns("user")}, "utsns": {"UTSNS", ns("uts")},
}

func field(n int) func(*process) string { return func(p *process) string { return p.stat[n] } }

func ns(kind string) func(*process) string {
	return func(p *process) string { return p.namespace(kind) }
}

func real(key string) func(*process) string {
	return func(p *process) string { return p.statusField(key, 0) }
}

func effective(key string) func(*process) string {
	return func(p *process) string { return p.statusField(key, 1) }
}

func decimal(n uint64) string { return strconv.FormatUint(n, 10) }

func pid(p *process) string    { return strconv.Itoa(p.pid) }
func comm(p *process) string   { return p.comm }
func euser(p *process) string  { return p.user(p.statusField("Uid", 1)) }
func egroup(p *process) string { return p.group(p.statusField("Gid", 1)) }

func executable(p *process) string {
	path, err := os.Readlink(p.path("exe"))
	if err != nil {
		return "-"
	}
	return printable(path)
}

// load is the part of one CPU that the process has used in its life.
func (p *process) load() float64 {
	if p.age() < 1 {
		return 0
	}
	return p.used() / p.age()
}

func percentCPU(p *process) string { return percent(p.load()) }

func percentMemory(p *process) string {
	if p.memory == 0 {
		return "0.0"
	}
	return percent(float64(number(resident(p))*1024) / float64(p.memory))
}

// percent cuts off what does not fit, as ps does.
func percent(part float64) string {
	n := int64(part * 1000)
	if n > 999 {
		return strconv.FormatInt(n/10, 10)
	}
	return fmt.Sprintf("%d.%d", n/10, n%10)
}

func virtual(p *process) string { return decimal(p.num(statVirtual) / 1024) }

// resident is in KiB. The number in stat is that of the last time the kernel summed up.
func resident(p *process) string {
	if n := p.statusField("VmRSS", 0); n != "-" {
		return n
	}
	return "0" // a zombie
}

func flags(p *process) string { return decimal(p.num(statFlags) >> 6 & 7) }

func wchan(p *process) string {
	if w := strings.TrimSpace(readFile(p.path("wchan"))); w != "" && w != "0" {
		return w
	}
	return "-"
}

func startShort(p *process) string {
	at, now := p.started().Local(), p.now.Local()
	switch {
	case at.Year() != now.Year():
		return at.Format("2006")
	case at.YearDay() != now.YearDay():
		return at.Format("Jan02")
	}
	return at.Format("15:04")
}

func startBSD(p *process) string {
	if p.now.Sub(p.started()) > 24*time.Hour {
		return p.started().Local().Format("Jan 02")
	}
	return p.started().Local().Format("15:04")
}

func startMedium(p *process) string {
	if p.now.Sub(p.started()) > 24*time.Hour {
		return p.started().Local().Format("Jan 02")
	}
	return p.started().Local().Format("15:04:05")
}

func cpuSeconds(p *process) string { return strconv.FormatInt(int64(p.used()), 10) }

// cpuTime is [days-]hours:minutes:seconds.
func cpuTime(p *process) string {
	t := int64(p.used())
	text := fmt.Sprintf("%02d:%02d:%02d", t/3600%24, t/60%60, t%60)
	if days := t / (24 * 3600); days > 0 {
		text = fmt.Sprintf("%d-%s", days, text)
	}
	return text
}

// elapsed is [[days-]hours:]minutes:seconds.
func elapsed(t int64) string {
	text := fmt.Sprintf("%02d:%02d", t/60%60, t%60)
	hours, days := t/3600%24, t/(24*3600)
	if hours > 0 || days > 0 {
		text = fmt.Sprintf("%02d:%s", hours, text)
	}
	if days > 0 {
		text = fmt.Sprintf("%d-%s", days, text)
	}
	return text
}

func realtime(p *process) string {
	if p.num(statPolicy) == 0 {
		return "-"
	}
	return p.stat[statRealtime]
}

// policy is the scheduling class.
func policy(p *process) string {
	classes := []string{"TS", "FF", "RR", "B", "ISO", "IDL", "DLN"}
	if n := p.num(statPolicy); n < uint64(len(classes)) {
		return classes[n]
	}
	return "?"
}

func controlGroups(p *process) string {
	text := strings.TrimSpace(readFile(p.path("cgroup")))
	if text == "" {
		return "-"
	}
	return printable(strings.ReplaceAll(text, "\n", ","))
}
