package logsend

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/docker/go-connections/tlsconfig"

	"github.com/cleatlabs/cleat/internal/failure"
)

const (
	syslogPort   = "514"
	secureScheme = "tcp+tls"

	severityError = 3
	severityInfo  = 6
)

// facilities are named by their place in this list, which is their number.
func facilities() []string {
	return []string{
		"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
		"", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
	}
}

// syslogFormat is how a message is written.
type syslogFormat struct {
	name     string // "" is the form of the C library: no host name
	facility int
	framed   bool // each message begins with its length (RFC 5425)
	// tag and host as they stand in the message; head is of this process.
	tag, host, pid string
}

// syslogTarget is a parsed configuration.
type syslogTarget struct {
	scheme, address string // "" for the host's own syslog
	format          syslogFormat
	tls             tlsconfig.Options
	localPaths      []string
}

func newSyslog(t *Target, opts map[string]string, src *Source) error {
	err := knownOptions(driverSyslog, opts, "syslog-address", "syslog-facility", "syslog-format",
		"syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key", "syslog-tls-skip-verify")
	if err != nil {
		return err
	}
	s := &syslogTarget{localPaths: []string{"/dev/log", "/var/run/syslog", "/var/run/log"}}
	if s.scheme, s.address, err = syslogAddress(opts["syslog-address"]); err != nil {
		return err
	}
	s.format = syslogFormat{tag: src.Tag, pid: strconv.Itoa(os.Getpid())}
	if s.format.facility, err = syslogFacility(opts["syslog-facility"]); err != nil {
		return err
	}
	switch name := opts["syslog-format"]; name {
	case "", "rfc3164", "rfc5424", "rfc5424micro":
		s.format.name = name
		s.format.framed = strings.HasPrefix(name, "rfc5424") && s.scheme == secureScheme
	default:
		return failure.Invalid("Invalid syslog format: %s: give rfc3164, rfc5424 or rfc5424micro", name)
	}
	// Docker looks at whether it is there, not at its value.
	_, skip := opts["syslog-tls-skip-verify"]
	s.tls = tlsconfig.Options{
		CAFile: opts["syslog-tls-ca-cert"], CertFile: opts["syslog-tls-cert"], KeyFile: opts["syslog-tls-key"], InsecureSkipVerify: skip,
	}
	t.Address, t.Required = opts["syslog-address"], s.scheme != "udp"
	if t.Address == "" {
		t.Address = "the host's syslog"
	}
	t.Advice = "start the log server, correct --log-opt syslog-address, or use udp://, which does not ask who listens"
	t.dial = s.dial
	return nil
}

func syslogAddress(address string) (scheme, place string, err error) {
	if address == "" {
		return "", "", nil
	}
	u, err := url.Parse(address)
	if err != nil {
		return "", "", failure.Invalid("log opt syslog-address: %w", err)
	}
	switch u.Scheme {
	case "unix", "unixgram":
		if u.Path == "" {
			return "", "", failure.Invalid("log opt syslog-address=%s: give the socket's path, as in unix:///dev/log", address)
		}
		return u.Scheme, u.Path, nil
	case "udp", "tcp", secureScheme:
	default:
		return "", "", failure.Invalid("unsupported scheme: '%s': log opt syslog-address takes udp, tcp, tcp+tls, unix and unixgram", u.Scheme)
	}
	if u.Hostname() == "" {
		return "", "", failure.Invalid("log opt syslog-address=%s: give a host, as in udp://logs.example:514", address)
	}
	if _, _, err := net.SplitHostPort(u.Host); err != nil {
		if !strings.Contains(err.Error(), "missing port in address") {
			return "", "", failure.Invalid("log opt syslog-address: %w", err)
		}
		return u.Scheme, net.JoinHostPort(u.Hostname(), syslogPort), nil
	}
	return u.Scheme, u.Host, nil
}

func syslogFacility(text string) (int, error) {
	if text == "" {
		text = "daemon"
	}
	for i, name := range facilities() {
		if name == text {
			return i, nil
		}
	}
	if n, err := strconv.Atoi(text); err == nil && n >= 0 && n < len(facilities()) {
		return n, nil
	}
	return 0, failure.Invalid("invalid syslog facility: %q is neither one of kern, user, daemon, local0 … nor a number from 0 to 23", text)
}

