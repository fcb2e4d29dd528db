package buildexec

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/solver/pb"

	"github.com/cleatlabs/cleat/internal/network"
	"github.com/cleatlabs/cleat/internal/runtime"
)

// files are the resolv.conf and hosts of steps. Steps with the same content share a file, which they have read-only: a
// start writes none.
type files struct {
	dir      string
	networks Networks

	mu     sync.Mutex
	shared map[string]content // by name
}

type content struct{ path, text string }

// addFiles mounts the step's files. What a step without confinement can write to after all is its own alone.
func (s *step) addFiles() error {
	mode := network.ModeBridge
	name := "resolv.conf"
	if s.meta.NetMode == pb.NetMode_HOST {
		mode, name = network.ModeHost, "resolv-host.conf"
	}
	resolv, err := s.e.files.networks.ResolvConf(mode)
	if err != nil {
		return err
	}
	hosts, err := hostsText(&s.meta)
	if err != nil {
		return err
	}
	ordinary := len(s.meta.ExtraHosts) == 0 && (s.meta.Hostname == "" || s.meta.Hostname == defaultHostname)
	for _, f := range []struct {
		target, name, text string
		own                bool
	}{{"/etc/resolv.conf", name, resolv, s.insecure()}, {"/etc/hosts", "hosts", hosts, s.insecure() || !ordinary}} {
		p := ""
		if f.own {
			p, err = s.e.files.write(f.name+"."+s.id, f.text)
			s.files = append(s.files, p)
		} else {
			p, err = s.e.files.share(f.name, f.text)
		}
		if err != nil {
			return err
		}
		s.mounts = append(s.mounts, runtime.Mount{
			Target: f.target, Type: "bind", Source: p, IsFile: true, Engine: true, ReadOnly: true, NonRecursive: true,
			Options: []string{"nosuid", "noexec", "nodev"},
		})
	}
	return nil
}

// share gives a file that has the text. One that has changed is another file: a running step keeps what it has. The old
// one stays until the engine's next start, as another step may be about to mount it.
func (f *files) share(name, text string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := f.shared[name]; now.path != "" && now.text == text {
		return now.path, nil
	}
	p, err := f.write(name+"."+newID(), text)
	if err != nil {
		return "", err
	}
	if f.shared == nil {
		f.shared = map[string]content{}
	}
	f.shared[name] = content{p, text}
	return p, nil
}

func (f *files) write(name, text string) (string, error) {
	p := filepath.Join(f.dir, name)
	w, err := os.OpenFile(p, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return "", fmt.Errorf("build step: %w", err)
	}
	_, err = w.WriteString(text)
	if err == nil {
		err = w.Chmod(0o644) // whatever the engine's umask is: a step's users read it
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return "", fmt.Errorf("build step: %w", err)
	}
	return p, nil
}

// hostsText is worded as BuildKit's, which steps may copy.
func hostsText(m *executor.Meta) (string, error) {
	name := m.Hostname
	if name == "" {
		name = defaultHostname
	}
	var b strings.Builder
	fmt.Fprintf(&b, "127.0.0.1\tlocalhost %s\n::1\tlocalhost ip6-localhost ip6-loopback\n", name)
	for _, h := range m.ExtraHosts {
		if strings.ContainsAny(h.Host, " \t\r\n#") || h.Host == "" {
			return "", fmt.Errorf("invalid extra host %q: a host name has no blanks or '#'", h.Host)
		}
		fmt.Fprintf(&b, "%s\t%s\n", h.IP, h.Host)
	}
	return b.String(), nil
}
