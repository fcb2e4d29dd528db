package logs

import (
	"os"
	"sync"
	"sync/atomic"
)

// Bell tells those who follow a container's log when its writer has written, and keeps for them the files that are rotated
// away before they have read them. It works in memory, as the engine that reads a log is the one that writes it: the kernel
// gives a user 128 instances of inotify, which all programs share. The zero Bell is ready; it may be used concurrently, and
// over all runs of the container.
//
// The log's files are numbered in the order in which they are written.
type Bell struct {
	listening atomic.Int32 // how many followers there are, so that a writer without any is held up by nothing

	mu        sync.Mutex
	followers map[*follower]struct{}
	rotated   uint64     // how many files were; the one that is being written has the next number
	writing   uint64     // its inode number, 0 while no writer has it open
	kept      []keptFile // the last rotated files, the oldest first, as far as a follower has not read them
}

// keptFile is a file that a Bell keeps.
type keptFile struct {
	*os.File
	size       int64
	inode      uint64
	compressed uint64 // the inode number of its compressed form, 0 if there is none yet
}

// hold bounds what a Bell keeps, so that a follower that does not read, or reads less than is written, takes neither the
// disk nor the engine's descriptors.
type hold struct {
	files int
	bytes int64
}

const (
	// leastHeld is what is kept in bytes of a log that may have less: a follower that waits for a processor for a
	// moment is to lose nothing.
	leastHeld = 32 << 20
	// leastHeldFiles is in how many files.
	leastHeldFiles = 256
)

// held is how much is kept for the followers of a log with these options: twice what the log may have itself. Half of it
// has a name still, so that followers make a log take the double at most.
func (o options) held() hold {
	return hold{max(2*o.maxFile, leastHeldFiles), max(2*int64(o.maxFile)*o.maxSize, leastHeld)}
}

// ring wakes all followers. One that is awake looks once more.
func (b *Bell) ring() {
	if b == nil || b.listening.Load() == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for f := range b.followers {
		select {
		case f.changed <- struct{}{}:
		default:
		}
	}
}

// opened tells which file is written from now on; 0 if none is.
func (b *Bell) opened(inode uint64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.writing = inode
}

// rotate takes over the file that was written until now, of size bytes. Its name must be another one already, or gone,
// and the next file not made.
func (b *Bell) rotate(f *os.File, size int64, most hold) error {
	if b == nil {
		return f.Close()
	}
	b.mu.Lock()
	b.kept = append(b.kept, keptFile{File: f, size: size, inode: b.writing})
	b.rotated++
	b.writing = 0
	n, bytes := 0, int64(0)
	for n < len(b.kept) && n < most.files && bytes+b.kept[len(b.kept)-1-n].size <= most.bytes {
		bytes += b.kept[len(b.kept)-1-n].size
		n++
	}
	gone := b.forget(max(b.first()+uint64(len(b.kept)-n), b.wanted()))
	b.mu.Unlock()
	return closeAll(gone)
}

// compressed tells that a rotated file is about to get a compressed form.
func (b *Bell) compressed(from, to uint64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.kept {
		if b.kept[i].inode == from {
			b.kept[i].compressed = to
		}
	}
}

// first is the number of the oldest file that is kept; b.mu is held, as for those below.
func (b *Bell) first() uint64 { return b.rotated + 1 - uint64(len(b.kept)) }

// wanted is the number of the oldest file that a follower has not read.
func (b *Bell) wanted() uint64 {
	oldest := b.rotated + 1
	for f := range b.followers {
		oldest = min(oldest, f.at)
	}
	return oldest
}

// forget gives up the files before the given number, for the caller to close.
func (b *Bell) forget(number uint64) []keptFile {
	if number <= b.first() {
		return nil
	}
	n := number - b.first()
	gone := b.kept[:n]
	if b.kept = b.kept[n:]; len(b.kept) == 0 {
		b.kept = nil
	}
	return gone
}

// closeAll returns the error of the last one, which is the one that was just written.
func closeAll(files []keptFile) (err error) {
	for _, f := range files {
		err = f.Close()
	}
	return err
}

// follower is somebody's place in a log that is being written.
type follower struct {
	b       *Bell
	changed chan struct{} // has a value when something was written since it was last received from
	at      uint64        // the number of the file to read; b.mu guards it
}

// listen adds a follower, who begins with the file that is being written. What was written to it before listen is there
// for a first look.
func (b *Bell) listen() *follower {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := &follower{b: b, changed: make(chan struct{}, 1), at: b.rotated + 1}
	if b.followers == nil {
		b.followers = map[*follower]struct{}{}
	}
	b.followers[f] = struct{}{}
	b.listening.Add(1)
	return f
}

// stop ends what listen began.
func (f *follower) stop() {
	b := f.b
	b.mu.Lock()
	delete(b.followers, f)
	b.listening.Add(-1)
	gone := b.forget(b.wanted())
	b.mu.Unlock()
	_ = closeAll(gone)
}

// complete says whether nothing more is written to the file at which the follower is.
func (f *follower) complete() bool {
	f.b.mu.Lock()
	defer f.b.mu.Unlock()
	return f.at <= f.b.rotated
}

// file is the file at which the follower is, nil if it is still being written and so found by its name. lost says that it
// is given up by now, and the follower at the oldest one that is kept.
func (f *follower) file() (kept *os.File, lost bool) {
	b := f.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if first := b.first(); f.at < first {
		f.at, lost = first, true
	}
	if f.at > b.rotated {
		return nil, lost
	}
	return b.kept[f.at-b.first()].File, lost
}

// next goes to the next file; the one before is read.
func (f *follower) next() {
	b := f.b
	b.mu.Lock()
	f.at++
	gone := b.forget(b.wanted())
	b.mu.Unlock()
	_ = closeAll(gone)
}

// Where a file that was opened by its name belongs.
type placement int

const (
	before placement = iota // it is older than the follower's
	here                    // it is the follower's
	behind                  // it comes after it
)

// place says where a file belongs. Its inode number tells, which no other file has while it and those that are kept are
// open; compressed forms, which are not, may have had one that another has now, so that the last is meant.
func (f *follower) place(l *logFile) placement {
	b := f.b
	b.mu.Lock()
	defer b.mu.Unlock()
	number := uint64(0)
	for i, kept := range b.kept {
		if l.z == nil && kept.inode == l.ino || l.z != nil && kept.compressed == l.ino {
			number = b.first() + uint64(i)
		}
	}
	if number == 0 && (l.current || l.z == nil && l.ino == b.writing) {
		number = b.rotated + 1 // no writer has it open, or has told of it yet
	}
	switch {
	case number < f.at:
		return before
	case number == f.at:
		return here
	}
	return behind
}
