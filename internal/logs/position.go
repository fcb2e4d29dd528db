package logs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"syscall"
)

// Position says how far a log has been read. The zero value is its beginning. A file
// is known by its inode number and the time of its first line, as numbers are given
// anew and compressing makes another file of it; the offset is one of the
// uncompressed text.
type Position struct {
	File   uint64
	First  int64 // Unix nanoseconds; 0 while the file has no line
	Offset int64
	// Lines counts the lines that were read, pieces of long ones as lines.
	Lines uint64
	// Open and Parts are, for each stream, when the long line began whose pieces are
	// being read, and how many of them were; 0 if there is none.
	Open  [2]int64
	Parts [2]uint32
}

const (
	positionMagic  = 0x31504c43 // "CLP1"; a later layout gets another magic
	positionSize   = 72
	positionPrefix = positionSize - 4
	positionSuffix = ".sent"
)

// PositionPath is where the position of a log's sender is kept.
func PositionPath(c Config) string { return c.Path + positionSuffix }

func (p *Position) encode() [positionSize]byte {
	var b [positionSize]byte
	le := binary.LittleEndian
	le.PutUint32(b[0:], positionMagic)
	le.PutUint64(b[4:], p.File)
	le.PutUint64(b[12:], uint64(p.First))
	le.PutUint64(b[20:], uint64(p.Offset))
	le.PutUint64(b[28:], p.Lines)
	le.PutUint64(b[36:], uint64(p.Open[0]))
	le.PutUint64(b[44:], uint64(p.Open[1]))
	le.PutUint32(b[52:], p.Parts[0])
	le.PutUint32(b[56:], p.Parts[1])
	le.PutUint32(b[positionPrefix:], crc32.ChecksumIEEE(b[:positionPrefix]))
	return b
}

func (p *Position) decode(b *[positionSize]byte) bool {
	le := binary.LittleEndian
	if le.Uint32(b[0:]) != positionMagic || le.Uint32(b[positionPrefix:]) != crc32.ChecksumIEEE(b[:positionPrefix]) {
		return false
	}
	*p = Position{
		File: le.Uint64(b[4:]), First: int64(le.Uint64(b[12:])), Offset: int64(le.Uint64(b[20:])), Lines: le.Uint64(b[28:]),
		Open:  [2]int64{int64(le.Uint64(b[36:])), int64(le.Uint64(b[44:]))},
		Parts: [2]uint32{le.Uint32(b[52:]), le.Uint32(b[56:])},
	}
	return p.Offset >= 0
}

// PositionFile keeps a Position. It is rewritten in place by one write, which a
// SIGKILL finds done or not begun; nothing waits for the disk. After a power failure
// it may be an older one, or none, from which the log is read again.
type PositionFile struct{ f *os.File }

// OpenPosition opens the file of a log's position, made if missing, and reads it:
// the zero Position if there is none that can be read.
func OpenPosition(c Config) (*PositionFile, Position, error) {
	f, err := os.OpenFile(PositionPath(c), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, Position{}, fmt.Errorf("how far a log was sent: %w", err)
	}
	p, err := readPosition(f)
	if err != nil {
		_ = f.Close()
		return nil, Position{}, err
	}
	return &PositionFile{f}, p, nil
}

func readPosition(f *os.File) (Position, error) {
	var p Position
	var b [positionSize]byte
	n, err := f.ReadAt(b[:], 0)
	if n < positionSize {
		if !isEOF(err) {
			return p, fmt.Errorf("how far a log was sent: %w", err)
		}
		return Position{}, nil
	}
	if !p.decode(&b) {
		return Position{}, nil
	}
	return p, nil
}

// Save records a position by one write and no sync: a crash of the machine may take it back, and lines come twice then.
func (s *PositionFile) Save(p Position) error {
	b := p.encode()
	if _, err := s.f.WriteAt(b[:], 0); err != nil {
		return fmt.Errorf("note how far a log was sent: %w", err)
	}
	return nil
}

// Close closes the file, which stays.
func (s *PositionFile) Close() error { return s.f.Close() }

// Unsent tells whether the log has lines behind the recorded position of its sender.
func Unsent(c Config) (bool, error) {
	f, err := os.Open(PositionPath(c))
	if errors.Is(err, fs.ErrNotExist) {
		// Nothing was ever sent; what there is is all to be sent.
		files, err := Files(c)
		return len(files) > 0, err
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	p, err := readPosition(f)
	if err != nil {
		return false, err
	}
	st, err := os.Stat(c.Path)
	if errors.Is(err, fs.ErrNotExist) {
		files, err := Files(c)
		return len(files) > 0, err
	}
	if err != nil {
		return false, err
	}
	return inode(st) != p.File || st.Size() > p.Offset, nil
}

// CutPosition takes a position back to where the log was cut by its Writer's Rewind.
func CutPosition(c Config, file uint64, offset int64) error {
	f, err := os.OpenFile(PositionPath(c), os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("how far a log was sent: %w", err)
	}
	s := &PositionFile{f}
	defer s.Close()
	p, err := readPosition(f)
	if err != nil || p.File != file || p.Offset <= offset {
		return err
	}
	p.Offset = offset
	return s.Save(p)
}
