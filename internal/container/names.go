package container

import (
	"math/rand/v2"
	"strconv"

	"github.com/cleatlabs/cleat/internal/failure"
)

// adjectives and nouns make the names of containers that were not given one.
var (
	adjectives = [...]string{
		"able", "agile", "amber", "ample", "balmy", "bold", "brave", "breezy", "bright", "brisk", "calm", "candid",
		"cheery", "clear", "clever", "coastal", "cosy", "crisp", "curious", "daring", "deft", "eager", "early",
		"easy", "fair", "fleet", "fluent", "fond", "free", "fresh", "gentle", "glad", "golden", "grand", "handy",
		"happy", "hardy", "hearty", "honest", "humble", "jolly", "keen", "kind", "lively", "lucid", "lucky", "mellow",
		"merry", "mild", "misty", "neat", "nimble", "noble", "patient", "placid", "plucky", "polite", "prime", "proud",
		"quick", "quiet", "rapid", "ready", "robust", "serene", "sharp", "silent", "silver", "smooth", "snug", "solid",
		"spry", "steady", "still", "stout", "sturdy", "sunny", "swift", "tidal", "tidy", "trim", "trusty", "upbeat",
		"vivid", "warm", "wise", "witty", "zesty",
	}
	nouns = [...]string{
		"albatross", "anchor", "atoll", "bay", "beacon", "bight", "bosun", "bowline", "bowsprit", "brig", "buoy",
		"canoe", "cape", "capstan", "clipper", "compass", "coral", "cove", "current", "cutter", "delta", "dinghy",
		"dolphin", "dory", "estuary", "fathom", "fender", "ferry", "fjord", "galley", "gull", "halyard", "harbour",
		"haven", "heron", "hull", "inlet", "island", "jetty", "kayak", "keel", "ketch", "lagoon", "lantern", "lighthouse",
		"lugger", "mainsail", "mast", "mooring", "narwhal", "osprey", "otter", "paddle", "pelican", "pier", "pilot",
		"porpoise", "puffin", "quay", "reef", "rigging", "rudder", "sailor", "schooner", "seal", "sextant", "shoal",
		"skiff", "sloop", "spinnaker", "starfish", "strait", "swell", "tern", "tide", "tiller", "trawler", "tug",
		"voyage", "walrus", "wharf", "whale", "windlass", "yawl",
	}
)

// ReserveGeneratedName reserves a free adjective_noun name for id. Names that
// are taken get a number, so this fails only if numbers run out too.
func (s *Store) ReserveGeneratedName(id string) (string, error) {
	for try := range 100 {
		name := adjectives[rand.IntN(len(adjectives))] + "_" + nouns[rand.IntN(len(nouns))]
		if try >= 6 {
			name += strconv.Itoa(rand.IntN(10 << min(try, 24)))
		}
		if s.ReserveName(name, id) == nil {
			return name, nil
		}
	}
	return "", failure.Unavailable("no free container name was found: give one with --name")
}
