package logsend

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cleatlabs/cleat/internal/failure"
)

const (
	// chunkSize is the largest datagram, which fits into an Ethernet frame; longer
	// messages are cut into at most maxChunks, each with a header.
	chunkSize   = 1420
	chunkHeader = 12
	maxChunks   = 128

	gelfReconnects = "gelf-tcp-max-reconnect"
	gelfDelay      = "gelf-tcp-reconnect-delay"
	gelfKind       = "gelf-compression-type"
	gelfLevel      = "gelf-compression-level"
)

// gelfTarget is a parsed configuration.
type gelfTarget struct {
	scheme, address string
	kind            string // gzip, zlib or none
	level           int
	extra           []byte // the fields of the container, as JSON without the first brace
}

func newGELF(t *Target, opts map[string]string, src *Source) error {
	if err := knownOptions(driverGELF, opts, "gelf-address", gelfKind, gelfLevel, gelfReconnects, gelfDelay); err != nil {
		return err
	}
	g := &gelfTarget{kind: "gzip", level: flate.BestSpeed}
	if err := g.parseAddress(opts["gelf-address"]); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(opts)) {
		if err := g.set(t, name, opts[name]); err != nil {
			return err
		}
	}
	extra, err := gelfFields(src)
	if err != nil {
		return err
	}
	g.extra = extra
	t.Address, t.Required = opts["gelf-address"], g.scheme == "tcp"
	t.Advice = "start the log server, correct --log-opt gelf-address, or use udp://, which does not ask who listens"
	t.dial = g.dial
	return nil
}

func (g *gelfTarget) parseAddress(address string) error {
	if address == "" {
		return failure.Invalid("gelf-address is a required parameter: give --log-opt gelf-address=udp://HOST:PORT")
	}
	u, err := url.Parse(address)
	if err != nil {
		return failure.Invalid("log opt gelf-address: %w", err)
	}
	if u.Scheme != "udp" && u.Scheme != "tcp" {
		return failure.Invalid("gelf: endpoint needs to be TCP or UDP: gelf-address %s is neither udp:// nor tcp://", address)
	}
	if _, _, err := net.SplitHostPort(u.Host); err != nil {
		return failure.Invalid("gelf: please provide gelf-address as proto://host:port, not %s", address)
	}
	g.scheme, g.address = u.Scheme, u.Host
	return nil
}

func (g *gelfTarget) set(t *Target, name, value string) error {
	switch name {
	case gelfLevel, gelfKind:
		if g.scheme != "udp" {
			return failure.Invalid("compression is only supported on UDP: leave out log opt %s", name)
		}
	case gelfReconnects, gelfDelay:
		if g.scheme != "tcp" {
			return failure.Invalid("%q is only valid for TCP", name)
		}
	}
	n, err := strconv.Atoi(value)
	switch name {
	case gelfLevel:
		if err != nil || n < flate.DefaultCompression || n > flate.BestCompression {
			return failure.Invalid("unknown value %q for log opt %q for gelf log driver", value, name)
		}
		g.level = n
	case gelfKind:
		if value != "gzip" && value != "zlib" && value != "none" {
			return failure.Invalid("unknown value %q for log opt %q for gelf log driver", value, name)
		}
		g.kind = value
	case gelfReconnects, gelfDelay:
		if err != nil || n < 0 {
			return failure.Invalid("%q must be a positive integer", name)
		}
		if name == gelfReconnects {
			t.Tries = n
		} else if n > 0 {
			t.FirstWait = time.Duration(min(n, 24*60*60)) * time.Second
		}
	}
	return nil
}

// gelfFields are the additional fields; a label's or variable's gets an underscore
// before its name, which the format asks for.
func gelfFields(src *Source) ([]byte, error) {
	extra := map[string]any{
		"_container_id": src.ID, "_container_name": src.Name, "_image_id": src.ImageID, "_image_name": src.ImageName,
		"_command": src.Command, "_tag": src.Tag, "_created": src.Created,
	}
	for k, v := range src.Attrs {
		if !strings.HasPrefix(k, "_") {
			k = "_" + k
		}
		extra[k] = v
	}
	b, err := json.Marshal(extra)
	if err != nil {
		return nil, fmt.Errorf("fields of GELF messages: %w", err)
	}
	return b[1:], nil
}

