package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/moby/api/types/network"

	"github.com/cleatlabs/cleat/internal/record"
)

// recordLayout is the version of the files that this engine writes. A record of a later
// layout is refused instead of misread.
const recordLayout = 1

// idLength is that of a network's id.
const idLength = 64

// Record is everything durable about a network. A *Record never changes.
type Record struct {
	Layout  int
	ID      string
	Name    string
	Created time.Time
	Driver  string

	EnableIPv4, EnableIPv6           bool
	Internal, Attachable, ConfigOnly bool
	// ConfigFrom is the name of the config-only network that this one was made like.
	ConfigFrom string            `json:",omitempty"`
	Options    map[string]string `json:",omitempty"` // as asked for, with the defaults
	Labels     map[string]string `json:",omitempty"`

	IPAMDriver  string            `json:",omitempty"`
	IPAMOptions map[string]string `json:",omitempty"`
	Subnets     []Subnet          `json:",omitempty"`

	// Link is the host's link of the network. One that was there before is not removed
	// with it.
	Link     string `json:",omitempty"`
	LinkMade bool   `json:",omitempty"`
}

func (r *Record) predefined() bool {
	return r.Name == ModeBridge || r.Name == ModeHost || r.Name == ModeNone
}

// Publishes says whether ports of the host can lead to containers of the network.
func (r *Record) Publishes() bool { return r.Driver == driverBridge && !r.Internal }

// describe is the record in the words of the API.
func (r *Record) describe() network.Network {
	n := network.Network{
		Name: r.Name, ID: r.ID, Created: r.Created, Scope: "local", Driver: r.Driver, EnableIPv4: r.EnableIPv4, EnableIPv6: r.EnableIPv6,
		IPAM:     network.IPAM{Driver: r.IPAMDriver, Options: maps.Clone(r.IPAMOptions), Config: []network.IPAMConfig{}},
		Internal: r.Internal, Attachable: r.Attachable, ConfigOnly: r.ConfigOnly, ConfigFrom: network.ConfigReference{Network: r.ConfigFrom},
		Options: map[string]string{}, Labels: map[string]string{},
	}
	if n.IPAM.Driver == "" {
		n.IPAM.Driver = "default"
	}
	maps.Copy(n.Options, r.Options)
	maps.Copy(n.Labels, r.Labels)
	for _, s := range r.Subnets {
		n.IPAM.Config = append(n.IPAM.Config, network.IPAMConfig{Subnet: s.Prefix, IPRange: s.Range, Gateway: s.Gateway, AuxAddress: maps.Clone(s.Aux)})
	}
	return n
}

// prefixes are the network's subnets.
func (r *Record) prefixes() []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range r.Subnets {
		ps = append(ps, s.Prefix)
	}
	return ps
}

// records keeps the records of the networks that users made: one file each, named by
// the id, so that the cost of one does not grow with their number.
type records struct {
	dir string
}

func (f records) path(id string) string { return filepath.Join(f.dir, id+".json") }

// goneSuffix is that of the notes of networks that were removed and whose bridges are still to be deleted.
const goneSuffix = ".gone"

func (f records) note(id string) string { return filepath.Join(f.dir, id+goneSuffix) }

// load reads all records. Those that cannot be read are errors that name them: a network
// is never dropped silently.
func (f records) load() (all []*Record, damaged []error, err error) {
	_ = record.SweepTemp(f.dir) // what stays is in the way of a later write, which says so
	return f.read(".json", goneSuffix)
}

// removed reads the notes of networks that were removed and whose bridges may still be there.
func (f records) removed() (all []*Record, damaged []error, err error) {
	return f.read(goneSuffix, ".json")
}

// read reads the files with one suffix, and passes over those with another.
func (f records) read(suffix, other string) (all []*Record, damaged []error, err error) {
	entries, err := os.ReadDir(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("networks: %w", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), other) {
			continue
		}
		id, isRecord := strings.CutSuffix(e.Name(), suffix)
		path := filepath.Join(f.dir, e.Name())
		if !isRecord {
			if suffix == ".json" { // and not once more
				damaged = append(damaged, fmt.Errorf("%s is not the record of a network", path))
			}
			continue
		}
		var r Record
		err := record.ReadJSON(path, &r)
		switch {
		case err != nil:
			damaged = append(damaged, err)
		case r.Layout > recordLayout:
			return nil, nil, fmt.Errorf("%s (layout %d) is not a record that this engine can read: start a newer one, or move the file away", path, r.Layout)
		case r.ID != id || len(id) != idLength:
			damaged = append(damaged, fmt.Errorf("%s is not the record of network %s", path, id))
		default:
			all = append(all, &r)
		}
	}
	return all, damaged, nil
}

// save writes a record so that it is on the disk when save returns.
func (f records) save(r *Record) error {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return fmt.Errorf("network %s: %w", r.Name, err)
	}
	data, err := encode(r)
	if err != nil {
		return fmt.Errorf("network %s: %w", r.Name, err)
	}
	if err := record.WriteDurable(f.path(r.ID), data, 0o600); err != nil {
		return fmt.Errorf("network %s: %w", r.Name, err)
	}
	return nil
}

// remove forgets a record. One that is gone is no error.
func (f records) remove(r *Record) error {
	if err := os.Remove(f.path(r.ID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("network %s: %w", r.Name, err)
	}
	return nil
}

// retire makes the note of a record, which is none any more.
func (f records) retire(r *Record) error {
	if err := os.Rename(f.path(r.ID), f.note(r.ID)); err != nil {
		return fmt.Errorf("network %s: %w", r.Name, err)
	}
	return nil
}

// forget removes the note.
func (f records) forget(r *Record) error {
	if err := os.Remove(f.note(r.ID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("network %s: %w", r.Name, err)
	}
	return nil
}

func encode(r *Record) ([]byte, error) { return json.Marshal(r) }
