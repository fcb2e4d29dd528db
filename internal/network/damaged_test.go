package network_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	api "github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/network"
)

// damages are what may have become of a file that held whole.
var damages = map[string]func(path string, whole []byte) error{
	"empty":           func(path string, _ []byte) error { return os.WriteFile(path, nil, 0o600) },
	"cut short":       func(path string, whole []byte) error { return os.WriteFile(path, whole[:len(whole)/2], 0o600) },
	"null":            func(path string, _ []byte) error { return os.WriteFile(path, []byte("null"), 0o600) },
	"a directory":     func(path string, _ []byte) error { return os.MkdirAll(filepath.Join(path, "in it"), 0o700) },
	"a dangling link": func(path string, _ []byte) error { return os.Symlink("nowhere", path) },
}

// A network whose record is damaged keeps neither the engine nor other networks from anything, and is there again with
// its record.
func TestNetworkWithoutItsRecord(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	first, err := network.Open(context.Background(), cfg)
	must(t, err)
	t.Cleanup(func() { _ = first.Close() })
	rec := h.create(first, api.CreateRequest{Name: "broken", Internal: true})
	h.create(first, api.CreateRequest{Name: "sound"})
	kept := h.join(first, on("kept", "sound"))
	both := h.join(first, on("both", "sound", "broken"))
	must(t, first.Close())
	rules := func() []string { // that keep containers of the network from others and from the host's loopback
		var of []string
		for _, set := range []string{"bridges", "internal", "apart", "icc"} {
			if out, err := runOutput("nft", "list", "set", "inet", "cleat-"+cfg.Bridge, set); err != nil || strings.Contains(out, rec.Link) {
				of = append(of, set)
			}
		}
		return of
	}
	before := rules()
	dir := filepath.Join(filepath.Dir(cfg.StateFile), "networks")
	path := filepath.Join(dir, rec.ID+".json")
	whole, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, strings.Repeat("a", 64)+".gone"), nil, 0o600))
	for what, damage := range damages {
		t.Run(what, func(t *testing.T) {
			must(t, errors.Join(os.Remove(path), damage(path, whole)))
			s, err := network.Open(context.Background(), cfg)
			must(t, err)
			defer s.Close()
			told := strings.Join(s.Warnings(), "\n")
			for _, want := range []string{path, "put a copy of that file back", "notes.txt is not the record of a network", ".gone", "delete both"} {
				if !strings.Contains(told, want) {
					t.Errorf("%q is not in the warnings:\n%s", want, told)
				}
			}
			must(t, s.Adopt(context.Background(), kept.Sandbox, 0))
			if _, err := s.Find("broken"); err == nil {
				t.Error("the network is there")
			}
			if now := rules(); !slices.Equal(now, before) || len(now) != 3 {
				t.Errorf("its bridge is in the sets %q, and was in %q", now, before)
			}
			must(t, s.Adopt(context.Background(), both.Sandbox, 0))
			other := on("other", "sound")
			other.Endpoints[0].IP = both.Sandbox.Endpoints[0].IP
			if _, err := h.request(s, other); err == nil {
				t.Errorf("%v, the address of a container that runs, went to another one", other.Endpoints[0].IP)
			}
			must(t, s.Close())
			must(t, os.RemoveAll(path))
			must(t, os.WriteFile(path, whole, 0o600))
		})
	}
	s := h.open(cfg)
	h.join(s, on("a", "broken"))
}

// A record that says what cannot be does no more harm, and neither do two of one name.
func TestNetworksWithImpossibleRecords(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	first, err := network.Open(context.Background(), cfg)
	must(t, err)
	t.Cleanup(func() { _ = first.Close() })
	rec := h.create(first, api.CreateRequest{Name: "one"})
	odd := h.create(first, api.CreateRequest{Name: "odd"})
	must(t, first.Close())
	dir := filepath.Join(filepath.Dir(cfg.StateFile), "networks")
	change := func(id, as, old, now string) {
		b, err := os.ReadFile(filepath.Join(dir, id+".json"))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, as+".json"), []byte(strings.ReplaceAll(strings.ReplaceAll(string(b), old, now), id, as)), 0o600))
	}
	change(rec.ID, strings.Repeat("f", 64), "", "")
	change(odd.ID, odd.ID, `"Driver":"bridge"`, `"Driver":"overlay"`)
	s := h.open(cfg)
	told := strings.Join(s.Warnings(), "\n")
	for _, want := range []string{`both have the name "one"`, "network odd cannot be used", "plugin \"overlay\" not found"} {
		if !strings.Contains(told, want) {
			t.Errorf("%q is not in the warnings:\n%s", want, told)
		}
	}
	h.join(s, on("a", "one"))
	_, err = s.Remove(context.Background(), "odd")
	must(t, err)
	h.run(h.home, "ip", "link", "delete", odd.Link)
}

