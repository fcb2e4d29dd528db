// Package firewalld puts links of the engine into a zone of the host's firewalld, over
// D-Bus: firewalld rejects what is forwarded from a link that it does not know, and no
// rule of another table can overrule that.
//
// It promises to start nothing (a firewalld that does not run stays so), to change only
// what firewalld has in memory (a file of its configuration is the administrator's), to
// leave a link alone that somebody put into a zone, and to tell when firewalld has
// forgotten what it was told, because it was reloaded or started.
package firewalld

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// Zone is where links go. It accepts everything: what may reach a container is decided
// by the engine's own rules, behind this.
const Zone = "trusted"

// systemBus is where the system's bus listens if the environment does not say so.
const systemBus = "/run/dbus/system_bus_socket"

const (
	name     = "org.fedoraproject.FirewallD1"
	object   = "/org/fedoraproject/FirewallD1"
	zones    = name + ".zone"
	bus      = "org.freedesktop.DBus"
	patience = 5 * time.Second // of one call
)

// ErrNoBus says that the host has no system bus, and so no firewalld to speak to.
var ErrNoBus = errors.New("the host has no D-Bus system bus")

// Client is a connection to the system bus. Its methods are safe for concurrent use.
type Client struct {
	conn    *dbus.Conn
	signals chan *dbus.Signal
}

// Dial connects to the system bus: that of DBUS_SYSTEM_BUS_ADDRESS, or the usual one.
func Dial(ctx context.Context) (*Client, error) {
	address := os.Getenv("DBUS_SYSTEM_BUS_ADDRESS")
	if address == "" {
		if _, err := os.Stat(systemBus); err != nil {
			return nil, ErrNoBus
		}
		address = "unix:path=" + systemBus
	}
	conn, err := dbus.Dial(address, dbus.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrNoBus, address, err)
	}
	c := &Client{conn: conn, signals: make(chan *dbus.Signal, 16)}
	if err := c.open(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("D-Bus at %s: %w", address, err)
	}
	return c, nil
}

func (c *Client) open(ctx context.Context) error {
	// A bus that accepts and says nothing must not hold us up.
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	defer stop()
	if err := c.conn.Auth(nil); err != nil {
		return err
	}
	if err := c.conn.Hello(); err != nil {
		return err
	}
	c.conn.Signal(c.signals)
	for _, m := range [][]dbus.MatchOption{
		{dbus.WithMatchSender(name), dbus.WithMatchInterface(name), dbus.WithMatchMember("Reloaded")},
		{dbus.WithMatchSender(bus), dbus.WithMatchInterface(bus), dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, name)},
	} {
		if err := c.conn.AddMatchSignalContext(ctx, m...); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the connection and a waiting Await.
func (c *Client) Close() error { return c.conn.Close() }

// Await returns when firewalld has started or was reloaded, so that every link has to join again, or when something
// comes from due. Not open, the connection or ctx has ended.
func (c *Client) Await(ctx context.Context, due <-chan struct{}) (forgotten, open bool) {
	for {
		select {
		case s, ok := <-c.signals:
			if !ok {
				return false, false
			}
			if started(s) {
				return true, true
			}
		case <-due:
			return false, true
		case <-c.conn.Context().Done():
			return false, false
		case <-ctx.Done():
			return false, false
		}
	}
}

// started says whether a signal is about a firewalld that knows nothing of us.
func started(s *dbus.Signal) bool {
	if s.Name == name+".Reloaded" {
		return true
	}
	if s.Name != bus+".NameOwnerChanged" || len(s.Body) != 3 {
		return false
	}
	owner, ok := s.Body[2].(string)
	return ok && owner != ""
}

// call calls a method of firewalld's zones, without starting firewalld.
func (c *Client) call(ctx context.Context, method string, args ...any) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var result string
	err := c.conn.Object(name, object).CallWithContext(ctx, zones+"."+method, dbus.FlagNoAutoStart, args...).Store(&result)
	if err != nil {
		return "", fmt.Errorf("firewalld: %w", err)
	}
	return result, nil
}

// Running asks the bus whether firewalld is there; an error is the bus's own.
func (c *Client) Running(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var running bool
	if err := c.conn.BusObject().CallWithContext(ctx, bus+".NameHasOwner", 0, name).Store(&running); err != nil {
		return false, fmt.Errorf("D-Bus: %w", err)
	}
	return running, nil
}

// Join puts a link into Zone, unless it is in a zone already or firewalld does not run.
func (c *Client) Join(ctx context.Context, link string) error {
	if running, err := c.Running(ctx); err != nil || !running {
		return err
	}
	zone, err := c.call(ctx, "getZoneOfInterface", link)
	if err != nil || zone != "" {
		return err
	}
	if _, err = c.call(ctx, "addInterface", Zone, link); err != nil && !strings.Contains(err.Error(), "ALREADY_") {
		return err
	}
	return nil
}

// Leave takes a link out of Zone. One that is not in it is no error.
func (c *Client) Leave(ctx context.Context, link string) error {
	if running, err := c.Running(ctx); err != nil || !running {
		return err
	}
	if _, err := c.call(ctx, "removeInterface", Zone, link); err != nil &&
		!strings.Contains(err.Error(), "NOT_ENABLED") && !strings.Contains(err.Error(), "UNKNOWN_INTERFACE") && !strings.Contains(err.Error(), "ZONE_CONFLICT") {
		return err
	}
	return nil
}
