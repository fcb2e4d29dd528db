package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// A stop is one thing of the Dockerfile language that the stock buildx shows to work:
// most of them check themselves, by steps that fail otherwise.
type stop struct {
	name  string
	files files
	args  []string
	stdin []byte
	env   []string
	log   []string // what the log must hold
	fails []string // what it must say if it has to fail
	tree  files    // what the exported root must hold; "" for a file that must not be there
}

func (s stop) run(t *testing.T, e *harness.Engine) {
	t.Helper()
	dir := project(t, s.files)
	out := filepath.Join(filepath.Dir(dir), "out")
	args := append([]string{}, s.args...)
	if s.tree != nil {
		args = append(args, "--output", "type=local,dest=../out") // a test's name may hold a comma
	} else {
		args = append(args, "--output", "type=cacheonly")
	}
	r := buildRun{dir: dir, args: append(args, "."), stdin: s.stdin, env: s.env}.do(t, e, "docker")
	said := r.Stdout + r.Stderr
	if (r.Code == 0) != (s.fails == nil) {
		t.Fatal(r)
	}
	for _, w := range append(s.log, s.fails...) {
		if !strings.Contains(said, w) {
			t.Errorf("%q is not in the log: %s", w, r)
		}
	}
	for file, want := range s.tree {
		got, err := os.ReadFile(filepath.Join(out, file))
		switch {
		case want == "" && err == nil:
			t.Errorf("%s is in the result", file)
		case want != "" && string(got) != want:
			t.Errorf("%s holds %q (%v), not %q", file, got, err, want)
		}
	}
}

func tour(t *testing.T, stops []stop) {
	e := builder(t)
	for _, s := range stops {
		t.Run(s.name, func(t *testing.T) { s.run(t, e) })
	}
}

func dockerfile(text string) files { return files{"Dockerfile": text} }