// The file that keeps the predefined networks' ids may be lost: containers that run on them do so on.
func TestPredefinedNetworksWithoutTheirFile(t *testing.T) {
	for what, damage := range damages {
		t.Run(what, func(t *testing.T) {
			h := newHost(t)
			cfg := h.config()
			cfg.BIP = netip.Prefix{}
			first, err := network.Open(context.Background(), cfg)
			must(t, err)
			t.Cleanup(func() { _ = first.Close() })
			t.Cleanup(func() { h.run(h.home, "ip", "link", "delete", cfg.Bridge) }) // which counts as another's
			kept := h.join(first, on("kept", "bridge"))
			must(t, first.Close())
			whole, err := os.ReadFile(cfg.StateFile)
			must(t, err)
			must(t, errors.Join(os.Remove(cfg.StateFile), damage(cfg.StateFile, whole)))

			s := h.open(cfg)
			now := s.Current(kept.Sandbox)
			must(t, s.Adopt(context.Background(), now, 0))
			must(t, s.Reconcile(context.Background(), []*network.Sandbox{now}))
			net, err := s.Inspect(context.Background(), "bridge")
			must(t, err)
			if e := net.Containers[kept.ContainerID]; e.IPv4Address.Addr() != kept.Endpoint.IP {
				t.Errorf("the container on it: %+v", net.Containers)
			}
			if s.Current(now) != now {
				t.Error("a sandbox of now is another")
			}
			must(t, s.Detach(context.Background(), now))
			kept.close()
			if what == "empty" || what == "cut short" {
				if told := strings.Join(s.Warnings(), "\n"); !strings.Contains(told, cfg.StateFile+".damaged") {
					t.Errorf("warnings:\n%s", told)
				}
			}
		})
	}
}

// An endpoint of a container's record that is null counts as none: the others of the container stay.
func TestSandboxWithNullForAnEndpoint(t *testing.T) {
	h := newHost(t)
	cfg := h.config()
	first, err := network.Open(context.Background(), cfg)
	must(t, err)
	t.Cleanup(func() { _ = first.Close() })
	h.create(first, api.CreateRequest{Name: "net"})
	kept := h.join(first, on("kept", "net"))
	must(t, first.Close())
	whole, err := json.Marshal(kept.Sandbox)
	must(t, err)
	for what, written := range map[string]string{
		"alone":              `{"ContainerID":"kept","Mode":"net","Endpoints":[null]}`,
		"beside a sound one": strings.Replace(string(whole), `"Endpoints":[`, `"Endpoints":[null,`, 1),
	} {
		t.Run(what, func(t *testing.T) {
			sb := &network.Sandbox{}
			must(t, json.Unmarshal([]byte(written), sb))
			s, err := network.Open(context.Background(), cfg)
			must(t, err)
			defer s.Close()
			sb = s.Current(sb)
			must(t, s.Adopt(context.Background(), sb, 0))
			must(t, s.Reconcile(context.Background(), []*network.Sandbox{sb}))
			if want := kept.Sandbox.Endpoints[0].EndpointID; len(sb.Endpoints) > 0 && sb.Endpoints[0].EndpointID != want {
				t.Errorf("it is %+v", sb.Endpoints[0])
			}
			if strings.Contains(written, "EndpointID") != (len(sb.Endpoints) == 1) {
				t.Errorf("%d endpoints", len(sb.Endpoints))
			}
			must(t, s.Close())
		})
	}
	h.open(cfg) // and with the test all of it is taken down
}
