package systemd

import (
	"context"
	"fmt"
	"os"
	"path"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/cleatlabs/cleat/internal/failure"
)

const (
	suffix = ".slice"
	// inSlice is the group that is made in a slice for containers. systemd takes controllers that none of its own units
	// needs away from a slice's children; it cannot while a child hands them on, as this one does.
	inSlice = "cleat"
	// longestUnit is systemd's limit of a unit's name, in bytes.
	longestUnit = 255
	// busPatience bounds how long the engine's start waits for a bus.
	busPatience = 2 * time.Second
)

// Booted says whether systemd manages the machine, or this container, and with that the control groups of slices.
// A bus that DBUS_SYSTEM_BUS_ADDRESS names says who it serves: one can be there without systemd.
func Booted() bool {
	if address := os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"); address != "" {
		return onBus(address)
	}
	_, err := os.Stat("/run/systemd/system") // as sd_booted(3)
	return err == nil
}

// onBus says whether systemd is on the bus at an address.
func onBus(address string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), busPatience)
	defer cancel()
	conn, err := dbus.Connect(address, dbus.WithContext(ctx))
	if err != nil {
		return false
	}
	defer conn.Close()
	var there bool
	err = conn.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.NameHasOwner", 0, name).Store(&there)
	return err == nil && there
}

// IsSlice says whether a control group's parent is named as a slice, instead of by a path.
func IsSlice(parent string) bool {
	return strings.HasSuffix(parent, suffix) && !strings.Contains(parent, "/")
}

// GroupOfSlice is the control group for containers in a slice: slices lie in those that their names begin with, so
// /a.slice/a-b.slice/cleat for a-b.slice. A name that systemd would not take is errdefs.ErrInvalidArgument.
func GroupOfSlice(slice string) (string, error) {
	name := strings.TrimSuffix(slice, suffix)
	bad := !IsSlice(slice) || len(slice) > longestUnit || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\") != ""
	group, prefix := "/", ""
	for _, part := range strings.Split(name, "-") {
		bad = bad || part == ""
		prefix += part
		group = path.Join(group, prefix+suffix)
		prefix += "-"
	}
	if bad {
		return "", failure.Invalid(`%q: cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"`, slice)
	}
	return path.Join(group, inSlice), nil
}

// StartSlice has systemd start a slice, and with it those that it lies in, so that what their units limit is limited. One
// without a unit has no limits. It returns when they are there.
func StartSlice(ctx context.Context, slice string) error {
	conn, err := dial(ctx)
	if conn == nil && err == nil {
		err = failure.Unavailable("systemd does not listen at %s", private)
	}
	if err != nil {
		return fmt.Errorf("start of %s: %w", slice, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	// systemd itself tells whoever is connected; a bus those that have asked.
	if os.Getenv("DBUS_SYSTEM_BUS_ADDRESS") != "" {
		if err := conn.AddMatchSignalContext(ctx, dbus.WithMatchInterface(name+".Manager"), dbus.WithMatchMember("JobRemoved")); err != nil {
			return fmt.Errorf("start of %s: %w", slice, err)
		}
	}
	ended := make(chan *dbus.Signal, 64)
	conn.Signal(ended)
	var job dbus.ObjectPath
	if err := conn.Object(name, object).CallWithContext(ctx, name+".Manager.StartUnit", dbus.FlagNoAutoStart, slice, "replace").Store(&job); err != nil {
		return failure.Unavailable("systemd does not start %s: %w", slice, err)
	}
	for {
		select {
		case s, ok := <-ended:
			if !ok {
				return fmt.Errorf("start of %s: systemd has closed the connection", slice)
			}
			if result, mine := resultOf(s, job); mine && result != "done" {
				return failure.Unavailable("systemd could not start %s: %s (systemctl status %s says more)", slice, result, slice)
			} else if mine {
				return nil
			}
		case <-ctx.Done():
			return fmt.Errorf("start of %s: %w", slice, ctx.Err())
		}
	}
}

// resultOf reads a signal about the end of a job.
func resultOf(s *dbus.Signal, job dbus.ObjectPath) (result string, mine bool) {
	var (
		id   uint32
		path dbus.ObjectPath
		unit string
	)
	if s.Name != name+".Manager.JobRemoved" || dbus.Store(s.Body, &id, &path, &unit, &result) != nil {
		return "", false
	}
	return result, path == job
}
