package systemd_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/systemd"
)

func TestGroupOfSlice(t *testing.T) {
	for slice, want := range map[string]string{
		"limited.slice": "/limited.slice/cleat", "a-b-c.slice": "/a.slice/a-b.slice/a-b-c.slice/cleat", `x\x2dy.slice`: `/x\x2dy.slice/cleat`, "a.b:c_d.slice": "/a.b:c_d.slice/cleat",
		"-.slice": "", ".slice": "", "-a.slice": "", "a-.slice": "", "a--b.slice": "", "a/b.slice": "", "a": "", "": "", "a b.slice": "", "ä.slice": "",
		strings.Repeat("a", 250) + ".slice": "",
	} {
		got, err := systemd.GroupOfSlice(slice)
		if got != want || errors.Is(err, errdefs.ErrInvalidArgument) != (want == "") {
			t.Errorf("%q: %q, %v", slice, got, err)
		}
	}
}

func TestIsSlice(t *testing.T) {
	for parent, want := range map[string]bool{"a.slice": true, "-.slice": true, "/a.slice": false, "a.slice/b": false, "a": false, "": false} {
		if systemd.IsSlice(parent) != want {
			t.Errorf("%q: %t", parent, !want)
		}
	}
}

func FuzzGroupOfSlice(f *testing.F) {
	f.Add("a-b.slice")
	f.Add("../a.slice")
	f.Add("..slice")
	f.Fuzz(func(t *testing.T, slice string) {
		group, err := systemd.GroupOfSlice(slice)
		if err != nil {
			return
		}
		if !strings.HasSuffix(group, "/"+slice+"/cleat") || strings.Contains(group, "/../") || strings.Contains(group, "//") || strings.Contains(group, "/./") {
			t.Errorf("%q lies in %q", slice, group)
		}
	})
}