// TestBuildMounts: RUN --mount of every type.
func TestBuildMounts(t *testing.T) {
	tour(t, []stop{
		{name: "bind from the context", files: files{"Dockerfile": `FROM busybox
RUN --mount=type=bind,target=/ctx [ "$(cat /ctx/sub/file)" = content ]
RUN --mount=type=bind,source=sub,target=/sub [ "$(cat /sub/file)" = content ]
RUN --mount=type=bind,source=sub/file,target=/one [ "$(cat /one)" = content ]
WORKDIR /w
RUN --mount=target=. [ -f sub/file ]
RUN --mount=type=bind,target=/ctx ! touch /ctx/new 2>/dev/null
RUN --mount=type=bind,target=/ctx,rw touch /ctx/new && rm /ctx/sub/file
RUN --mount=type=bind,target=/ctx [ ! -e /ctx/new ] && [ -f /ctx/sub/file ]
RUN [ -z "$(ls /ctx /sub)" ]
`, "sub/file": "content"}},
		{name: "bind from a stage and an image", files: dockerfile(`FROM busybox AS made
RUN echo made >/file
FROM busybox
RUN --mount=from=made,source=/file,target=/mnt/file grep made /mnt/file
RUN --mount=from=debian:bookworm-slim,target=/deb [ -f /deb/etc/debian_version ]
`)},
		{name: "cache keeps its files between steps and builds", files: dockerfile(`FROM busybox
RUN --mount=type=cache,target=/c,id=kept echo 1 >>/c/runs
RUN --mount=type=cache,target=/c,id=kept echo 2 >>/c/runs && [ $(wc -l </c/runs) = 2 ]
RUN --mount=type=cache,target=/c,id=kept,ro ! touch /c/x 2>/dev/null
RUN --mount=type=cache,target=/c,id=other [ ! -e /c/runs ]
RUN [ ! -e /c/runs ]
`)},
		{name: "cache from a stage, with owner and mode", files: dockerfile(`FROM busybox AS seed
RUN mkdir /seed && echo sown >/seed/file
FROM busybox
RUN --mount=type=cache,target=/c,from=seed,source=/seed,id=seeded grep sown /c/file
RUN --mount=type=cache,target=/u,id=owned,uid=1000,gid=1001,mode=0700 [ "$(stat -c %u:%g:%a /u)" = 1000:1001:700 ]
`)},
		// Both stages wait for the other's file: they run at the same time, on one directory.
		{name: "cache shared", files: dockerfile(`FROM busybox AS a
RUN --mount=type=cache,target=/c,id=both touch /c/a; i=0; while [ ! -e /c/b ]; do i=$((i+1)); [ $i -lt 600 ]; sleep 0.1; done; touch /done
FROM busybox AS b
RUN --mount=type=cache,target=/c,id=both touch /c/b; i=0; while [ ! -e /c/a ]; do i=$((i+1)); [ $i -lt 600 ]; sleep 0.1; done; touch /done
FROM scratch
COPY --from=a /done /a
COPY --from=b /done /b
`)},
		{name: "cache locked", files: dockerfile(`FROM busybox AS a
RUN --mount=type=cache,target=/c,id=one,sharing=locked mkdir /c/in && sleep 0.5 && rmdir /c/in && touch /done
FROM busybox AS b
RUN --mount=type=cache,target=/c,id=one,sharing=locked mkdir /c/in && sleep 0.5 && rmdir /c/in && echo && touch /done
FROM scratch
COPY --from=a /done /a
COPY --from=b /done /b
`)},
		{name: "cache private", files: dockerfile(`FROM busybox AS a
RUN --mount=type=cache,target=/c,id=own,sharing=private mkdir /c/in && sleep 0.5 && rmdir /c/in && touch /done
FROM busybox AS b
RUN --mount=type=cache,target=/c,id=own,sharing=private mkdir /c/in && sleep 0.5 && rmdir /c/in && echo && touch /done
FROM scratch
COPY --from=a /done /a
COPY --from=b /done /b
`)},
		{name: "tmpfs", files: dockerfile(`FROM busybox
RUN --mount=type=tmpfs,target=/t,size=1m grep " /t tmpfs " /proc/mounts && ! dd if=/dev/zero of=/t/x bs=1k count=2000 2>/dev/null
RUN [ ! -e /t/x ]
`)},
		{name: "secret", files: files{"Dockerfile": `FROM busybox
RUN --mount=type=secret,id=token [ "$(cat /run/secrets/token)" = hush ] && [ "$(stat -c %u:%a /run/secrets/token)" = 0:400 ]
RUN --mount=type=secret,id=token,target=/root/.netrc,uid=1000,mode=0440 [ "$(stat -c %u:%a /root/.netrc)" = 1000:440 ]
RUN --mount=type=secret,id=token,env=TOKEN [ "$TOKEN" = hush ]
RUN --mount=type=secret,id=fromenv [ "$(cat /run/secrets/fromenv)" = env-hush ]
RUN --mount=type=secret,id=absent [ ! -e /run/secrets/absent ]
RUN [ ! -s /run/secrets/token ] && [ ! -s /root/.netrc ] && [ -z "$TOKEN" ]
`, "token.txt": "hush"}, args: []string{"--secret", "id=token,src=token.txt", "--secret", "id=fromenv,env=HUSH"}, env: []string{"HUSH=env-hush"}},
		{name: "a required secret that is not given", files: dockerfile("FROM busybox\nRUN --mount=type=secret,id=absent,required=true true\n"),
			fails: []string{"Dockerfile:2", "secret absent: not found"}},
		{name: "a required ssh agent that is not given", files: dockerfile("FROM busybox\nRUN --mount=type=ssh,required=true true\n"),
			fails: []string{"Dockerfile:2", "ssh"}},
	})
}

// TestBuildAsksTheAgent: a step talks to the ssh agent of the user who builds.
func TestBuildAsksTheAgent(t *testing.T) {
	e := builder(t)
	socket := sshAgent(t)
	dir := project(t, dockerfile(`FROM python:3.12-slim
RUN --mount=type=ssh,mode=0600 <<EOF python
import os, socket
s = socket.socket(socket.AF_UNIX)
s.connect(os.environ["SSH_AUTH_SOCK"])
s.sendall(b"\0\0\0\1\13")
print("the agent says", s.recv(9, socket.MSG_WAITALL).hex())
EOF
RUN --mount=type=ssh,id=second,target=/second.sock [ -S /second.sock ]
RUN [ ! -e /second.sock ] && [ -z "$SSH_AUTH_SOCK" ]
`))
	build(t, e, "docker", dir, "--ssh", "default="+socket, "--ssh", "second="+socket, "--no-cache", "--output", "type=cacheonly").
		has(t, "the agent says 000000050c00000000")
}

