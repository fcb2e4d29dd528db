// Package mend says how to mend the mistakes that are made most when images are built. It
// adds a hint to an error and never changes it: the error says what is wrong, in the words
// that people search for, and the hint what to write instead. Where a file is missing it
// looks at the context, to tell one that is not there from one that .dockerignore shuts out.
package mend

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/moby/buildkit/solver/errdefs"
)

// Place is where a build takes its files from.
type Place struct {
	Context    string // a directory; anything else is not looked at
	Dockerfile string // as given, empty for the one in the context
}

type placed struct {
	error
	place Place
}

func (p *placed) Unwrap() error { return p.error }

// In says where err has happened.
func In(err error, place Place) error {
	if err == nil {
		return nil
	}
	return &placed{err, place}
}

// rule finds a mistake by the error's text; hint has the groups that it has matched.
type rule struct {
	pattern string
	hint    func(m []string, where line, place Place) string
}

// Hint is what to do about err, empty if there is nothing to be said for sure.
func Hint(err error) string {
	if err == nil {
		return ""
	}
	var p *placed
	var place Place
	if errors.As(err, &p) {
		place = p.place
	}
	text, where := err.Error(), lineOf(err)
	for _, r := range rules() {
		if m := regexp.MustCompile(r.pattern).FindStringSubmatch(text); m != nil {
			if hint := r.hint(m, where, place); hint != "" {
				return hint
			}
		}
	}
	return ""
}

// line is the instruction that an error is about.
type line struct {
	file   string
	number int
	text   string
}

// String is how a hint names the line, with a space after it, or nothing.
func (l line) String() string {
	if l.number == 0 {
		return ""
	}
	return fmt.Sprintf("line %d of %s: ", l.number, l.file)
}

// lineOf is the line that the engine has marked.
func lineOf(err error) line {
	sources := errdefs.Sources(err)
	if len(sources) == 0 {
		return line{}
	}
	s := sources[len(sources)-1]
	if s.Info == nil || len(s.Ranges) == 0 || s.Ranges[0].Start == nil {
		return line{}
	}
	n := int(s.Ranges[0].Start.Line)
	all := strings.Split(string(s.Info.Data), "\n")
	if n < 1 || n > len(all) {
		return line{}
	}
	return line{file: s.Info.Filename, number: n, text: strings.TrimSpace(all[n-1])}
}

func rules() []rule {
	return []rule{
		{`repository name \(?(?:library/)?([^)\s]*?)\)? must be lowercase`, upperCase},
		{`(?:dockerfile parse error on line (\d+): )?(COPY|ADD) requires at least two arguments`, oneArgument},
		{`process "((?s:.*?))" did not complete successfully: exit code: (\d+)`, failedStep},
		{`failed to (?:compute cache key|calculate checksum).*"(/[^"\n]*)":? not found`, missingFile},
		{`granting entitlement ([a-z.]+) is not allowed by build daemon configuration`, notGranted},
		{`(?:granting entitlement |entitlement )([a-z.]+) (?:is )?not allowed|([a-z.]+) is not allowed`, notAllowed},
		{`secret ([^\s:]+): not found`, func(m []string, where line, _ Place) string {
			return where.String() + fmt.Sprintf("the build was given no secret of this name: add --secret id=%s,src=FILE, or env=VARIABLE", m[1])
		}},
		{`pull access denied.*repository does not exist or may require authorization|insufficient_scope: authorization failed`, func(_ []string, where line, _ Place) string {
			return where.String() + "is the image's name spelled as its registry has it? A private one needs a login first"
		}},
		{`failed to resolve source metadata for (\S+): \S+: not found`, unknownImage},
		{`base name \(([^)]*)\) should not be blank`, func(m []string, where line, _ Place) string {
			return where.String() + fmt.Sprintf("%s is empty: give the ARG a default before FROM, or a value by --build-arg", m[1])
		}},
		{`target stage "([^"]*)" could not be found`, func(m []string, _ line, place Place) string { return unknownStage(m[1], place) }},
		{`exec format error`, func(_ []string, where line, _ Place) string {
			return where.String() + "the program is for another processor: build for this machine's platform, or let an emulator be registered with binfmt_misc"
		}},
		{`contains? invalid UTF-8`, func(_ []string, _ line, place Place) string { return oddName(place) }},
		{`no space left on device`, func([]string, line, Place) string {
			return "the engine's disk is full: 'cleat builder prune' and 'cleat system prune' make room, 'cleat system df' shows what there is"
		}},
	}
}

// unknownImage is about one that nobody has who answered: a mirror's answer hides that Docker Hub gave none.
func unknownImage(m []string, where line, _ Place) string {
	name := strings.TrimPrefix(strings.TrimPrefix(m[1], "docker.io/"), "library/")
	return where.String() + fmt.Sprintf("is %[1]s spelled as its registry has it, or a stage of this file? 'cleat pull %[1]s' says which registries and mirrors were asked, and what each answered", name)
}

