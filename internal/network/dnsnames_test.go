package network_test

import (
	"math"
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

// TestManyDNSNames: what many names cost grows with their number, and not with its square.
func TestManyDNSNames(t *testing.T) {
	const few, factor = 4_000, 16
	aliases := make([]string, few*factor)
	for i := range aliases {
		aliases[i] = "alias" + strconv.Itoa(len(aliases)+i)
	}
	cost := func(n int) time.Duration {
		least := time.Duration(math.MaxInt64)
		for range 5 {
			began := time.Now()
			if got := network.DNSNames("web", aliases[:n], "0123456789abcdef", ""); len(got) != n+2 {
				t.Fatalf("%d names of %d aliases", len(got), n)
			}
			least = min(least, time.Since(began))
		}
		return least
	}
	if one, many := cost(few), cost(few*factor); many > 6*factor*one {
		t.Errorf("%d names take %s, %d times as many %s", few, one, factor, many)
	}
}