func (s *syslogTarget) dial(ctx context.Context) (Sender, error) {
	format := s.format
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	format.host = host
	l, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	network := l.wire.RemoteAddr().Network()
	return &syslogSender{link: l, format: format, datagram: network == "udp" || network == "unixgram"}, nil
}

func (s *syslogTarget) connect(ctx context.Context) (*link, error) {
	switch s.scheme {
	case "":
		return s.local(ctx)
	case "unix":
		l, err := dialLink(ctx, "unix", s.address, nil)
		if errors.Is(err, syscall.EPROTOTYPE) { // such as /dev/log mostly is
			return dialLink(ctx, "unixgram", s.address, nil)
		}
		return l, err
	case secureScheme:
		config, err := s.tlsConfig()
		if err != nil {
			return nil, err
		}
		return dialLink(ctx, "tcp", s.address, config)
	}
	return dialLink(ctx, s.scheme, s.address, nil)
}

// local finds the host's own syslog, as the C library does.
func (s *syslogTarget) local(ctx context.Context) (*link, error) {
	var errs []error
	for _, network := range []string{"unixgram", "unix"} {
		for _, path := range s.localPaths {
			l, err := dialLink(ctx, network, path, nil)
			if err == nil {
				return l, nil
			}
			errs = append(errs, err)
		}
	}
	return nil, failure.Unavailable("Unix syslog delivery error: no syslog server runs on this host: %w", errs[0])
}

func (s *syslogTarget) tlsConfig() (*tls.Config, error) {
	config, err := tlsconfig.Client(s.tls)
	if err != nil {
		return nil, failure.Invalid("log opts syslog-tls-…: %w", err)
	}
	return config, nil
}

type syslogSender struct {
	*link
	format   syslogFormat
	datagram bool
	buf      []byte
}

// Send implements Sender. Empty lines are not sent, as Docker does not.
func (s *syslogSender) Send(batch []Message) (int, error) {
	if s.datagram {
		return s.datagrams(batch, func(m *Message) [][]byte {
			if len(m.Line) == 0 {
				return nil
			}
			s.buf = s.format.append(s.buf[:0], m)
			return [][]byte{s.buf}
		})
	}
	buf := s.buf[:0]
	for i := range batch {
		if len(batch[i].Line) > 0 {
			buf = s.format.append(buf, &batch[i])
		}
	}
	s.buf = reusable(buf)
	if err := s.write(buf, len(batch)); err != nil {
		return 0, err
	}
	return len(batch), nil
}

// reusable keeps a small buffer for the next batch and gives a large one back: an
// idle sender holds next to nothing.
func reusable(buf []byte) []byte {
	const small = 4 << 10
	if cap(buf) > small {
		return nil
	}
	return buf
}

// append adds one message with its frame.
func (f *syslogFormat) append(b []byte, m *Message) []byte {
	if !f.framed {
		return f.appendBare(b, m)
	}
	bare := f.appendBare(nil, m)
	b = append(strconv.AppendInt(b, int64(len(bare)), 10), ' ')
	return append(b, bare...)
}

// appendBare adds one message. Its forms are those of the library that Docker
// uses, which rsyslog's and others' templates are written for; all end with a newline.
func (f *syslogFormat) appendBare(b []byte, m *Message) []byte {
	severity := severityInfo
	if m.Stderr {
		severity = severityError
	}
	at := m.Time()
	b = append(strconv.AppendInt(append(b, '<'), int64(f.facility<<3|severity), 10), '>')
	switch f.name {
	case "rfc5424", "rfc5424micro":
		form := time.RFC3339
		if f.name == "rfc5424micro" {
			form = "2006-01-02T15:04:05.000000Z07:00"
		}
		b = at.AppendFormat(append(b, "1 "...), form)
		b = append(append(b, ' '), f.host...)
		b = append(append(b, ' '), f.tag...) // also the program's name: rsyslog makes syslogtag of it
		b = append(append(b, ' '), f.pid...)
		b = append(append(b, ' '), f.tag...)
		b = append(b, " - "...)
	default:
		b = append(at.AppendFormat(b, time.Stamp), ' ')
		if f.name == "rfc3164" {
			b = append(append(b, f.host...), ' ')
		}
		b = append(b, f.tag...)
		b = append(append(b, '['), f.pid...)
		b = append(b, "]: "...)
	}
	return append(append(b, m.Line...), '\n')
}