func upperCase(m []string, where line, _ Place) string {
	name := m[1]
	if name == "" {
		return ""
	}
	low := strings.ToLower(name)
	if strings.HasPrefix(strings.ToUpper(where.text), "FROM") && strings.Contains(where.text, name) {
		return where.String() + fmt.Sprintf("names of images are in lower case: write %q", strings.Replace(where.text, name, low, 1))
	}
	return where.String() + fmt.Sprintf("names of images are in lower case: write %q", low)
}

func oneArgument(m []string, where line, _ Place) string {
	at := where.String()
	if at == "" && m[1] != "" {
		at = "line " + m[1] + ": "
	}
	what := "app.py"
	if f := strings.Fields(where.text); len(f) == 2 {
		what = f[1]
	}
	return at + fmt.Sprintf("%[1]s wants what to copy and where to: write '%[1]s %[2]s .' to copy it into the working directory", m[2], what)
}

// notGranted is about a right that the build asks for and the engine gives to none.
func notGranted(m []string, where line, _ Place) string {
	switch right := m[1]; right {
	case "network.host", "security.insecure":
		return where.String() + fmt.Sprintf(`the engine gives this right to no build: {"builder": {"entitlements": {"%s": true}}} in its settings file lets builds ask for it`, strings.ReplaceAll(right, ".", "-"))
	case "device":
		return where.String() + "this engine has no devices for build steps: leave --allow device and RUN --device out"
	}
	return ""
}

func notAllowed(m []string, where line, _ Place) string {
	right := m[1] + m[2]
	switch right {
	case "network.host", "security.insecure", "device":
		return where.String() + fmt.Sprintf("the build has to be given this right: add --allow %s", right)
	}
	return ""
}

// failedStep looks at what a step ran and how it ended.
func failedStep(m []string, where line, _ Place) string {
	command, code := m[1], m[2]
	for _, shell := range []string{"/bin/sh -c ", "/bin/bash -c ", "/bin/ash -eo pipefail -c "} {
		command = strings.TrimPrefix(command, shell)
	}
	words := strings.Fields(command)
	if len(words) == 0 {
		return ""
	}
	at := where.String()
	switch {
	case words[0] == "install" && !strings.HasPrefix(strings.Join(words[1:], " "), "-"):
		return at + fmt.Sprintf("packages are installed by the distribution's tool: write 'RUN apt-get update && apt-get install -y %[1]s' on Debian and Ubuntu, 'RUN apk add %[1]s' on Alpine",
			strings.Join(words[1:], " "))
	case code == "127":
		return at + notFound(words)
	case code == "126":
		return at + fmt.Sprintf("what it runs may not be executed: 'RUN chmod +x FILE' before, or 'COPY --chmod=755', or 'RUN sh %s'", words[0])
	case code == "137":
		return at + "the step was killed, usually for want of memory"
	case code == "100" && strings.Contains(command, "apt-get install") && !strings.Contains(command, "update"):
		return at + "apt-get knows no packages before it has fetched their lists: write 'RUN apt-get update && apt-get install -y …' as one step"
	case code == "100" && strings.Contains(command, "apt install") && !strings.Contains(command, "update"):
		return at + "apt knows no packages before it has fetched their lists: write 'RUN apt-get update && apt-get install -y …' as one step"
	case code == "1" && (strings.Contains(command, "apt-get install") || strings.Contains(command, "apt install")) && !strings.Contains(command, "-y") && !strings.Contains(command, "--yes"):
		return at + "nobody answers its question here: add -y"
	}
	return ""
}

// notFound is about a command that the image does not have.
func notFound(words []string) string {
	// Of several commands in one step it is not known which it was.
	if strings.ContainsAny(strings.Join(words, " "), ";|&\n") {
		return "127 means that a command was not found in the image; the step's last lines name it. Install it in a step before"
	}
	name := words[0]
	switch name {
	case "apt-get", "apt":
		return "there is no apt-get in this image: on Alpine write 'apk add …', on Fedora and its kin 'dnf install -y …'"
	case "apk":
		return "there is no apk in this image: on Debian and Ubuntu write 'apt-get update && apt-get install -y …'"
	case "yum", "dnf":
		return "there is no " + name + " in this image: on Debian and Ubuntu write 'apt-get update && apt-get install -y …', on Alpine 'apk add …'"
	case "sudo":
		return "there is no sudo in this image, and steps run as root anyway: leave it out"
	}
	if strings.HasPrefix(name, "./") || strings.HasPrefix(name, "/") {
		return fmt.Sprintf("%s is not in the image, or the interpreter that its first line names is not: copy it before, and see that its lines end as Unix has them", name)
	}
	return fmt.Sprintf("the image has no command %q: install its package in a step before, or see how it is spelled", filepath.Base(name))
}
