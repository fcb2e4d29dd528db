package build_test

import (
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
)

// soundDockerfiles are what the mutations of the next test start from. They run no step
// and ask no registry.
var soundDockerfiles = []string{
	"FROM scratch\nCOPY a /a\nCOPY b c* /d/\n",
	"# syntax=docker/dockerfile:1\n# escape=`\nFROM scratch\nENV A=1 B=\"two words\" `\n  C=3\nCOPY --chmod=u=rw,go=r --chown=1:2 a /x/\n",
	"# check=error=true;skip=all\nARG X=scratch\nFROM ${X} AS one\nARG Y=${X:-a}\nCOPY ${Y:+a} /y\nFROM scratch AS two\nCOPY --from=one --link /y /z\n",
	"FROM scratch\nCOPY <<EOF <<-'RAW' /here/\nfirst $HOME\nEOF\n\tsecond\n\tRAW\nADD <<X /added\ntext\nX\n",
	"FROM scratch\nLABEL a=b \"c d\"=e\nUSER 1:2\nWORKDIR /w/./x/..\nVOLUME [\"/v\", \"/w\"]\nEXPOSE 80/tcp 1-3/udp\nSTOPSIGNAL SIGTERM\nSHELL [\"/bin/sh\", \"-c\"]\n",
	"FROM scratch\nHEALTHCHECK --interval=1s --timeout=2m --start-period=3h --retries=4 CMD true || exit 1\nENTRYPOINT [\"/e\", \"\\\"q\\\"\"]\nCMD a b 'c d'\nONBUILD COPY a /b\n",
	"FROM --platform=$BUILDPLATFORM scratch AS base\nARG TARGETARCH\nCOPY a /$TARGETARCH/${TARGETARCH#a}\nFROM base\nRUN --mount=type=cache,target=/c,sharing=locked --mount=type=secret,id=s,env=S --network=none true\n",
	"FROM scratch\nADD --checksum=sha256:0000000000000000000000000000000000000000000000000000000000000000 a /\nADD --unpack=false b /\nCOPY --parents --exclude=*.md a b /p/\n",
}

// mutate changes a Dockerfile in one to four places, as typing mistakes, bad merges and
// malice do.
func mutate(r *rand.Rand, text string) string {
	words := []string{"\\", "`", "\n", "\"", "'", "[", "]", "$", "${", "}", "${A:?}", "--from=", "--", "=", "<<EOF", "#", "\x00", "\xff", "\t", "ARG ", "ONBUILD ONBUILD ",
		"../../", "/", "scratch", "FROM ", strings.Repeat("x", 5000), strings.Repeat("$A", 500), "é", "\u202e", "9999999999999999999", "-1", ",", ";"}
	for range 1 + r.IntN(4) {
		if text == "" {
			return text
		}
		at := r.IntN(len(text))
		end := min(len(text), at+1+r.IntN(12))
		switch r.IntN(7) {
		case 0: // lost
			text = text[:at] + text[end:]
		case 1: // doubled
			text = text[:end] + text[at:]
		case 2: // something between
			text = text[:at] + words[r.IntN(len(words))] + text[at:]
		case 3: // something instead
			text = text[:at] + words[r.IntN(len(words))] + text[end:]
		case 4: // another byte
			text = text[:at] + string(rune(r.IntN(256))) + text[at+1:]
		case 5: // lines in another order
			lines := strings.SplitAfter(text, "\n")
			r.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
			text = strings.Join(lines, "")
		case 6: // cut off
			text = text[:at]
		}
	}
	return text
}

// TestMutatedDockerfiles: a thousand Dockerfiles that are not quite right are built or
// refused with a reason, and none keeps the builder from the next.
func TestMutatedDockerfiles(t *testing.T) {
	b := newBench(t)
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case <-b.named:
			case <-done:
				return
			}
		}
	}()
	context := map[string]string{"a": "1", "b": "2", "c1": "3"}
	for i, text := range soundDockerfiles {
		if _, err := b.build(t, text, context, "sound", nil); err != nil && !strings.Contains(err.Error(), "no step was expected") && !strings.Contains(err.Error(), "checksum") {
			t.Fatalf("the Dockerfile %d is not sound: %v", i, err)
		}
	}
	r := rand.New(rand.NewPCG(1, 2)) // the same thousand each time
	var texts []string
	for range 1000 {
		texts = append(texts, mutate(r, soundDockerfiles[r.IntN(len(soundDockerfiles))]))
	}
	var mu sync.Mutex
	built, reasons := 0, map[string]bool{}
	var workers sync.WaitGroup
	for w := range 8 { // most of a build is waiting
		workers.Go(func() {
			for i := w; i < len(texts); i += 8 {
				_, err := b.build(t, texts[i], context, "mutated", nil)
				mu.Lock()
				switch {
				case err == nil:
					built++
				case strings.TrimSpace(err.Error()) == "" || strings.Contains(err.Error(), "panic") || strings.Contains(err.Error(), "runtime error"):
					t.Errorf("%v\n%q", err, texts[i])
				default:
					reasons[err.Error()] = true
				}
				mu.Unlock()
			}
		})
	}
	workers.Wait()
	// A test that mutates too much or too little shows nothing.
	if built < 50 || len(reasons) < 100 {
		t.Errorf("%d were built, and there were %d reasons not to", built, len(reasons))
	}
	if out, err := b.build(t, soundDockerfiles[0], context, "after", nil); err != nil || out.digest == "" {
		t.Errorf("after all of them: %+v %v", out, err)
	}
}
