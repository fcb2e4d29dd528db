package cgroup_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/cgroup"
)

// A directory is one engine's: another's claim fails as long as it lives or processes are in it, and holds once they are gone.
func TestClaims(t *testing.T) {
	h := hierarchy(t)
	parent := parentDir() + "/claimed"
	const first, second = "first-engine", "second-engine"
	if err := h.Claim(parent, first); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.RemoveParent(parent); err != nil {
			t.Error(err)
		}
	})
	other, err := cgroup.Detect() // what another engine has
	if err != nil {
		t.Fatal(err)
	}
	if !other.Exists(parent) || other.Exists(parent+"-none") {
		t.Error("the claimed directory is there, and no other")
	}
	g := create(t, h, "claimed/x", cgroup.Resources{AllowAllDevices: true})
	cmd := run(t, g, "sleep 1000")
	if got := other.Foreign(parent, second); got != first {
		t.Errorf("it is %q's", got)
	}
	if err := other.Claim(parent, second); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("a claim of what another engine uses: %v", err)
	}
	if err := other.Claim(parent, first); err != nil {
		t.Errorf("the same engine's next claim: %v", err)
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if err := g.Remove(); err != nil {
		t.Fatal(err)
	}
	if err := other.Claim(parent, second); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("a claim of what an engine without processes has: %v", err)
	}
	h.EndClaim()
	other.EndClaim()
	if err := other.Claim(parent, second); err != nil {
		t.Errorf("a claim of what nobody uses: %v", err)
	}
	if got := h.Foreign(parent, first); got != second {
		t.Errorf("while the second lives it is %q's", got)
	}
	other.EndClaim()
	if got := h.Foreign(parent, first); got != "" {
		t.Errorf("without processes it is still %q's", got)
	}
	if err := h.Claim("/..", first); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("a claim of a path that leads elsewhere: %v", err)
	}
}

// A directory that was removed below the engine is made again, and is the engine's again.
func TestClaimOfWhatIsMadeAgain(t *testing.T) {
	h := hierarchy(t)
	parent := parentDir() + "/again"
	if err := h.Claim(parent, "first-engine"); err != nil {
		t.Fatal(err)
	}
	if err := h.RemoveParent(parent); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.RemoveParent(parent); err != nil {
			t.Error(err)
		}
	})
	g := create(t, h, "again/x", cgroup.Resources{AllowAllDevices: true})
	cmd := run(t, g, "sleep 1000")
	if got := h.Foreign(parent, "second-engine"); got != "first-engine" {
		t.Errorf("it is %q's", got)
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}

// A mark that cannot be read is taken for another engine's, as an engine ends what it does not know in a directory of its own.
func TestClaimOfWhatCannotBeRead(t *testing.T) {
	h := hierarchy(t)
	parent := parentDir() + "/unreadable"
	if err := h.Claim(parent, strings.Repeat("x", 100)); err != nil { // longer than any engine's id
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.RemoveParent(parent); err != nil {
			t.Error(err)
		}
	})
	g := create(t, h, "unreadable/x", cgroup.Resources{AllowAllDevices: true})
	cmd := run(t, g, "sleep 1000")
	err := h.Claim(parent, "first-engine")
	if !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), "numerical result out of range") {
		t.Errorf("a claim of it: %v", err)
	}
	if err := g.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}

// A mark that the kernel refuses for another reason than that it keeps none is an error that says so.
func TestClaimThatFails(t *testing.T) {
	h := hierarchy(t)
	parent := parentDir() + "/failing"
	t.Cleanup(func() {
		if err := h.RemoveParent(parent); err != nil {
			t.Error(err)
		}
	})
	err := h.Claim(parent, strings.Repeat("x", 1<<20)) // longer than any attribute
	if !errors.Is(err, unix.E2BIG) || !strings.Contains(err.Error(), "--cgroup-parent") {
		t.Errorf("a claim that fails: %v", err)
	}
}
