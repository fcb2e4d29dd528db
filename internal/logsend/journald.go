package logsend

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/failure"
)

// journalSocket is where systemd-journald takes entries in its native protocol.
const journalSocket = "/run/systemd/journal/socket"

func newJournald(t *Target, opts map[string]string, src *Source) error {
	if err := knownOptions(driverJournald, opts); err != nil {
		return err
	}
	t.Address, t.Required = "the host's journal", true
	t.Advice = "start systemd-journald, or choose another log driver"
	t.dial = func(ctx context.Context) (Sender, error) { return dialJournal(ctx, journalSocket, src) }
	return nil
}

// journalEpoch names a run of a container: the numbers of its entries count within it.
func journalEpoch(src *Source) string {
	sum := sha256.Sum256([]byte(src.ID + "\n" + src.Run))
	return hex.EncodeToString(sum[:])
}

// journalFields are the fields that all entries of a container have.
func journalFields(src *Source) []byte {
	var b []byte
	for _, f := range [][2]string{
		{"CONTAINER_ID", src.ID[:min(12, len(src.ID))]}, {"CONTAINER_ID_FULL", src.ID}, {"CONTAINER_NAME", src.Name},
		{"CONTAINER_TAG", src.Tag}, {"IMAGE_NAME", src.ImageName}, {"SYSLOG_IDENTIFIER", src.Tag}, {"CONTAINER_LOG_EPOCH", journalEpoch(src)},
	} {
		b = appendField(b, f[0], []byte(f[1]))
	}
	for _, key := range slices.Sorted(maps.Keys(src.Attrs)) {
		if name := journalKey(key); name != "" {
			b = appendField(b, name, []byte(src.Attrs[key]))
		}
	}
	return b
}

// journalKey makes a field's name of a label's or variable's: upper case, digits and
// underscores, none at the beginning. "" means that nothing is left.
func journalKey(key string) string {
	var b []byte
	for _, r := range key {
		switch {
		case r >= 'a' && r <= 'z':
			r -= 'a' - 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		default:
			r = '_'
		}
		if len(b) == 0 && r == '_' {
			continue
		}
		b = append(b, byte(r))
	}
	return string(b)
}

// appendField adds a field: with = where the value is one line, else with its length.
func appendField(b []byte, name string, value []byte) []byte {
	b = append(b, name...)
	if bytes.IndexByte(value, '\n') < 0 {
		b = append(append(b, '='), value...)
	} else {
		b = binary.LittleEndian.AppendUint64(append(b, '\n'), uint64(len(value)))
		b = append(b, value...)
	}
	return append(b, '\n')
}

func dialJournal(ctx context.Context, socket string, src *Source) (Sender, error) {
	l, err := dialLink(ctx, "unixgram", socket, nil)
	if err != nil {
		return nil, failure.Unavailable("journald is not enabled on this host: %w", err)
	}
	return &journalSender{link: l, fields: journalFields(src), id: src.ID}, nil
}

type journalSender struct {
	*link
	fields []byte
	id     string
	buf    []byte
}

// Send implements Sender.
func (s *journalSender) Send(batch []Message) (int, error) {
	for i := range batch {
		if err := s.conn.SetWriteDeadline(time.Now().Add(s.timeout)); err != nil {
			return i, err
		}
		s.buf = s.entry(s.buf[:0], &batch[i])
		_, err := s.conn.Write(s.buf)
		if errors.Is(err, syscall.EMSGSIZE) || errors.Is(err, syscall.ENOBUFS) {
			err = s.sendLarge(s.buf)
		}
		if err != nil {
			return i, err
		}
	}
	s.buf = reusable(s.buf)
	return len(batch), nil
}

func (s *journalSender) entry(b []byte, m *Message) []byte {
	b = append(b, s.fields...)
	priority := severityInfo
	if m.Stderr {
		priority = severityError
	}
	b = strconv.AppendInt(append(b, "PRIORITY="...), int64(priority), 10)
	b = m.Time().UTC().AppendFormat(append(b, "\nSYSLOG_TIMESTAMP="...), time.RFC3339Nano)
	b = strconv.AppendUint(append(b, "\nCONTAINER_LOG_ORDINAL="...), m.Number, 10)
	if m.Part > 0 {
		b = append(append(b, "\nCONTAINER_PARTIAL_ID="...), partID(s.id, m)...)
		b = strconv.AppendInt(append(b, "\nCONTAINER_PARTIAL_ORDINAL="...), int64(m.Part), 10)
		b = strconv.AppendBool(append(b, "\nCONTAINER_PARTIAL_LAST="...), m.Last)
		if !m.Last {
			b = append(b, "\nCONTAINER_PARTIAL_MESSAGE=true"...)
		}
	}
	return appendField(append(b, '\n'), "MESSAGE", m.Line)
}

// partID names the line that a piece belongs to: the same for all its pieces, also
// when an engine was killed between them.
func partID(container string, m *Message) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %t", container, m.Nano, m.Stderr))
	return hex.EncodeToString(sum[:])
}

// sendLarge passes an entry that is too large for a datagram in a sealed file.
func (s *journalSender) sendLarge(entry []byte) error {
	fd, err := unix.MemfdCreate("journal-entry", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return fmt.Errorf("a large journal entry: %w", err)
	}
	f := os.NewFile(uintptr(fd), "journal-entry")
	defer f.Close()
	if _, err := f.Write(entry); err != nil {
		return fmt.Errorf("a large journal entry: %w", err)
	}
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return fmt.Errorf("a large journal entry: %w", err)
	}
	rights := unix.UnixRights(fd)
	var sendErr error
	err = s.wire.raw.Write(func(socket uintptr) bool {
		sendErr = unix.Sendmsg(int(socket), nil, rights, nil, 0)
		return sendErr != unix.EAGAIN && sendErr != unix.EINTR
	})
	if err == nil {
		err = sendErr
	}
	return err
}
