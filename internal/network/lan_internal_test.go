package network

import (
	"strings"
	"testing"
)

// TestLinksAreMadeUnderAnotherName: what a link is called while it is made must be free on the host, whatever that calls
// its own, and differ from that of any other that is being made.
func TestLinksAreMadeUnderAnotherName(t *testing.T) {
	one := passingName(&Endpoint{EndpointID: strings.Repeat("0123456789abcdef", 4), Interface: "eth0"})
	other := passingName(&Endpoint{EndpointID: strings.Repeat("fedcba9876543210", 4), Interface: "eth0"})
	if one == other || len(one) > nameSize || !strings.HasPrefix(one, "ln-0123456789ab") {
		t.Errorf("%q, %q", one, other)
	}
}
