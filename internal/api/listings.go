package api

import (
	"context"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// gapLimit is how old a list may be that events go on from: more than the call that follows at once takes on a machine
// with too much to do.
const gapLimit = 5 * time.Second

// listings are the latest lists of containers with some label. A process that lists these, and then listens for events
// of that label, takes it that it sees all that happens; but what happens between the two calls is in neither answer.
// Docker Compose's attached `up` is one. A program that ended just then left it waiting without end, and containers
// start and end here in the time that two calls take.
type listings struct {
	mu     sync.Mutex
	recent [16]listing
	next   int
}

type listing struct {
	pid    int32
	labels []string
	at     time.Time
}

// note remembers that a process is about to be shown what has all of these labels.
func (l *listings) note(pid int32, labels []string) {
	if pid == 0 || len(labels) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recent[l.next] = listing{pid, labels, time.Now()}
	l.next = (l.next + 1) % len(l.recent)
}

// latest is when a process was last shown what has these labels, and perhaps others: zero if it was not just now.
func (l *listings) latest(pid int32, labels []string) (at time.Time) {
	if pid == 0 || len(labels) == 0 {
		return at
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, one := range l.recent {
		other := func(label string) bool { return !slices.Contains(one.labels, label) }
		if one.pid == pid && one.at.After(at) && time.Since(one.at) <= gapLimit && !slices.ContainsFunc(labels, other) {
			at = one.at
		}
	}
	return at
}

// peerOf is the process at the other end of the Unix socket that a request came by, or 0.
func peerOf(ctx context.Context) int32 {
	conn, ok := ctx.Value(connKey{}).(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	var pid int32
	_ = raw.Control(func(fd uintptr) {
		if peer, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = peer.Pid
		}
	})
	return pid
}
