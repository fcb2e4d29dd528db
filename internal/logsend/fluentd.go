package logsend

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/cleatlabs/cleat/internal/failure"
)

const (
	fluentHost = "127.0.0.1"
	fluentPort = 24224

	fluentAddressKey   = "fluentd-address"
	fluentAsync        = "fluentd-async"
	fluentReconnect    = "fluentd-async-reconnect-interval"
	fluentBuffer       = "fluentd-buffer-limit"
	fluentRetries      = "fluentd-max-retries"
	fluentAck          = "fluentd-request-ack"
	fluentWait         = "fluentd-retry-wait"
	fluentSubSecond    = "fluentd-sub-second-precision"
	fluentWriteTimeout = "fluentd-write-timeout"
	fluentReadTimeout  = "fluentd-read-timeout"

	// What Docker allows for the reconnect interval.
	minReconnect = 100 * time.Millisecond
	maxReconnect = 10 * time.Second
)

// fluentTarget is a parsed configuration.
type fluentTarget struct {
	network, address string
	secure           bool
	async            bool
	ack              bool
	precise          bool          // times have nanoseconds
	reconnect        time.Duration // a connection's life, 0 for ever
	write, read      time.Duration // timeouts, 0 for the default
	tag, id          string
	record           []byte // the keys and values that all records have
	keys             int    // how many these are
}

func newFluentd(t *Target, opts map[string]string, src *Source) error {
	err := knownOptions(driverFluentd, opts, fluentAddressKey, fluentAsync, fluentReconnect, fluentBuffer, fluentRetries,
		fluentAck, fluentWait, fluentSubSecond, fluentWriteTimeout, fluentReadTimeout)
	if err != nil {
		return err
	}
	t.FirstWait = time.Second
	f := &fluentTarget{tag: src.Tag, id: src.ID}
	if err := f.parseAddress(opts[fluentAddressKey]); err != nil {
		return failure.Invalid("invalid %s (%s): %w", fluentAddressKey, opts[fluentAddressKey], err)
	}
	for _, name := range slices.Sorted(maps.Keys(opts)) {
		if opts[name] == "" {
			continue
		}
		if err := f.set(t, name, opts[name]); err != nil {
			return err
		}
	}
	f.constant(src)
	t.Address, t.Required = f.address, !f.async
	t.Advice = "start the log server, correct --log-opt fluentd-address, or give --log-opt fluentd-async=true: then lines wait for it in the container's local log"
	t.dial = f.dial
	return nil
}

func (f *fluentTarget) parseAddress(address string) error {
	f.network, f.address = "tcp", net.JoinHostPort(fluentHost, strconv.Itoa(fluentPort))
	if address == "" {
		return nil
	}
	if !strings.Contains(address, "://") {
		address = "tcp://" + address
	}
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	switch u.Scheme {
	case "unix":
		if strings.TrimLeft(u.Path, "/") == "" {
			return errors.New("path is empty: name a socket, unix:///path")
		}
		f.network, f.address = "unix", u.Path
		return nil
	case "tcp", "tls":
		f.secure = u.Scheme == "tls"
	default:
		return fmt.Errorf("unsupported scheme: '%s'", u.Scheme)
	}
	if u.Path != "" {
		return fmt.Errorf("should not contain a path element: leave out %s", u.Path)
	}
	host, port := fluentHost, strconv.Itoa(fluentPort)
	if h := u.Hostname(); h != "" {
		host = h
	}
	if p := u.Port(); p != "" {
		if _, err := strconv.ParseUint(p, 10, 16); err != nil {
			return fmt.Errorf("invalid port: %w", err)
		}
		port = p
	}
	f.address = net.JoinHostPort(host, port)
	return nil
}

func (f *fluentTarget) set(t *Target, name, value string) (err error) {
	switch name {
	case fluentAsync:
		f.async, err = strconv.ParseBool(value)
	case fluentAck:
		f.ack, err = strconv.ParseBool(value)
	case fluentSubSecond:
		f.precise, err = strconv.ParseBool(value)
	case fluentBuffer:
		var n int64
		if n, err = units.RAMInBytes(value); err == nil && n < 1 {
			err = errors.New("it is how many lines are held in memory, at least 1")
		}
		t.MostLines = int(min(n, math.MaxInt32))
	case fluentRetries:
		var n uint64
		if n, err = strconv.ParseUint(value, 10, 32); err == nil && n > math.MaxInt32 {
			return failure.Invalid("invalid fluentd-max-retries: value out of range: %s is more than %d", value, math.MaxInt32)
		}
		t.Tries = int(n)
	case fluentWait:
		if t.FirstWait, err = time.ParseDuration(value); err == nil && t.FirstWait <= 0 {
			err = errors.New("it must be a positive duration")
		}
	case fluentReconnect:
		f.reconnect, err = time.ParseDuration(value)
		if err == nil && f.reconnect != 0 && (f.reconnect < minReconnect || f.reconnect > maxReconnect) {
			return failure.Invalid("invalid value for %s: value (%q) must be between %s and %s", name, f.reconnect, minReconnect, maxReconnect)
		}
	case fluentWriteTimeout:
		f.write, err = fluentDuration(name, value)
	case fluentReadTimeout:
		f.read, err = fluentDuration(name, value)
	}
	if err != nil {
		return failure.Invalid("log opt %s=%s: %w", name, value, err)
	}
	return nil
}

