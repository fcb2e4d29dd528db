package build

import (
	"time"

	"github.com/moby/buildkit/cmd/buildkitd/config"
)

// History bounds the record of builds: kept are the newest, and what is younger than an age. Which is what is looked at
// when the builder is opened, and every two minutes. Pinned records are kept beside them.
type History struct {
	// Newest is how many are kept however old they are. With 0 the age alone counts.
	Newest int64
	// MaxAge is for how long the others are kept. With 0 of both, no build is recorded.
	MaxAge time.Duration
}

// DefaultHistory is how many builds are recorded by default, whatever their age. BuildKit's own default has no bound: it
// keeps all of the last two days, which are thousands where a machine does nothing but build.
const DefaultHistory = 500

// config is BuildKit's form of it.
func (h *History) config() *config.HistoryConfig {
	if h == nil {
		h = &History{Newest: DefaultHistory}
	}
	c := &config.HistoryConfig{MaxAge: config.Duration{Duration: h.MaxAge}}
	if h.Newest > 0 || h.MaxAge == 0 {
		c.MaxEntries = &h.Newest // a 0 that is said records nothing
	}
	return c
}
