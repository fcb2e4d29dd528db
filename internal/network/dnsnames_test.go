package network_test

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/internal/network"
)

func TestDNSNames(t *testing.T) {
	const id = "0123456789abcdef"
	for _, test := range []struct {
		name     string
		aliases  []string
		hostname string
		want     []string
	}{
		{"web", nil, "", []string{"web", "0123456789ab"}},
		{"web", []string{"b", "a", "b", "", "web", "h"}, "h", []string{"web", "b", "a", "h", "0123456789ab"}},
		{"web", []string{"0123456789ab"}, "0123456789ab", []string{"web", "0123456789ab"}},
	} {
		if got := network.DNSNames(test.name, test.aliases, id, test.hostname); !slices.Equal(got, test.want) {
			t.Errorf("%s, %q: %q", test.name, test.aliases, got)
		}
	}
}

// TestManyDNSNames: what many names cost does not grow with their square. Comparing each with all others takes minutes.
func TestManyDNSNames(t *testing.T) {
	const many, patience = 300_000, 20 * time.Second
	aliases := make([]string, many)
	for i := range aliases {
		aliases[i] = "alias" + strconv.Itoa(many+i)
	}
	began := time.Now()
	got := network.DNSNames("web", aliases, "0123456789abcdef", "")
	if len(got) != many+2 || time.Since(began) > patience {
		t.Errorf("%d names of %d aliases in %s", len(got), many, time.Since(began))
	}
}
