// Package seccomp compiles seccomp profiles in Docker's JSON format into BPF programs that the kernel loads as they are.
// There is no libseccomp: its compiler takes some 20 ms for the default profile, this one a fraction of one.
//
// What a program decides is what runc with libseccomp decides, with these rules of both made explicit: a rule without
// conditions wins over those with conditions for the same system call; of the latter the first that matches counts; a
// rule with two conditions on one argument is as many rules; names that an architecture does not have are passed over;
// a system call newer than the newest that the profile knows fails with ENOSYS rather than the default action's EPERM
// (so that programs fall back to an older one); a foreign architecture kills the process. Different from libseccomp,
// x32 system calls always fail with ENOSYS, as on a kernel without x32: they would be a second way to each of the
// others.
//
// Programs are for loading with SECCOMP_FILTER_FLAG_SPEC_ALLOW, runc's default too. What is not in the program (a
// listener, flags that change loading) is refused.
package seccomp

//go:generate go run gen.go

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"sync"

	profiles "github.com/moby/profiles/seccomp"

	"github.com/cleatlabs/cleat/internal/failure"
)

// Default compiles Docker's default profile for a process with the capabilities in the mask caps, on a kernel of the
// given version. The result is an array of struct sock_filter in the machine's byte order.
func Default(caps uint64, kernelMajor, kernelMinor int) ([]byte, error) {
	return compile(profiles.DefaultProfile(), host{runtime.GOARCH, caps, kernelMajor, kernelMinor})
}

// Compile compiles a profile given as JSON, like Default. A profile without default action and rules is nil:
// unconfined, as in Docker. Errors are errdefs.ErrInvalidArgument, and errdefs.ErrNotImplemented for what cannot be
// honoured; they name what is wrong.
func Compile(profileJSON []byte, caps uint64, kernelMajor, kernelMinor int) ([]byte, error) {
	p, err := parse(profileJSON)
	if err != nil {
		return nil, err
	}
	return compile(p, host{runtime.GOARCH, caps, kernelMajor, kernelMinor})
}

func parse(profileJSON []byte) (*profiles.Seccomp, error) {
	var p profiles.Seccomp
	err := json.Unmarshal(profileJSON, &p)
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return nil, failure.Invalid("decoding the seccomp profile failed: %w (byte %d)", err, syntax.Offset)
	}
	if err != nil {
		return nil, failure.Invalid("decoding the seccomp profile failed: %w", err)
	}
	return &p, nil
}

// compile is the way from a profile to a program.
func compile(p *profiles.Seccomp, h host) ([]byte, error) {
	s, err := resolve(p, h)
	if err != nil || s == nil {
		return nil, err
	}
	program, err := s.assemble()
	if err != nil {
		return nil, err
	}
	return encode(program), nil
}

// Cache compiles each profile once for each set of capabilities. The zero value is ready for use, by several goroutines
// too. What it returns is shared: do not change it.
type Cache struct {
	mu       sync.Mutex
	programs map[host]map[string][]byte
	size     int
}

// A container's profile is its creator's to choose: the cache must not grow with their number, nor with their length.
const (
	maxCached     = 128
	longestCached = 256 << 10 // bytes; Docker's default profile has 13 KiB
)

// Default is like the function Default.
func (c *Cache) Default(caps uint64, kernelMajor, kernelMinor int) ([]byte, error) {
	const defaultName = "" // no JSON text is empty
	return c.get(nil, defaultName, host{runtime.GOARCH, caps, kernelMajor, kernelMinor})
}

// Compile is like the function Compile.
func (c *Cache) Compile(profileJSON []byte, caps uint64, kernelMajor, kernelMinor int) ([]byte, error) {
	if len(profileJSON) == 0 {
		return nil, failure.Invalid("decoding the seccomp profile failed: it is empty")
	}
	return c.get(profileJSON, string(profileJSON), host{runtime.GOARCH, caps, kernelMajor, kernelMinor})
}

// get looks a program up by the text of its profile, and compiles it at the first time.
func (c *Cache) get(profileJSON []byte, key string, h host) ([]byte, error) {
	c.mu.Lock()
	program, ok := c.programs[h][key]
	c.mu.Unlock()
	if ok {
		return program, nil
	}
	var err error
	if key == "" {
		program, err = Default(h.caps, h.major, h.minor)
	} else {
		program, err = Compile(profileJSON, h.caps, h.major, h.minor)
	}
	if err != nil || len(key) > longestCached {
		return program, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.programs == nil || c.size >= maxCached {
		c.programs, c.size = map[host]map[string][]byte{}, 0
	}
	if c.programs[h] == nil {
		c.programs[h] = map[string][]byte{}
	}
	c.programs[h][key] = program
	c.size++
	return program, nil
}

// host is what the conditions of a profile are about.
type host struct {
	goarch       string
	caps         uint64
	major, minor int
}

func (h host) String() string {
	return fmt.Sprintf("%s, Linux %d.%d, capabilities %#x", h.goarch, h.major, h.minor, h.caps)
}