// TestBuildSteps: how RUN runs.
func TestBuildSteps(t *testing.T) {
	tour(t, []stop{
		{name: "heredocs", files: dockerfile(`# syntax=docker/dockerfile:1
FROM busybox AS b
RUN <<EOF
set -e
mkdir /made
echo "one $((1+1))" >/made/one
EOF
RUN <<'EOF' cat >/made/two
$HOME is not expanded
EOF
COPY <<-"INLINE" <<SECOND /made/inline/
	inline ${HOME}
INLINE
second $HOME
SECOND
ADD <<END /made/added
added
END
FROM scratch
COPY --from=b /made /
`), tree: files{"one": "one 2\n", "two": "$HOME is not expanded\n", "inline/INLINE": "inline ${HOME}\n", "inline/SECOND": "second \n", "added": "added\n"}},
		{name: "shell", files: dockerfile(`FROM debian:bookworm-slim
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN ! false | true
RUN [[ $BASH_VERSION ]]
RUN ["/bin/sh", "-c", "[ -z \"$BASH_VERSION\" ]"]
`)},
		{name: "user, working directory, environment", files: dockerfile(`FROM busybox
ENV A=1 B="two words"
WORKDIR /made/here
RUN [ "$PWD" = /made/here ] && [ "$A$B" = "1two words" ]
WORKDIR sub
RUN [ "$PWD" = /made/here/sub ]
USER 1000:2000
RUN [ "$(id -u):$(id -g)" = 1000:2000 ] && ! touch /made/x 2>/dev/null
USER user
RUN [ "$(id -un):$(id -G)" = "user:1000 2000" ]
RUN [ "$HOME" = /tmp ]
`)},
		{name: "what a step sees is not kept", files: dockerfile(`FROM busybox
RUN ! echo 1.2.3.4 somewhere >>/etc/hosts && grep localhost /etc/hosts && [ -s /etc/resolv.conf ] && [ -c /dev/null ] && [ -d /proc/1 ]
FROM scratch
COPY --from=0 /etc /etc
`), tree: files{"etc/resolv.conf": "", "etc/hosts": "", "etc/mtab": ""}},
		{name: "network none", files: dockerfile(`FROM busybox
RUN --network=none [ "$(ls /sys/class/net | grep -v -e sit0 -e tunl0 -e ip6tnl0 | tr '\n' ' ')" = "lo " ]
RUN --network=default ip route | grep '^default'
RUN ip route | grep '^default'
`)},
		{name: "network none for all", files: dockerfile("FROM busybox\nRUN ! ip route | grep '^default'\n"), args: []string{"--network=none", "--no-cache"}},
		{name: "network host without leave", files: dockerfile("FROM busybox\nRUN --network=host true\n"), fails: []string{"network.host"}},
		{name: "security insecure without leave", files: dockerfile("FROM busybox\nRUN --security=insecure true\n"), fails: []string{"security.insecure is not allowed"}},
		{name: "hosts, limits and memory for shared use", files: dockerfile(`FROM busybox
RUN grep "^10.1.2.3[[:space:]]*db" /etc/hosts
RUN [ $(ulimit -n) = 4321 ]
RUN df -k /dev/shm | grep -q 32768
`), args: []string{"--add-host", "db:10.1.2.3", "--ulimit", "nofile=4321:4321", "--shm-size", "32m"}},
		{name: "a step that fails", files: dockerfile("FROM busybox\nRUN true\nRUN echo told >&2; exit 7\n"),
			fails: []string{"Dockerfile:3", ">>> RUN echo told", "told", "exit code: 7"}},
		{name: "a step that is killed", files: dockerfile("FROM busybox\nRUN (sh -c 'kill -9 $$'); exit $?\n"), fails: []string{"Dockerfile:2", "exit code: 137"}},
		{name: "a program that is not there", files: dockerfile("FROM busybox\nRUN [\"nowhere\"]\n"), fails: []string{"Dockerfile:2", "nowhere"}},
		{name: "a user that is not there", files: dockerfile("FROM busybox\nUSER ghost\nRUN true\n"), fails: []string{"Dockerfile:3", "ghost"}},
		{name: "what a step leaves running ends with it", files: dockerfile("FROM busybox\nRUN sleep 3600 & echo started\nRUN [ -z \"$(pgrep sleep)\" ]\n"), args: []string{"--no-cache"}, log: []string{"started"}},
		{name: "many lines", files: dockerfile("FROM busybox\nRUN seq 1 3000\n"), args: []string{"--no-cache"}, log: []string{" 2999\n", " 3000\n"}},
	})
}

