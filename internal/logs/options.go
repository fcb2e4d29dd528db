package logs

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/logsend"
)

// The drivers.
const (
	driverJSON  = "json-file"
	driverLocal = "local"
	driverNone  = "none"

	defaultMaxSize = 20_000_000
	defaultMaxFile = 5
	unlimited      = -1
)

// Drivers lists the drivers' names in alphabetical order.
func Drivers() []string {
	all := append(logsend.Drivers(), driverJSON, driverLocal, driverNone)
	slices.Sort(all)
	return all
}

// Stores tells whether the driver keeps what it is given in a local file. Those that
// send it elsewhere do: it is where the lines wait, and what can be read back.
func Stores(driver string) bool { return driver != driverNone }

// Sends tells whether the driver's lines go to a log server.
func Sends(driver string) bool { return logsend.Known(driver) }

// Readable tells whether the log can be read back.
func Readable(driver string, opts map[string]string) bool {
	if !Stores(driver) {
		return false
	}
	disabled, err := strconv.ParseBool(opts[optCacheDisabled])
	return !Sends(driver) || err != nil || !disabled
}

// Private tells whether the driver's files are its own business: Docker tells nobody
// where those of others than json-file lie.
func Private(driver string) bool { return driver == driverLocal || Sends(driver) }

// Options of all drivers. Those of the cache are about the local file of drivers that
// send; with others they are nobody's, as with Docker, which copies them from its
// defaults to every container.
const (
	optMode          = "mode"
	optBuffer        = "max-buffer-size"
	cachePrefix      = "cache-"
	optCacheDisabled = cachePrefix + "disabled"
)

// cacheOptions are the other options of the cache, without the prefix.
func cacheOptions() []string { return []string{"compress", "max-file", "max-size"} }

// InheritedOptions are those of the engine's defaults that also hold for containers
// with another driver than the default one.
func InheritedOptions() []string {
	names := []string{optCacheDisabled}
	for _, name := range cacheOptions() {
		names = append(names, cachePrefix+name)
	}
	return names
}

// fileOptions are the options of json-file and local besides those of all drivers.
func fileOptions() []string {
	return []string{"compress", "env", "env-regex", "labels", "labels-regex", "max-file", "max-size", "tag"}
}

// options are the parsed driver options.
type options struct {
	maxSize  int64 // bytes; unlimited for no rotation
	maxFile  int   // how many files, with the current one
	compress bool
}

// Validate checks driver and options; the error names the option.
func Validate(driver string, opts map[string]string) error {
	if driver == "" {
		driver = driverJSON
	}
	if !slices.Contains(Drivers(), driver) {
		return failure.Invalid("logger: no log driver named '%s' is registered: choose one of %s", driver, strings.Join(Drivers(), ", "))
	}
	if driver == driverNone {
		return nil // Docker looks at none of its options
	}
	if err := checkCommon(opts); err != nil {
		return err
	}
	if _, err := parseOptions(driver, opts); err != nil {
		return err
	}
	c := Config{Driver: driver, Opts: opts}
	if Sends(driver) {
		src, err := Source(c)
		if err != nil {
			return err
		}
		_, err = logsend.New(driver, SendOptions(c), src)
		return err
	}
	_, err := attributes(c)
	return err
}

// checkCommon checks the options of all drivers. What they are for is had in any case:
// output never waits for a log server, as the lines wait in the local file, where they
// survive, too, what mode=blocking is to save them from; and of what waits next to
// nothing is in memory, which max-buffer-size is to bound.
func checkCommon(opts map[string]string) error {
	switch opts[optMode] {
	case "", "blocking", "non-blocking":
	default:
		return failure.Invalid("logger: logging mode not supported: %s: log opt mode is blocking or non-blocking", opts[optMode])
	}
	if s, ok := opts[optBuffer]; ok {
		if opts[optMode] != "non-blocking" {
			return failure.Invalid("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
		}
		if n, err := units.RAMInBytes(s); err != nil || n <= 0 {
			return failure.Invalid("error parsing option max-buffer-size: %q is not a size such as 4m", s)
		}
	}
	if v := opts[optCacheDisabled]; v != "" {
		if _, err := strconv.ParseBool(v); err != nil {
			return failure.Invalid("invalid value for option %s: %s: give true or false", optCacheDisabled, v)
		}
	}
	return nil
}

// isCommon tells whether an option is one of all drivers.
func isCommon(name string) bool {
	return name == optMode || name == optBuffer || slices.Contains(InheritedOptions(), name)
}

// driverOptions are the options without those of all drivers.
func driverOptions(opts map[string]string) map[string]string {
	own := maps.Clone(opts)
	maps.DeleteFunc(own, func(name, _ string) bool { return isCommon(name) })
	return own
}

// parseOptions are the options of the local file.
func parseOptions(driver string, opts map[string]string) (options, error) {
	o := options{maxSize: defaultMaxSize, maxFile: defaultMaxFile}
	if driver == "" {
		driver = driverJSON
	}
	file, prefix := driverOptions(opts), ""
	if Sends(driver) {
		file, prefix = map[string]string{}, cachePrefix
		for _, name := range cacheOptions() {
			if v, ok := opts[cachePrefix+name]; ok {
				file[name] = v
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(file)) {
		if !slices.Contains(fileOptions(), name) {
			return o, failure.Invalid("unknown log opt '%s' for %s log driver: it knows %s", name, driver, strings.Join(fileOptions(), ", "))
		}
		if err := o.set(prefix, name, file[name]); err != nil {
			return o, err
		}
	}
	if driver != driverJSON && file["compress"] == "" {
		// Docker's local, and what it keeps of what it sends, is compressed when it is
		// rotated away. With nothing to rotate there is nothing to compress, which is
		// no mistake of the user's.
		o.compress = o.maxFile > 1 && o.maxSize != unlimited
	}
	if o.compress && (o.maxFile == 1 || o.maxSize == unlimited) {
		return o, failure.Invalid("log opt %scompress cannot be true when max-file is less than 2 or max-size is unlimited", prefix)
	}
	return o, nil
}

// set takes an option of the local file; prefix is what its name has before it.
func (o *options) set(prefix, name, value string) (err error) {
	switch name {
	case "max-size":
		if value == "-1" {
			o.maxSize = unlimited
			return nil
		}
		o.maxSize, err = units.FromHumanSize(value)
		if err != nil || o.maxSize <= 0 {
			return failure.Invalid("log opt %smax-size=%s: give a positive number with a unit such as 10k, 20m or 1g, or -1 for no limit", prefix, value)
		}
	case "max-file":
		o.maxFile, err = strconv.Atoi(value)
		if err != nil || o.maxFile < 1 {
			return failure.Invalid("log opt %smax-file=%s: give a number of at least 1", prefix, value)
		}
	case "compress":
		if o.compress, err = strconv.ParseBool(value); err != nil {
			return failure.Invalid("log opt %scompress=%s: give true or false", prefix, value)
		}
	case "labels-regex", "env-regex":
		if _, err := regexp.Compile(value); err != nil {
			return failure.Invalid("log opt %s: %w", name, err)
		}
	}
	return nil
}

// renderAttrs is the attrs object as it stands in the log, with its key and a
// comma; empty without attributes.
func renderAttrs(c Config) ([]byte, error) {
	attrs, err := attributes(c)
	if err != nil || attrs == nil {
		return nil, err
	}
	b, err := json.Marshal(attrs)
	if err != nil {
		return nil, fmt.Errorf("encode the log's attributes: %w", err)
	}
	return append(append([]byte(`"attrs":`), b...), ','), nil
}
