package instruction_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"

	"github.com/cleatlabs/cleat/internal/instruction"
)

func TestApply(t *testing.T) {
	for _, tc := range []struct {
		lines []string
		want  string // of the configuration, as JSON, in part
		fails string
	}{
		{lines: []string{`CMD ["a","b c"]`}, want: `"Cmd":["a","b c"]`},
		{lines: []string{`cmd a "b c" $X`}, want: `"Cmd":["/bin/sh","-c","a \"b c\" $X"]`},
		{lines: []string{`CMD [not json`}, want: `"Cmd":["/bin/sh","-c","[not json"]`},
		{lines: []string{`ENTRYPOINT ["e"]`}, want: `"Cmd":null`},
		{lines: []string{`CMD ["c"]`, `ENTRYPOINT ["e"]`}, want: `"Cmd":["c"]`},
		{lines: []string{`ENV A=1 B="two words" C=th\ ree D='$A'`}, want: `"Env":["A=1","B=two words","C=th ree","D=$A"]`},
		{lines: []string{`ENV A the rest`}, want: `"Env":["A=the rest"]`},
		{lines: []string{`ENV A=1`, `ENV A=${A}2 B=${NO:-def} C=${A:+alt} D=$NO`}, want: `"Env":["A=12","B=def","C=alt","D="]`},
		{lines: []string{`ENV P=/x`, `WORKDIR $P/y`, `WORKDIR z`}, want: `"WorkingDir":"/x/y/z"`},
		{lines: []string{`LABEL a=b "c d"="e f"`}, want: `"Labels":{"a":"b","c d":"e f"}`},
		{lines: []string{`EXPOSE 80 53/udp 90-91`}, want: `"ExposedPorts":{"53/udp":{},"80/tcp":{},"90/tcp":{},"91/tcp":{}}`},
		{lines: []string{`VOLUME ["/a b"]`, `VOLUME /c /d`}, want: `"Volumes":{"/a b":{},"/c":{},"/d":{}}`},
		{lines: []string{"USER 1000:1000", "STOPSIGNAL SIGUSR1"}, want: `"User":"1000:1000"`},
		{lines: []string{"ONBUILD RUN x"}, want: `"OnBuild":["RUN x"]`},
		{lines: []string{"HEALTHCHECK --interval=5s --retries=3 CMD curl x"}, want: `"Test":["CMD-SHELL","curl x"],"Interval":5000000000,"Retries":3`},
		{lines: []string{`HEALTHCHECK CMD ["a"]`}, want: `"Test":["CMD","a"]`},
		{lines: []string{"HEALTHCHECK NONE"}, want: `"Test":["NONE"]`},
		{lines: []string{"ENV A=1 \\\n B=2"}, want: `"Env":["A=1","B=2"]`},
		{lines: []string{"RUN x"}, fails: "run is not a valid change command"},
		{lines: []string{"ENV"}, fails: "at least one argument"},
		{lines: []string{"ENV A"}, fails: "has no value"},
		{lines: []string{`ENV A="x`}, fails: "matching"},
		{lines: []string{"ENV A=1 B"}, fails: "can't find ="},
		{lines: []string{"EXPOSE x"}, fails: "invalid containerPort: x"},
		{lines: []string{"USER a b"}, fails: "exactly one argument"},
		{lines: []string{"ONBUILD FROM x"}, fails: "isn't allowed"},
		{lines: []string{"HEALTHCHECK --x=1 CMD y"}, fails: "unknown flag"},
		{lines: []string{"HEALTHCHECK nonsense"}, fails: "unknown type"},
		{lines: []string{`ENV A=${B`}, fails: "missing '}'"},
	} {
		config := container.Config{Cmd: []string{"old"}}
		err := instruction.Apply(&config, tc.lines)
		if tc.fails != "" {
			if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), tc.fails) {
				t.Errorf("%q: %v", tc.lines, err)
			}
			continue
		}
		got, _ := json.Marshal(config)
		if err != nil || !strings.Contains(string(got), tc.want) {
			t.Errorf("%q: %s, %v, want %s", tc.lines, got, err, tc.want)
		}
	}
}

func FuzzApply(f *testing.F) {
	for _, s := range []string{`ENV A="b" C=${D:-e}`, `CMD ["x"]`, "HEALTHCHECK --interval=1s CMD x", "EXPOSE 1-3/tcp", `LABEL a='b`, `ENV A=\`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		config := container.Config{Env: []string{"D=x"}}
		_ = instruction.Apply(&config, []string{line})
	})
}
