package runtime

import (
	"context"
	"errors"

	"github.com/cleatlabs/cleat/internal/keeper"
	"github.com/cleatlabs/cleat/internal/record"
)

// A ReadyStart is a container's start up to where a keeper gets the program: all is looked up, opened and compiled, and
// no process is there yet. Exactly one of Start and Discard must be called, once.
type ReadyStart struct {
	b *builder
	l *starting
}

// Late is what a start may be told after Ready.
type Late struct {
	NetNS     int                       // the namespace of a Spec with LaterNetwork, borrowed
	Held      []int                     // as in the Spec
	Meanwhile func(keeper.Record) error // as in the Spec
}

// Ready does what Start does, as far as it needs no process; its errors are Start's, and leave nothing. The spec must
// not be changed any more, and what it lends must stay open until Start or Discard has returned. Its group may still
// be in the making.
func (r *Runtime) Ready(s *Spec) (x *ReadyStart, err error) {
	if err := s.check(); err != nil {
		return nil, errors.Join(err, s.Group.Discard())
	}
	b := &builder{plan: r.newPlan(), s: s, r: r, spareNet: -1, opener: -1}
	b.p = b.plan.p
	if s.NetNS == NewNetwork {
		b.takeNetwork()
	}
	if b.making = s.Group; b.making == nil {
		b.making = r.PrepareGroup(s.CgroupPath, s.Resources, s.Privileged)
	}
	x = &ReadyStart{b: b}
	if err := x.compile(); err != nil {
		defer x.refill()
		return nil, errors.Join(err, x.undo())
	}
	return x, nil
}

func (x *ReadyStart) compile() error {
	b := x.b
	s := b.s
	if s.TTY {
		var err error
		if b.tty, err = newTerminal(s.Rows, s.Cols); err != nil {
			return err
		}
	}
	std, err := openStreams(b.tty, s.OpenStdin, int(b.r.null.Fd()))
	if err != nil {
		return err
	}
	x.l = &starting{
		r: b.r, plan: b.plan, std: std, rec: keeper.Record{ID: s.ID, TTY: s.TTY, StdinOpen: s.OpenStdin && !s.StdinOnce && !s.TTY},
		command: s.Args[0], root: s.RootFD, mounts: s.Mounts, group: b.making, ownMounts: true, meanwhile: b.meanwhile,
	}
	if err := b.arrange(); err != nil {
		std.closeAll()
		return err
	}
	if err := b.build(); err != nil {
		std.closeAll()
		return err
	}
	return nil
}

// Start starts the process, and returns as Runtime.Start does.
func (x *ReadyStart) Start(ctx context.Context, late Late) (*Process, error) {
	b, l := x.b, x.l
	defer x.refill()
	l.held, l.rec.Held, b.late = late.Held, len(late.Held), late.Meanwhile
	b.fillNetwork(late.NetNS)
	if err := b.fillGroup(); err != nil {
		l.std.closeAll()
		return nil, errors.Join(err, x.undo())
	}
	record.Failpoint("runtime.start.after-group")
	p, err := l.run(ctx)
	if err != nil {
		return nil, errors.Join(err, x.undo())
	}
	if b.making != nil {
		b.making.closeFDs()
	}
	b.leaveNetwork(p)
	b.close()
	return p, nil
}

// Discard leaves nothing of the start, its group included.
func (x *ReadyStart) Discard() error {
	defer x.refill()
	x.l.std.closeAll()
	return x.undo()
}

func (x *ReadyStart) undo() error {
	err := x.b.making.Discard()
	x.b.close()
	return err
}

// refill has what was taken of spares replaced, when nobody waits any more.
func (x *ReadyStart) refill() {
	if x.b.spareDev {
		x.b.r.devs.Refill()
	}
	if x.b.s.NetNS == NewNetwork {
		x.b.r.networks.Refill()
	}
}