// TestBuildCopies: COPY and ADD of local files.
func TestBuildCopies(t *testing.T) {
	tree := files{"src/a.txt": "a", "src/b.txt": "b", "src/deep/c.txt": "c", "src/deep/d.md": "d", "run.sh*": "#!/bin/sh\n", "top.txt": "top"}
	with := func(text string) files {
		fs := files{"Dockerfile": text}
		for k, v := range tree {
			fs[k] = v
		}
		return fs
	}
	tour(t, []stop{
		{name: "patterns and several sources", files: with("FROM scratch\nCOPY src/*.txt top.txt /d/\nCOPY src/deep /e\nCOPY [\"top.txt\", \"/with space/\"]\n"),
			tree: files{"d/a.txt": "a", "d/b.txt": "b", "d/top.txt": "top", "d/c.txt": "", "e/c.txt": "c", "with space/top.txt": "top"}},
		{name: "link, chmod, chown", files: with(`FROM busybox
COPY --link --chmod=0640 --chown=1000:1001 top.txt /l/
COPY --chmod=u=rwX,go=rX src /m
COPY --chown=user:extra run.sh /n
RUN [ "$(stat -c %u:%g:%a /l/top.txt)" = 1000:1001:640 ]
RUN [ "$(stat -c %a /m/a.txt)" = 644 ] && [ "$(stat -c %a /m/deep)" = 755 ]
RUN [ "$(stat -c %U:%G:%a /n)" = user:extra:755 ]
`)},
		{name: "exclude", files: with("FROM scratch\nCOPY --exclude=*.md --exclude=a.* src /\n"), tree: files{"a.txt": "", "b.txt": "b", "deep/c.txt": "c"}},
		{name: "parents", files: with("FROM scratch\nCOPY --parents src/deep/*.txt top.txt /p/\nCOPY --parents src/./deep /q/\n"),
			tree: files{"p/src/deep/c.txt": "c", "p/top.txt": "top", "q/deep/d.md": "d", "q/src/deep/d.md": ""}},
		{name: "from stages, images and build contexts", files: with(`FROM busybox AS first
RUN echo 1 >/first
FROM first AS second
RUN echo 2 >/second
FROM scratch
COPY --from=0 /first /
COPY --from=second /first /second /s/
COPY --from=debian:bookworm-slim /etc/os-release /
COPY --from=named top.txt /named.txt
`), args: []string{"--build-context", "named=."}, tree: files{"first": "1\n", "s/second": "2\n", "named.txt": "top"}},
		{name: "links stay links and cannot leave the context", files: with("FROM busybox AS b\nRUN mkdir /x && ln -s /etc/passwd /x/abs && ln -s ../../../../etc/passwd /x/rel && ln -s nowhere /x/none\nFROM busybox\nCOPY --from=b /x /x\nRUN [ \"$(readlink /x/abs) $(readlink /x/rel) $(readlink /x/none)\" = \"/etc/passwd ../../../../etc/passwd nowhere\" ]\n")},
		{name: "onto a link", files: with("FROM busybox\nRUN ln -s /tmp /link\nCOPY top.txt /link/\nRUN [ -f /tmp/top.txt ] && [ -L /link ]\n")},
		{name: "a source that is not there", files: with("FROM scratch\nCOPY missing.txt /\n"), fails: []string{"Dockerfile:2", `"/missing.txt": not found`}},
		{name: "ignored files", files: files{"Dockerfile": "FROM scratch\nCOPY . /\n", ".dockerignore": "# comment\n*.log\n!keep.log\nsub/**/x\nDockerfile\n.dockerignore\n", "a.log": "a", "keep.log": "kept", "sub/deep/x": "x", "sub/deep/y": "y"},
			tree: files{"a.log": "", "keep.log": "kept", "sub/deep/x": "", "sub/deep/y": "y", "Dockerfile": "", ".dockerignore": ""}},
		{name: "ignored files of one Dockerfile", files: files{"ci.Dockerfile": "FROM scratch\nCOPY . /\n", "ci.Dockerfile.dockerignore": "b\n", ".dockerignore": "a\n", "a": "a", "b": "b"},
			args: []string{"-f", "ci.Dockerfile"}, tree: files{"a": "a", "b": ""}},
		{name: "a copy of an ignored file", files: files{"Dockerfile": "FROM scratch\nCOPY a /\n", ".dockerignore": "a\n", "a": "a"}, fails: []string{"Dockerfile:2", "not found", ".dockerignore"}},
	})
}

