package record

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// FailpointEnv names the environment variable that arms failpoints: a comma
// list of name or name=N, where N is the hit (from 1) at which to strike.
const FailpointEnv = "CLEAT_FAILPOINTS"

// failpoints is read from the environment once. It is the one piece of state
// in this package: a failpoint must be reachable from every package without
// being handed down, and it is empty in production.
var failpoints = sync.OnceValue(func() map[string]*atomic.Int64 {
	points, err := parseFailpoints(os.Getenv(FailpointEnv))
	if err != nil {
		// A mistyped failpoint would make a crash test pass without a crash.
		fmt.Fprintf(os.Stderr, "%s: %v\n", FailpointEnv, err)
		os.Exit(2)
	}
	return points
})

// Failpoint kills the engine with SIGKILL if the environment armed name and
// this is the hit asked for. Otherwise it costs one map look-up.
func Failpoint(name string) {
	points := failpoints()
	if points == nil {
		return
	}
	if n := points[name]; n != nil && n.Add(-1) == 0 {
		_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
		// SIGKILL to the own process is delivered before kill returns to this
		// thread, but another thread may be the one that dies first.
		select {}
	}
}

func parseFailpoints(spec string) (map[string]*atomic.Int64, error) {
	if spec == "" {
		return nil, nil
	}
	points := make(map[string]*atomic.Int64)
	for item := range strings.SplitSeq(spec, ",") {
		name, count, counted := strings.Cut(strings.TrimSpace(item), "=")
		hit := int64(1)
		if counted {
			n, err := strconv.ParseInt(count, 10, 32)
			if err != nil || n < 1 {
				return nil, fmt.Errorf("failpoint %q: the hit must be a number from 1", item)
			}
			hit = n
		}
		if name == "" {
			return nil, fmt.Errorf("empty failpoint name in %q", spec)
		}
		points[name] = new(atomic.Int64)
		points[name].Store(hit)
	}
	return points, nil
}
