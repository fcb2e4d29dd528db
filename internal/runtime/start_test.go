package runtime_test

import (
	"testing"
)

func TestRun(t *testing.T) {
	l := newLab(t)
	c := l.start(l.spec("sh", "-c", "echo out; echo err >&2; exit 7"))
	st := c.wait()
	if st.Code != 7 || st.Signal != 0 || st.Reason != "" || c.stdout.String() != "out\n" || c.stderr.String() != "err\n" {
		t.Fatalf("%+v %q %q", st, c.stdout.String(), c.stderr.String())
	}
}