// TestBuildLanguage: arguments, directives, triggers.
func TestBuildLanguage(t *testing.T) {
	tour(t, []stop{
		{name: "scopes of arguments", files: dockerfile(`ARG BASE=busybox
ARG GLOBAL=global
FROM ${BASE} AS one
ARG LOCAL=local
RUN [ "$LOCAL" = local ] && [ -z "$GLOBAL" ]
ARG GLOBAL
RUN [ "$GLOBAL" = global ]
FROM ${BASE}
RUN [ -z "$LOCAL" ]
ARG GIVEN=default
ARG LOCAL=mine
RUN [ "$GIVEN$LOCAL" = givenmine ]
ENV GIVEN=env
RUN [ "$GIVEN" = env ]
COPY --from=one /bin/sh /tmp/sh
`), args: []string{"--build-arg", "GIVEN=given"}},
		{name: "forms of variables", files: dockerfile(`FROM busybox
ENV FILE=archive.tar.gz SET=x
ENV OUT="${NONE:-word} ${SET:+alt} ${FILE#*.} ${FILE##*.} ${FILE%.*} ${FILE%%.*} ${FILE/a/A} ${FILE//a/A} \$FILE"
RUN [ "$OUT" = 'word alt tar.gz gz archive.tar archive Archive.tar.gz Archive.tAr.gz $FILE' ]
`)},
		{name: "arguments that are there unasked", files: dockerfile(`FROM --platform=$BUILDPLATFORM busybox
ARG TARGETPLATFORM TARGETOS TARGETARCH BUILDPLATFORM
RUN [ "$TARGETPLATFORM" = "$TARGETOS/$TARGETARCH" ] && [ "$BUILDPLATFORM" = "$TARGETPLATFORM" ]
RUN [ "$HTTP_PROXY" = http://proxy.example:3128 ]
`), args: []string{"--build-arg", "HTTP_PROXY=http://proxy.example:3128"}},
		{name: "a proxy is no part of the cache's key", files: dockerfile("FROM busybox\nRUN [ \"$HTTP_PROXY\" ] && echo proxied\n"), args: []string{"--no-cache", "--build-arg", "HTTP_PROXY=http://one.example"}, log: []string{"proxied"}},
		{name: "an argument that nobody takes is no error", files: dockerfile("FROM busybox\nRUN true\n"), args: []string{"--build-arg", "UNUSED=1"}},
		{name: "a required variable", files: dockerfile("FROM busybox\nARG V\nENV X=${V:?must be given}\n"), fails: []string{"Dockerfile:3", "must be given"}},
		{name: "escape", files: dockerfile("# escape=`\nFROM busybox\nRUN echo one `\n  two && [ '\\' = \"$(printf '\\\\')\" ]\n"), args: []string{"--no-cache"}, log: []string{"one two"}},
		{name: "syntax needs no network", files: dockerfile("# syntax=docker/dockerfile:1.7-labs\nFROM scratch\nCOPY Dockerfile /\n")},
		{name: "checks", files: dockerfile("FROM busybox as lower\nMAINTAINER me\nENV key value\n"), log: []string{"FromAsCasing", "MaintainerDeprecated", "LegacyKeyValueFormat"}},
		{name: "checks that are skipped", files: dockerfile("# check=skip=FromAsCasing\nFROM busybox as lower\n")},
		{name: "checks that are errors", files: dockerfile("# check=error=true\nFROM busybox as lower\n"), fails: []string{"FromAsCasing"}},
		{name: "a stage that is not asked for is not made", files: dockerfile("FROM busybox AS broken\nRUN false\nFROM scratch AS wanted\nCOPY Dockerfile /\nFROM broken\n"), args: []string{"--target", "wanted"}},
		{name: "a stage that is not there", files: dockerfile("FROM busybox AS one\n"), args: []string{"--target", "two"}, fails: []string{`target stage "two" could not be found`}},
		{name: "a Dockerfile on standard input", files: files{"a": "a"}, stdin: []byte("FROM scratch\nCOPY a /b\n"), args: []string{"-f", "-"}, tree: files{"b": "a"}},
	})
}

