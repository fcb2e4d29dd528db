package assemble

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	apievents "github.com/moby/moby/api/types/events"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/engine"
)

// reloadable are the flags that take effect on SIGHUP; all others wait for the next start.
var reloadable = []string{
	"debug", "log-level", "label", "registry-mirror", "insecure-registry", "max-concurrent-downloads", "max-concurrent-uploads", "max-download-attempts", "shutdown-timeout",
	"default-stop-timeout", "live-restore",
}

// reload reads the configuration file anew and puts what can change in force. All of it comes into force or
// nothing: an error, which is logged, leaves the engine as it was.
func (s *services) reload() {
	notify("RELOADING=1\nMONOTONIC_USEC=" + monotonicMicroseconds())
	defer notify("READY=1")
	next, err := s.config.reread()
	if err == nil {
		err = s.adjust(next)
	}
	if err != nil {
		s.log.Error("the settings stay as they were: " + err.Error())
		return
	}
	s.bus.Publish(apievents.Message{
		Type: apievents.DaemonEventType, Action: apievents.ActionReload,
		Actor: apievents.Actor{ID: s.engine.ID(), Attributes: s.reloaded()},
	})
	s.log.Info("the settings have been read anew", "file", s.config.File)
}

// reread returns the config that the same command line makes with the file as it is now.
func (c *Config) reread() (*Config, error) {
	if c.given == nil {
		return nil, errors.New("this engine was started without a command line")
	}
	return c.with(c.arguments())
}

// adjust puts the reloadable part of next in force, and warns of what has to wait.
func (s *services) adjust(next *Config) error {
	if err := s.registry.SetRules(next.Mirrors, next.Insecure); err != nil {
		return err // the old rules are still in force
	}
	level, err := next.level()
	if err != nil {
		return errors.Join(err, s.registry.SetRules(s.config.Mirrors, s.config.Insecure))
	}
	// Nothing below can fail.
	if waits := waiting(&s.config, next); len(waits) > 0 {
		s.log.Warn("these settings take effect when the engine starts anew, which containers do not notice", "settings", strings.Join(waits, ", "))
	}
	s.logLevel.Set(level)
	s.images.SetMaxDownloads(next.MaxDownloads)
	s.images.SetMaxDownloadAttempts(next.MaxAttempts)
	s.images.SetMaxUploads(next.MaxUploads)
	c := &s.config
	c.Debug, c.LogLevel, c.Labels, c.Mirrors, c.Insecure = next.Debug, next.LogLevel, next.Labels, next.Mirrors, next.Insecure
	c.MaxAttempts = next.MaxAttempts
	c.MaxDownloads, c.MaxUploads, c.ShutdownTimeout, c.StopTimeout, c.Warnings = next.MaxDownloads, next.MaxUploads, next.ShutdownTimeout, next.StopTimeout, next.Warnings
	s.engine.Adjust(c.adjustable())
	return nil
}

// waiting names the settings that have changed and that need a new start.
func waiting(now, next *Config) []string {
	var out []string
	next.given.VisitAll(func(f *pflag.Flag) {
		before := now.given.Lookup(f.Name)
		if before == nil || slices.Contains(reloadable, f.Name) || slices.Equal(valuesOf(before), valuesOf(f)) {
			return
		}
		out = append(out, f.Name)
	})
	if !reflect.DeepEqual(now.builder, next.builder) {
		out = append(out, builderKey)
	}
	return out
}

// adjustable is the part of the config that the verbs follow.
func (c *Config) adjustable() engine.Adjustable {
	return engine.Adjustable{
		Debug: c.Debug, Labels: c.Labels, StopTimeout: time.Duration(c.StopTimeout) * time.Second,
		Mirrors: c.Mirrors, InsecureRegistries: c.Insecure, Warnings: c.Warnings,
	}
}

// reloaded are the attributes of the event, as dockerd has them.
func (s *services) reloaded() map[string]string {
	list := func(v []string) string {
		if v == nil {
			v = []string{}
		}
		b, err := json.Marshal(v)
		if err != nil {
			return "[]"
		}
		return string(b)
	}
	c := &s.config
	return map[string]string{
		"name": s.engine.Hostname(), "debug": strconv.FormatBool(c.Debug), "labels": list(c.Labels),
		"registry-mirrors": list(c.Mirrors), "insecure-registries": list(c.Insecure), "live-restore": "true",
		"max-concurrent-downloads": strconv.Itoa(c.MaxDownloads), "max-concurrent-uploads": strconv.Itoa(c.MaxUploads), "shutdown-timeout": strconv.Itoa(c.ShutdownTimeout),
		"max-download-attempts": strconv.Itoa(c.MaxAttempts), "default-stop-timeout": strconv.Itoa(c.StopTimeout),
	}
}

func monotonicMicroseconds() string {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil {
		return "0"
	}
	return fmt.Sprint(now.Nano() / 1000)
}