func (g *gelfTarget) dial(ctx context.Context) (Sender, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	name, err := json.Marshal(host)
	if err != nil {
		return nil, err
	}
	l, err := dialLink(ctx, g.scheme, g.address, nil)
	if err != nil {
		return nil, fmt.Errorf("gelf: cannot connect to GELF endpoint: %s %w", g.address, err)
	}
	return &gelfSender{link: l, target: g, head: append([]byte(`{"version":"1.1","host":`), name...)}, nil
}

type gelfSender struct {
	*link
	target *gelfTarget
	head   []byte
	// compressors are large; the pool gives them back when nothing is sent for a while.
	compressors sync.Pool
}

// compressor is a gzip.Writer or a zlib.Writer.
type compressor interface {
	io.WriteCloser
	Reset(io.Writer)
}

// Send implements Sender. Empty lines are not sent, as Docker does not.
func (s *gelfSender) Send(batch []Message) (int, error) {
	if s.target.scheme == "udp" {
		return s.datagrams(batch, s.encode)
	}
	var buf []byte
	for i := range batch {
		if len(batch[i].Line) > 0 {
			buf = append(s.append(buf, &batch[i]), 0)
		}
	}
	if err := s.write(buf, len(batch)); err != nil {
		return 0, err
	}
	return len(batch), nil
}

// append adds a message as JSON.
func (s *gelfSender) append(b []byte, m *Message) []byte {
	level := severityInfo
	if m.Stderr {
		level = severityError
	}
	b = append(append(b, s.head...), `,"short_message":`...)
	b = append(b, quote(m.Line)...)
	b = append(b, `,"timestamp":`...)
	b = strconv.AppendFloat(b, float64(m.Nano/int64(time.Millisecond))/1000, 'f', -1, 64)
	b = strconv.AppendInt(append(b, `,"level":`...), int64(level), 10)
	return append(append(b, ','), s.target.extra...)
}

// quote makes a JSON string of any bytes.
func quote(p []byte) []byte {
	b, err := json.Marshal(string(p))
	if err != nil { // strings cannot fail
		return []byte(`""`)
	}
	return b
}

// encode makes the datagrams of a message. One that is too long even for chunks
// cannot be sent at all: pieces of a line are never that long.
func (s *gelfSender) encode(m *Message) [][]byte {
	if len(m.Line) == 0 {
		return nil
	}
	packed, err := s.compress(s.append(nil, m))
	if err != nil {
		return nil
	}
	return chunks(packed)
}

func (s *gelfSender) compress(p []byte) ([]byte, error) {
	if s.target.kind == "none" {
		return p, nil
	}
	var buf bytes.Buffer
	z, ok := s.compressors.Get().(compressor)
	if ok {
		z.Reset(&buf)
	} else {
		var err error
		if s.target.kind == "zlib" {
			z, err = zlib.NewWriterLevel(&buf, s.target.level)
		} else {
			z, err = gzip.NewWriterLevel(&buf, s.target.level)
		}
		if err != nil {
			return nil, err
		}
	}
	defer s.compressors.Put(z)
	if _, err := z.Write(p); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// chunks cuts a message into datagrams.
func chunks(p []byte) [][]byte {
	if len(p) <= chunkSize {
		return [][]byte{p}
	}
	const room = chunkSize - chunkHeader
	count := (len(p) + room - 1) / room
	if count > maxChunks {
		return nil
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	out := make([][]byte, 0, count)
	for i := range count {
		part := p[i*room : min(len(p), (i+1)*room)]
		d := append(make([]byte, 0, chunkHeader+len(part)), 0x1e, 0x0f)
		d = append(append(d, id[:]...), byte(i), byte(count))
		out = append(out, append(d, part...))
	}
	return out
}
