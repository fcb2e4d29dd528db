package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// engineStateFile lies beside the user's config.json and says which engines
	// `engine start` was used for, so that the other commands find them again.
	engineStateFile = "cleat-engines.json"
	// mostEngines is how many are remembered.
	mostEngines = 32
)

// knownEngines are what `engine start` was used with, the last start last. An engine
// is known by its pidfile.
type knownEngines struct {
	Engines []engineFlags `json:"engines"`
}

func (a *app) loadEngines() (knownEngines, error) {
	var known knownEngines
	path := filepath.Join(a.configDir(), engineStateFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return known, nil
	}
	if err != nil {
		return known, err
	}
	if err := json.Unmarshal(data, &known); err != nil {
		return knownEngines{}, fmt.Errorf("%s: %w (it only remembers what 'engine start' was used with, and can be deleted)", path, err)
	}
	return known, nil
}

// rememberEngine makes f the last engine of the file. An engine that cannot be
// remembered runs all the same.
func (a *app) rememberEngine(f engineFlags) {
	if err := a.storeEngine(f); err != nil {
		_, _ = fmt.Fprintln(a.err, "WARNING: 'engine status', 'stop' and 'logs' will need these options again:", err)
	}
}

// storeEngine writes the file. Two starts at the same time do not lose one another's.
func (a *app) storeEngine(f engineFlags) error {
	dir := a.configDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	known, err := a.loadEngines()
	if err != nil {
		known = knownEngines{} // a broken file is begun anew
	}
	known.Engines = slices.DeleteFunc(known.Engines, func(k engineFlags) bool { return k.sameAs(f) || k.gone() })
	known.Engines = append(known.Engines, f)
	known.Engines = known.Engines[max(0, len(known.Engines)-mostEngines):]
	data, err := json.MarshalIndent(known, "", "\t")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, engineStateFile)
	if err := os.WriteFile(path+".tmp", append(data, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

// sameAs says whether both are one engine.
func (f engineFlags) sameAs(k engineFlags) bool { return f.PIDFile == k.PIDFile }

// gone says that nothing is left of an engine that could be asked for.
func (f *engineFlags) gone() bool {
	_, err := os.Lstat(f.LogFile)
	return errors.Is(err, fs.ErrNotExist) && f.pid() == 0
}

// findEngine fills f in with the engine that is meant by what was given: a known one
// that it fits; with nothing given, the one that DOCKER_HOST or -H names; else the
// machine's own if it runs, the only other one that runs, or the one started last.
// It returns which others run.
func (a *app) findEngine(f *engineFlags) (others []engineFlags, err error) {
	known, err := a.loadEngines()
	if err != nil {
		return nil, err
	}
	if err := f.absolute(); err != nil {
		return nil, err
	}
	slices.Reverse(known.Engines) // the last start counts most
	given := *f
	if given == (engineFlags{}) {
		given.Socket = a.namedSocket()
	}
	if given != (engineFlags{}) {
		if i := slices.IndexFunc(known.Engines, given.fits); i >= 0 {
			*f = known.Engines[i]
			return nil, nil
		}
		if *f != (engineFlags{}) {
			return nil, f.resolve()
		}
	}
	var own engineFlags
	if err := own.resolve(); err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(known.Engines, own.sameAs); i >= 0 {
		own = known.Engines[i]
	}
	var running []engineFlags
	for _, k := range known.Engines {
		if !k.sameAs(own) && k.pid() != 0 {
			running = append(running, k)
		}
	}
	switch {
	case own.pid() != 0:
		*f = own
		return running, nil
	case len(running) == 1:
		*f = running[0]
	case len(running) > 1:
		return nil, fmt.Errorf("several engines are running, name one of them: %s", strings.Join(asOptions(running), ", "))
	case len(known.Engines) > 0:
		*f = known.Engines[0]
	default:
		*f = own
	}
	return nil, nil
}

// namedSocket is the Unix socket that -H or DOCKER_HOST names, if one does.
func (a *app) namedSocket() string {
	host := os.Getenv("DOCKER_HOST")
	if len(a.globals.Hosts) > 0 {
		host = a.globals.Hosts[0]
	}
	path, ok := strings.CutPrefix(host, "unix://")
	if !ok {
		return ""
	}
	return path
}

// fits says whether k has all that f gives.
func (f engineFlags) fits(k engineFlags) bool {
	same := func(given, have string) bool { return given == "" || given == have }
	return same(f.DataRoot, k.DataRoot) && same(f.ExecRoot, k.ExecRoot) && same(f.Socket, k.Socket) && same(f.PIDFile, k.PIDFile) && same(f.LogFile, k.LogFile)
}

func asOptions(engines []engineFlags) []string {
	list := make([]string, len(engines))
	for i, f := range engines {
		list[i] = "--socket " + f.Socket
	}
	return list
}
