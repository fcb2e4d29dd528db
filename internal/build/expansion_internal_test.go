package build

import (
	"fmt"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// chain is a Dockerfile whose variables are made of the one before, again and again.
func chain(instruction, word string, lines int) string {
	b := &strings.Builder{}
	fmt.Fprintf(b, "FROM scratch\n%s V0=xxxxxxxxxx\n", instruction)
	for i := range lines {
		fmt.Fprintf(b, "%s V%d=%s\n", instruction, i+1, strings.ReplaceAll(word, "V", fmt.Sprintf("V%d", i)))
	}
	return b.String()
}

// lines is a line again and again, with its number in it.
func lines(format string, n int) string {
	b := &strings.Builder{}
	for i := range n {
		fmt.Fprintf(b, format, i)
	}
	return b.String()
}

func TestCheckExpansion(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		args map[string]string
		from foundation
		want string
	}{
		"ordinary":               {text: "ARG V=1.2\nFROM a:$V AS x\nARG V\nENV PATH=$PATH:/opt/bin N=${V//./_}\nCOPY <<E /f\n$PATH ${N:-${V}}\nE\nRUN for i in a b; do echo $i ${i%a}; done\nFROM x\nENV PATH=$PATH:/more\nCMD echo $HOME\n"},
		"not a Dockerfile":       {text: "FROM\n\x00NONSENSE ${"},
		"an ARG of ARGs":         {text: chain("ARG", "$V$V$V$V$V$V$V$V$V$V", 30), want: "line 7: the variables of ARG come to more than 1 MiB"},
		"an ENV of ENVs":         {text: chain("ENV", "${V}${V}${V}${V}", 30), want: "line 11: the variables of ENV"},
		"before FROM":            {text: strings.Replace(chain("ARG", "$V$V$V$V$V$V$V$V", 30), "FROM scratch\n", "", 1) + "FROM scratch\n", want: "line 7: the variables of ARG"},
		"replacements":           {text: chain("ENV", "${V//x/xxxxxxxxxx}", 30), want: "the variables of ENV"},
		"quoted braces":          {text: "FROM scratch\nENV A=" + strings.Repeat("x", 5000) + "\nENV B=${A//x/'}'$A}\n", want: "line 3: the variables of ENV"},
		"a stage's":              {text: strings.Replace(chain("ENV", "$V$V$V$V", 8), "scratch\n", "scratch AS a\n", 1) + "FROM a\nLABEL l=$V8$V8\n", want: "line 12: the variables of LABEL"},
		"a stage's argument":     {text: "FROM scratch AS a\nARG A=" + strings.Repeat("x", 60_000) + "\nFROM a\nENV B=" + strings.Repeat("$A", 30) + "\n", want: "line 4: the variables of ENV"},
		"a chosen stage's":       {text: "ARG S=a\nFROM scratch AS a\nENV A=" + strings.Repeat("x", 60_000) + "\nFROM scratch AS b\nFROM $S\nENV B=" + strings.Repeat("$A", 30) + "\n", want: "line 6: the variables of ENV"},
		"a quoted stage's":       {text: "FROM scratch AS a\nENV A=" + strings.Repeat("x", 60_000) + "\nFROM \"a\"\nENV B=" + strings.Repeat("$A", 30) + "\n", want: "line 4: the variables of ENV"},
		"another stage's":        {text: "FROM scratch AS a\nENV A=" + strings.Repeat("x", 60_000) + "\nFROM scratch\nENV B=" + strings.Repeat("$A", 30) + "\n"},
		"what a stage triggers":  {text: "FROM scratch AS a\nENV A=" + strings.Repeat("x", 60_000) + "\nOnBuild  ENV B=" + strings.Repeat("$A", 30) + "\nFROM a\n", want: "line 4: the variables of ENV"},
		"a triggered document":   {text: "FROM scratch AS a\nENV A=" + strings.Repeat("x", 60_000) + "\nONBUILD COPY <<E /f\n" + strings.Repeat("$A", 30) + "\nE\nFROM a\n", want: "line 6: the variables of COPY"},
		"chosen triggers":        {text: "ARG S=a\nFROM scratch AS a\nENV A=" + strings.Repeat("x", 60_000) + "\nONBUILD ENV B=" + strings.Repeat("$A", 30) + "\nFROM scratch\nFROM $S\n", want: "line 6: the variables of ENV"},
		"many triggers":          {text: "FROM scratch AS a\n" + strings.Repeat("ONBUILD CMD a\n", 8_000) + strings.Repeat("FROM ${S}\n", 5_000), want: "line 8014: ONBUILD adds more than 100000 lines"},
		"triggers of no stage":   {text: "FROM scratch\nENV A=" + strings.Repeat("x", 60_000) + "\nONBUILD ENV B=" + strings.Repeat("$A", 30) + "\n"},
		"a here-document":        {text: "FROM scratch\nENV A=" + strings.Repeat("x", 5000) + "\nCOPY <<E /f\n" + strings.Repeat("$A", 300) + "\nE\n", want: "line 3: the variables of COPY"},
		"a quoted one":           {text: "FROM scratch\nENV A=" + strings.Repeat("x", 5000) + "\nCOPY <<'E' /f\n" + strings.Repeat("$A", 300) + "\nE\n"},
		"all steps":              {text: "FROM scratch\nENV A=" + strings.Repeat("x", 60_000) + "\n" + strings.Repeat("RUN true\n", 1200), want: "64 MiB in all"},
		"given":                  {text: "FROM scratch\nARG A\nENV B=$A$A$A\n", args: map[string]string{"A": strings.Repeat("x", 500_000)}, want: "line 3"},
		"an image's":             {text: "FROM evil\nENV B=$A$A$A\n", from: foundation{env: map[string]int{"A": 500_000}}, want: "line 2"},
		"what an image triggers": {text: "FROM evil\n", from: foundation{triggers: []string{"ENV A=" + strings.Repeat("x", 60_000), "ENV B=" + strings.Repeat("$A", 30)}}, want: "line 1"},
		"after a sign":           {text: "FROM scratch\nENV A=$$" + strings.Repeat("x", 60_000) + "\nENV B=" + strings.Repeat("$A", 30) + "\n", want: "line 3: the variables of ENV"},
		"after digits":           {text: "FROM scratch\nENV A=$1" + strings.Repeat("x", 60_000) + "\nENV B=" + strings.Repeat("$A", 30) + "\n", want: "line 3: the variables of ENV"},
		"of other alphabets":     {text: "FROM scratch\nENV ä=" + strings.Repeat("x", 60_000) + "\nENV B=" + strings.Repeat("$ä", 30) + "\n", want: "line 3: the variables of ENV"},
		"a coined name's":        {text: "FROM scratch\nARG A=B\nENV ${A}_C=" + strings.Repeat("x", 60_000) + "\nENV D=" + strings.Repeat("$B_C", 30) + "\n", want: "line 4: the variables of ENV"},
		"a quoted name's":        {text: "FROM scratch\nENV 'A'=" + strings.Repeat("x", 60_000) + "\nENV D=" + strings.Repeat("$A", 30) + "\n", want: "line 3: the variables of ENV"},
		"a coined name's given":  {text: "FROM scratch\nARG A=B\nARG ${A}_C=x\nENV D=" + strings.Repeat("$B_C", 30) + "\n", args: map[string]string{"B_C": strings.Repeat("x", 60_000)}, want: "line 4: the variables of ENV"},
		"many coined names":      {text: "FROM scratch\nARG A=B\n" + strings.Repeat("ENV ${A}_C=x\n", 200) + "ENV ${A}_X=" + strings.Repeat("x", 60_000) + "\nENV ${A}_D=y\nENV D=" + strings.Repeat("$B_X", 30) + "\n", want: "line 205: the variables of ENV"},
		"another name's":         {text: "FROM scratch\nARG A=B\nENV ${A}_C=" + strings.Repeat("x", 60_000) + "\nENV D=" + strings.Repeat("$B_D$C", 30) + "\n"},
		"nested":                 {text: "FROM scratch\nENV A=" + strings.Repeat("${A:-", 200) + strings.Repeat("}", 200) + "\n", want: "nested deeper than 100"},
		"nested without end":     {text: "FROM scratch\nCOPY <<E " + strings.Repeat("${A:-", 1_000_000) + "\n", want: "nested deeper than 100"},
		"many lines":             {text: "FROM scratch\n" + strings.Repeat("A\n", 600_000), want: "more than 500000 lines"},
		"many instructions":      {text: strings.Repeat("FROM scratch\n"+strings.Repeat("CMD a\n", 4_999), 21), want: "line 100001: there are more than 100000 instructions"},
		"a long stage":           {text: "FROM scratch\n" + strings.Repeat("CMD a\n", 9_000) + "FROM a\n" + strings.Repeat("CMD a\n", 9_001), want: "line 18003: the stage has more than 9000 instructions"},
		"many stages":            {text: strings.Repeat("FROM a\n", 10_001), want: "line 10001: there are more than 10000 stages"},
		"many variables":         {text: lines("ARG a%d=b\n", 300) + strings.Repeat("FROM a\n", 2000), want: "line 1967: the stages up to this one know more than 500000 variables"},
		"many inherited":         {text: "FROM a AS a\n" + lines("ENV a%d=b\n", 300) + strings.Repeat("FROM a\n", 2000), want: "the stages up to this one know more than"},
		"as many as may be":      {text: strings.Repeat("FROM a\n", 9_980) + strings.Repeat("FROM a\n"+strings.Repeat("CMD a\n", 4_500), 20)},
		"a large file":           {text: "FROM scratch\nCOPY <<E /f\n" + strings.Repeat("a line of text\n", 200_000) + "E\n"},
	} {
		t.Run(name, func(t *testing.T) {
			err := checkExpansion([]byte(c.text), c.args, c.from)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, not %q", err, c.want)
			}
		})
	}
}

// FuzzExpansion holds that nothing comes to more than it is taken for.
func FuzzExpansion(f *testing.F) {
	for _, word := range []string{"$A$B", "${A:-${B}}", "${A//x/'}'$B}", "${A/x*/$B}", `\$A"$B"'$A'`, "$$eee", "$1AB$A", "${A#x}${B%%y}", "${A:+$B$B}", "${A//x/${B//y/z}}", "a<<b$", "${A", "${A//x/\"}\"}$B$B}"} {
		f.Add(word, "xxxx", "yyyyyyyy")
	}
	f.Fuzz(func(t *testing.T, word, a, b string) {
		if len(word) > 200 || len(a) > 50 || len(b) > 50 {
			return
		}
		e := &expansion{escape: '\\', stage: &stage{env: map[string]int{"A": len(a), "B": len(b)}}}
		length, _ := e.part([]rune(word), 0, 0)
		if e.deep || length == unbounded {
			return
		}
		got, _, err := shell.NewLex('\\').ProcessWord(word, shell.EnvsFromSlice([]string{"A=" + a, "B=" + b}))
		if err == nil && len(got) > length {
			t.Errorf("%q with A=%q B=%q comes to %d bytes, %q, not %d", word, a, b, len(got), got, length)
		}
	})
}
