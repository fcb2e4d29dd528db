// Package apparmor knows which AppArmor profiles the kernel holds, and which of them a container gets.
//
// It promises answers from what the kernel holds at that moment, at the cost of reading one number while the policy does
// not change, and of nothing where AppArmor is off. It loads no profile: that takes a compiled policy, and the engine
// runs no programs. The text of the default profile is in packaging/apparmor; the host's own service loads it at boot.
package apparmor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
)

const (
	// Default is the profile of containers that ask for none and are not privileged, if the kernel holds it.
	Default = "cleat-default"
	// Unconfined is what Docker calls having no profile.
	Unconfined = "unconfined"
	// dockersDefault is the name by which instructions written for Docker ask for the default. If the kernel does not
	// hold one of that name, ours is meant.
	dockersDefault = "docker-default"

	securityFS = "/sys/kernel/security/apparmor"
	maxName    = 4096 // what one write to the kernel may hold, with the verb before it
)

// Profiles are those of the kernel. A nil one is of a host without AppArmor. Its methods may be called concurrently.
type Profiles struct {
	dir string

	mu       sync.Mutex
	revision string // of the policy that loaded is of; "" is none yet
	loaded   map[string]bool
}

// Open returns the kernel's profiles, nil where AppArmor is not enabled or cannot be looked into.
func Open(enabled bool) *Profiles {
	if !enabled {
		return nil
	}
	return &Profiles{dir: securityFS}
}

// CheckName says why name cannot be one of a profile (ErrInvalidArgument), whether there is such a one or not.
func CheckName(name string) error {
	if len(name) > maxName || strings.TrimSpace(name) != name || strings.ContainsAny(name, "\x00\n\r") {
		return failure.Invalid("invalid AppArmor profile name %q", name)
	}
	return nil
}

// Choose returns the profile of a container that asks for one by name, or for none with "": its name, Unconfined, or ""
// where AppArmor is off. Whether a profile that was asked for is there, the kernel says when it is to be entered.
func (p *Profiles) Choose(asked string, privileged bool) (string, error) {
	switch {
	case p == nil:
		return "", nil
	case asked == "" && privileged:
		return Unconfined, nil
	case asked != "" && asked != dockersDefault:
		return asked, nil
	}
	held, err := p.held()
	switch {
	case err != nil:
		return "", err
	case asked != "" && (held[asked] || !held[Default]):
		return asked, nil
	case held[Default]:
		return Default, nil
	}
	return Unconfined, nil
}

// Confines says whether containers that ask for nothing get a profile.
func (p *Profiles) Confines() bool {
	if p == nil {
		return false
	}
	held, err := p.held()
	return err == nil && held[Default]
}

// Warning is a sentence about a host whose AppArmor does nothing for containers, "" if there is nothing to say.
func (p *Profiles) Warning() string {
	if p == nil || p.Confines() {
		return ""
	}
	return "AppArmor is enabled, but the profile " + Default + " is not loaded: containers run without one unless they ask for it. " +
		"`make install` puts it into /etc/apparmor.d; `apparmor_parser -r /etc/apparmor.d/" + Default + "` loads it."
}

// held are the names of the profiles that the kernel holds. The map is not to be changed.
func (p *Profiles) held() (map[string]bool, error) {
	revision, err := readRevision(filepath.Join(p.dir, "revision"))
	if err != nil {
		return nil, fmt.Errorf("AppArmor's policy: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.loaded != nil && p.revision == revision {
		return p.loaded, nil
	}
	// One that is loaded between the two reads is found by the next start, as the revision is older than it.
	list, err := os.ReadFile(filepath.Join(p.dir, "profiles"))
	if err != nil {
		return nil, fmt.Errorf("AppArmor's profiles: %w", err)
	}
	p.revision, p.loaded = revision, parse(string(list))
	return p.loaded, nil
}

// readRevision reads the number that changes with the policy. A second read of one open file would wait for a change, and
// so does the first where nothing was loaded ever.
func readRevision(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var b [32]byte
	n, err := unix.Read(fd, b[:])
	if errors.Is(err, unix.EAGAIN) {
		return "0", nil
	}
	if err != nil {
		return "", &os.PathError{Op: "read", Path: path, Err: err}
	}
	return strings.TrimSpace(string(b[:n])), nil
}

// parse reads the kernel's list, a line "name (mode)" each. Names may have blanks and parentheses.
func parse(list string) map[string]bool {
	names := map[string]bool{}
	for line := range strings.Lines(list) {
		line = strings.TrimRight(line, "\n")
		if i := strings.LastIndex(line, " ("); i > 0 && strings.HasSuffix(line, ")") {
			names[line[:i]] = true
		}
	}
	return names
}