func fluentDuration(name, value string) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil {
		return 0, fmt.Errorf("invalid value for %s: value must be a duration: %w", name, err)
	}
	if d < 0 {
		return 0, fmt.Errorf("invalid value for %s: value must be a duration that is non-negative", name)
	}
	return d, nil
}

// constant encodes what all records have. The name has Docker's slash.
func (f *fluentTarget) constant(src *Source) {
	fields := map[string]string{"container_id": src.ID, "container_name": "/" + src.Name}
	for k, v := range src.Attrs {
		fields[k] = v
	}
	f.keys = len(fields)
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		f.record = packString(packString(f.record, k), fields[k])
	}
}

func (f *fluentTarget) dial(ctx context.Context) (Sender, error) {
	var config *tls.Config
	if f.secure {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	l, err := dialLink(ctx, f.network, f.address, config)
	if err != nil {
		return nil, err
	}
	if f.write > 0 {
		l.timeout = f.write
	}
	s := &fluentSender{link: l, target: f}
	if f.reconnect > 0 {
		s.expires = time.Now().Add(f.reconnect)
	}
	if f.ack {
		s.answers = bufio.NewReaderSize(l.conn, 256)
	}
	return s, nil
}

type fluentSender struct {
	*link
	target  *fluentTarget
	answers *bufio.Reader // nil without request-ack
	expires time.Time     // zero for never
}

// errExpired ends a connection that is to be made anew, so that what balances the
// load behind the address gets to choose again.
var errExpired = errors.New("the connection has had its time")

// Expired tells whether an error of Send only asks for a new connection.
func Expired(err error) bool { return errors.Is(err, errExpired) || errors.Is(err, errGone) }

// Send implements Sender: one message of the forward protocol for the whole batch.
func (s *fluentSender) Send(batch []Message) (int, error) {
	if !s.expires.IsZero() && time.Now().After(s.expires) {
		if open, err := s.Outstanding(); err != nil || open == 0 {
			return 0, errExpired
		}
	}
	chunk := ""
	if s.answers != nil {
		var id [16]byte
		_, _ = rand.Read(id[:]) // never fails
		chunk = base64.StdEncoding.EncodeToString(id[:])
	}
	if err := s.write(s.target.encode(batch, chunk), len(batch)); err != nil {
		return 0, err
	}
	if chunk == "" {
		return len(batch), nil
	}
	if err := s.await(chunk); err != nil {
		return 0, err
	}
	s.marks, s.open = nil, 0 // the server has them, which is more than the kernel knows
	return len(batch), nil
}

// await reads the server's answer.
func (s *fluentSender) await(chunk string) error {
	patience := s.target.read
	if patience == 0 {
		patience = writeTimeout
	}
	if err := s.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	ack, err := unpackAck(s.answers)
	if err != nil {
		return fmt.Errorf("the log server's acknowledgement: %w", err)
	}
	if ack != chunk {
		return fmt.Errorf("the log server acknowledged %q instead of %q", ack, chunk)
	}
	return nil
}

// encode makes a message of the protocol's mode Message for one line, and of its
// mode Forward for several.
func (f *fluentTarget) encode(batch []Message, chunk string) []byte {
	size := 64 + len(f.tag)
	for i := range batch {
		size += len(batch[i].Line) + len(f.record) + 80
	}
	single := len(batch) == 1
	elements := 2
	if single {
		elements = 3
	}
	if chunk != "" {
		elements++
	}
	b := packArray(make([]byte, 0, size), elements)
	b = packString(b, f.tag)
	if !single {
		b = packArray(b, len(batch))
	}
	for i := range batch {
		if !single {
			b = packArray(b, 2)
		}
		b = f.appendRecord(packTime(b, batch[i].Time(), f.precise), &batch[i])
	}
	if chunk != "" {
		b = packString(packString(packMap(b, 1), "chunk"), chunk)
	}
	return b
}

func (f *fluentTarget) appendRecord(b []byte, m *Message) []byte {
	keys := f.keys + 2
	if m.Part > 0 {
		keys += 4
	}
	b = append(packMap(b, keys), f.record...)
	source := "stdout"
	if m.Stderr {
		source = "stderr"
	}
	b = packString(packString(b, "source"), source)
	b = packBytes(packString(b, "log"), m.Line)
	if m.Part > 0 {
		b = packString(packString(b, "partial_message"), "true")
		b = packString(packString(b, "partial_id"), partID(f.id, m))
		b = packString(packString(b, "partial_ordinal"), strconv.Itoa(m.Part))
		b = packString(packString(b, "partial_last"), strconv.FormatBool(m.Last))
	}
	return b
}
