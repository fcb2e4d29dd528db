// Package systemd asks the host's service manager about the machine, and to start the slices that containers are to lie in.
//
// It promises to change nothing else, to wait for no answer for longer than its caller's context, and to need neither systemd nor a
// bus: where there is none, the machine is not going down as far as anybody knows.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/godbus/dbus/v5"
)

const (
	// private is where systemd itself listens for root, as systemctl finds it: the system bus may have ended already when a
	// service is stopped for a shutdown.
	private = "/run/systemd/private"
	name    = "org.freedesktop.systemd1"
	object  = "/org/freedesktop/systemd1"
	state   = name + ".Manager.SystemState"
)

// ShuttingDown says whether the machine is on its way down (power off, reboot, kexec). The bus of
// DBUS_SYSTEM_BUS_ADDRESS is asked if that is set.
func ShuttingDown(ctx context.Context) (bool, error) {
	conn, err := dial(ctx)
	if conn == nil || err != nil {
		return false, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	var v dbus.Variant
	err = conn.Object(name, object).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", dbus.FlagNoAutoStart, name+".Manager", "SystemState").Store(&v)
	if err != nil {
		return false, fmt.Errorf("systemd's %s: %w", state, err)
	}
	s, ok := v.Value().(string)
	if !ok {
		return false, fmt.Errorf("systemd's %s is %v", state, v)
	}
	return s == "stopping", nil
}

// dial connects to systemd; nil without an error means that there is none.
func dial(ctx context.Context) (*dbus.Conn, error) {
	if address := os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"); address != "" {
		conn, err := dbus.Connect(address, dbus.WithContext(ctx))
		if err != nil {
			return nil, fmt.Errorf("D-Bus at %s: %w", address, err)
		}
		return conn, nil
	}
	if _, err := os.Stat(private); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
		return nil, err
	}
	conn, err := dbus.Dial("unix:path="+private, dbus.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("systemd at %s: %w", private, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	// It is no bus: there is nobody to say hello to.
	if err := conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Getuid()))}); err != nil {
		conn.Close()
		return nil, fmt.Errorf("systemd at %s: %w", private, err)
	}
	return conn, nil
}
