package engine

import (
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cleatlabs/cleat/internal/cdi"
	"github.com/cleatlabs/cleat/internal/runtime"
)

// What a vendor's device brings is mounted in the order of all mounts, and leaves those of the container in it.
func TestMountsOfVendorsKeepTheOrder(t *testing.T) {
	s := &runtime.Spec{Mounts: []runtime.Mount{{Target: "/usr"}, {Target: "/lib/modules"}}}
	v := &vendorDevices{&cdi.Edits{Mounts: []specs.Mount{{Source: t.TempDir(), Destination: "/etc/thing"}, {Source: t.TempDir(), Destination: "/z"}}}}
	if err := v.addTo(s); err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, m := range s.Mounts {
		order = append(order, m.Target)
	}
	if want := []string{"/usr", "/z", "/etc/thing", "/lib/modules"}; !slices.Equal(order, want) {
		t.Errorf("the order is %q, want %q", order, want)
	}
}
