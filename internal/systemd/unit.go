package systemd

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"

	"github.com/cleatlabs/cleat/internal/failure"
)

// CommandLine is what a service's ExecStart runs, the program first, with what drop-ins have made of it. One with
// variables, which only systemd knows how to fill in, is errdefs.ErrInvalidArgument.
func CommandLine(ctx context.Context, unit string) ([]string, error) {
	conn, err := dial(ctx)
	if conn == nil && err == nil {
		err = failure.Unavailable("systemd does not listen at %s", private)
	}
	if err != nil {
		return nil, fmt.Errorf("the flags of %s: %w", unit, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	var (
		loaded dbus.ObjectPath
		v      dbus.Variant
	)
	// It may have been unloaded when it was stopped.
	err = conn.Object(name, object).CallWithContext(ctx, name+".Manager.LoadUnit", dbus.FlagNoAutoStart, unit).Store(&loaded)
	if err == nil {
		err = conn.Object(name, loaded).CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", dbus.FlagNoAutoStart, name+".Service", "ExecStart").Store(&v)
	}
	if err != nil {
		return nil, fmt.Errorf("the flags of %s: %w", unit, err)
	}
	args, ok := firstCommand(v)
	switch {
	case !ok:
		return nil, failure.NotFound("%s has no ExecStart", unit)
	case slices.ContainsFunc(args, func(a string) bool { return strings.Contains(a, "$") }):
		return nil, failure.Invalid("the ExecStart of %s has variables: %s", unit, strings.Join(args, " "))
	}
	return args, nil
}

// firstCommand reads a property of the type a(sasbttttuii): program, arguments and more for each command.
func firstCommand(v dbus.Variant) (args []string, ok bool) {
	list, ok := v.Value().([][]any)
	if !ok || len(list) == 0 || len(list[0]) < 2 {
		return nil, false
	}
	args, ok = list[0][1].([]string)
	return args, ok && len(args) > 0
}
