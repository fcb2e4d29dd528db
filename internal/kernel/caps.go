package kernel

import "errors"

// DefaultCaps is the set that a container gets when nothing else is asked for.
const DefaultCaps uint64 = 0xa80425fb

// CapNumber returns the number of a capability given as "NET_ADMIN", "CAP_NET_ADMIN", in any case.
func CapNumber(name string) (int, error) { return 0, errors.New("kernel: not available") }

// CapNames returns the "CAP_…" names of the bits in mask, in the order of their numbers.
func CapNames(mask uint64) []string { return nil }

// EffectiveCaps computes a container's capability mask from what was asked for.
func EffectiveCaps(add, drop []string, privileged bool, lastCap int) (uint64, error) {
	return 0, errors.New("kernel: not available")
}
