package stdio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	stateFile   = "log.state"
	stateMagic  = 0x31534c43 // "CLS1"; a later layout gets another magic
	stateSize   = 56
	statePrefix = stateSize - 4
)

// progress is what the state file records after each batch: how far each
// journal is in the log, and where the log ended then.
type progress struct {
	pos  [2]int64 // by stream: Stdout 0, Stderr 1
	mark Mark
}

var errNoState = errors.New("no complete state record")

func (g *progress) encode() [stateSize]byte {
	var b [stateSize]byte
	le := binary.LittleEndian
	le.PutUint32(b[0:], stateMagic)
	le.PutUint64(b[4:], uint64(g.pos[0]))
	le.PutUint64(b[12:], uint64(g.pos[1]))
	le.PutUint64(b[20:], g.mark.File)
	le.PutUint64(b[28:], uint64(g.mark.Offset))
	le.PutUint64(b[36:], uint64(g.mark.Open[0]))
	le.PutUint64(b[44:], uint64(g.mark.Open[1]))
	le.PutUint32(b[statePrefix:], crc32.ChecksumIEEE(b[:statePrefix]))
	return b
}

func (g *progress) decode(b []byte) error {
	le := binary.LittleEndian
	if len(b) < stateSize || le.Uint32(b) != stateMagic || le.Uint32(b[statePrefix:]) != crc32.ChecksumIEEE(b[:statePrefix]) {
		return errNoState
	}
	g.pos[0] = int64(le.Uint64(b[4:]))
	g.pos[1] = int64(le.Uint64(b[12:]))
	g.mark.File = le.Uint64(b[20:])
	g.mark.Offset = int64(le.Uint64(b[28:]))
	g.mark.Open[0] = int64(le.Uint64(b[36:]))
	g.mark.Open[1] = int64(le.Uint64(b[44:]))
	return nil
}

// stateStore is the open state file. Its single record is rewritten with one
// pwrite: the kernel copies it into one page without looking at signals, so a
// SIGKILL leaves the old record or the new one, never a mixture.
type stateStore struct{ fd int }

func openState(dir string, create bool) (stateStore, error) {
	flags := unix.O_RDWR | unix.O_CLOEXEC | unix.O_NOFOLLOW
	if create {
		flags |= unix.O_CREAT
	}
	path := filepath.Join(dir, stateFile)
	fd, err := openRetry(path, flags)
	if err != nil {
		return stateStore{-1}, fmt.Errorf("open %s: %w", path, err)
	}
	return stateStore{fd}, nil
}

func (s stateStore) load(g *progress) error {
	var b [stateSize]byte
	n, err := unix.Pread(s.fd, b[:], 0)
	if err != nil {
		return fmt.Errorf("read %s: %w", stateFile, err)
	}
	return g.decode(b[:n])
}

func (s stateStore) save(g *progress) error {
	b := g.encode()
	for {
		n, err := unix.Pwrite(s.fd, b[:], 0)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("write %s: %w", stateFile, err)
		case n != len(b):
			return fmt.Errorf("write %s: short write of %d bytes", stateFile, n)
		}
		return nil
	}
}

func (s stateStore) close() {
	if s.fd >= 0 {
		_ = unix.Close(s.fd)
	}
}

func openRetry(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags, 0o600)
		if err != unix.EINTR {
			return fd, err
		}
	}
}