// TestBuildConfig: what instructions put into the image's configuration.
func TestBuildConfig(t *testing.T) {
	e := builder(t)
	dropImages(t, e, "tour-config", "tour-onbuild", "tour-triggered")
	build(t, e, "docker", project(t, dockerfile(`FROM busybox
LABEL one=1 two="2 3"
ENV A=a
EXPOSE 80 53/udp 8000-8002
VOLUME /data /more
VOLUME ["/json"]
USER user:extra
WORKDIR /w
STOPSIGNAL SIGUSR1
SHELL ["/bin/sh", "-ec"]
HEALTHCHECK --interval=7s --timeout=3s --start-period=5s --start-interval=1s --retries=4 CMD wget -q localhost || exit 1
ENTRYPOINT ["/bin/echo", "entry"]
CMD last of all
CMD ["command"]
`)), "-t", "tour-config", "--label", "given=yes")
	var got struct {
		Config struct {
			User, WorkingDir, StopSignal string
			Labels                       map[string]string
			Env, Entrypoint, Cmd, Shell  []string
			Volumes, ExposedPorts        map[string]struct{}
			Healthcheck                  struct {
				Test                                          []string
				Interval, Timeout, StartPeriod, StartInterval int64
				Retries                                       int
			}
		}
	}
	if err := json.Unmarshal([]byte(e.OK(t, "docker", "image", "inspect", "-f", "{{json .}}", "tour-config")), &got); err != nil {
		t.Fatal(err)
	}
	c, s := got.Config, int64(1e9)
	if c.User != "user:extra" || c.WorkingDir != "/w" || c.StopSignal != "SIGUSR1" || c.Labels["one"] != "1" || c.Labels["two"] != "2 3" || c.Labels["given"] != "yes" ||
		strings.Join(c.Entrypoint, " ") != "/bin/echo entry" || strings.Join(c.Cmd, " ") != "command" || strings.Join(c.Shell, " ") != "/bin/sh -ec" ||
		c.Env[len(c.Env)-1] != "A=a" || len(c.ExposedPorts) != 5 || len(c.Volumes) != 3 {
		t.Errorf("%+v", c)
	}
	if h := c.Healthcheck; strings.Join(h.Test, " ") != "CMD-SHELL wget -q localhost || exit 1" || h.Interval != 7*s || h.Timeout != 3*s || h.StartPeriod != 5*s || h.StartInterval != s || h.Retries != 4 {
		t.Errorf("%+v", h)
	}
	if got := e.OK(t, "docker", "run", "--rm", "tour-config"); got != "entry command" {
		t.Errorf("%q", got)
	}

	build(t, e, "docker", project(t, dockerfile("FROM busybox\nONBUILD COPY f /f\nONBUILD RUN cat /f >/triggered\n")), "-t", "tour-onbuild")
	build(t, e, "docker", project(t, files{"Dockerfile": "FROM tour-onbuild\nRUN [ \"$(cat /triggered)\" = text ]\n", "f": "text"}), "-t", "tour-triggered")
	if got := e.OK(t, "docker", "image", "inspect", "-f", "{{json .Config.OnBuild}}", "tour-triggered"); got != "null" && got != "[]" {
		t.Errorf("triggers are passed on: %s", got)
	}
}

// TestBuildSecretsLeaveNoTrace: neither the image, nor its history, nor the build's
// record holds the text of a secret.
func TestBuildSecretsLeaveNoTrace(t *testing.T) {
	e := builder(t)
	const hush = "kee9-iT-53cret"
	dir := project(t, dockerfile("FROM busybox\nRUN --mount=type=secret,id=s,env=S --mount=type=secret,id=s [ \"$S\" = \"$(cat /run/secrets/s)\" ] && echo ${#S} >/length\n"))
	dropImages(t, e, "tour-secret")
	r := buildRun{dir: dir, args: []string{"-t", "tour-secret", "--secret", "id=s,env=HUSH", "."}, env: []string{"HUSH=" + hush}}.do(t, e, "docker")
	if r.Code != 0 || strings.Contains(r.Stderr, hush) {
		t.Fatal(r)
	}
	tar := filepath.Join(t.TempDir(), "image.tar")
	e.OK(t, "docker", "save", "-o", tar, "tour-secret")
	saved, err := os.ReadFile(tar)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(saved, []byte(hush)) {
		t.Error("the secret is in the image")
	}
	for _, verb := range [][]string{{"history", "--no-trunc", "tour-secret"}, {"buildx", "history", "logs"}, {"buildx", "history", "inspect"}} {
		if out := e.OK(t, "docker", verb...); strings.Contains(out, hush) {
			t.Errorf("%v tells the secret: %s", verb, out)
		}
	}
}
