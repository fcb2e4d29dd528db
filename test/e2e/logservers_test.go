package e2e

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// logServer keeps what comes to it, as the protocol's messages.
type logServer struct {
	mu       sync.Mutex
	messages []string
	conns    map[net.Conn]bool
	listener io.Closer
	addr     string
	serving  sync.WaitGroup
	gate     chan struct{} // where it is set, nothing is read until it is closed
}

func (s *logServer) add(m string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages = append(s.messages, m)
}

func (s *logServer) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.messages...)
}

// close ends the server and its connections.
func (s *logServer) close() {
	_ = s.listener.Close()
	s.mu.Lock()
	for c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.serving.Wait()
}

// await waits until a message with each of the texts has come, in their order.
func (s *logServer) await(t *testing.T, texts ...string) []string {
	t.Helper()
	var got []string
	harness.Eventually(t, func() (bool, string) {
		got = s.all()
		rest := got
		for _, text := range texts {
			i := 0
			for i < len(rest) && !strings.Contains(rest[i], text) {
				i++
			}
			if i == len(rest) {
				return false, "no message with " + text + " in " + strings.Join(got[max(0, len(got)-5):], "\n")
			}
			rest = rest[i+1:]
		}
		return true, ""
	})
	return got
}

// streamServer accepts connections; read takes one message off each, and answers.
func streamServer(t *testing.T, l net.Listener, read func(*bufio.Reader, net.Conn) ([]string, error)) *logServer {
	t.Helper()
	s := &logServer{conns: map[net.Conn]bool{}, listener: l, addr: l.Addr().String()}
	s.serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns[c] = true
			s.mu.Unlock()
			s.serving.Go(func() { s.serve(c, read) })
		}
	})
	t.Cleanup(s.close)
	return s
}

func (s *logServer) serve(c net.Conn, read func(*bufio.Reader, net.Conn) ([]string, error)) {
	defer c.Close()
	if s.gate != nil {
		<-s.gate
	}
	r := bufio.NewReader(c)
	for {
		messages, err := read(r, c)
		if err != nil {
			return
		}
		for _, m := range messages {
			s.add(m)
		}
	}
}

// datagramServer decodes what comes in datagrams.
func datagramServer(t *testing.T, c net.PacketConn, decode func([]byte) []string) *logServer {
	t.Helper()
	s := &logServer{listener: c, addr: c.LocalAddr().String()}
	s.serving.Go(func() {
		buf := make([]byte, 1<<17)
		for {
			n, _, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			for _, m := range decode(buf[:n]) {
				s.add(m)
			}
		}
	})
	t.Cleanup(s.close)
	return s
}

func listen(t *testing.T, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func listenPacket(t *testing.T, network, address string) net.PacketConn {
	t.Helper()
	c, err := net.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func byLine(r *bufio.Reader, _ net.Conn) ([]string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, err // what came without its end is nobody's message
	}
	return []string{strings.TrimSuffix(line, "\n")}, nil
}

func byNUL(r *bufio.Reader, _ net.Conn) ([]string, error) {
	m, err := r.ReadString(0)
	if err != nil {
		return nil, err
	}
	return []string{strings.TrimSuffix(m, "\x00")}, nil
}

// byLength reads the frames of RFC 5425.
func byLength(r *bufio.Reader, _ net.Conn) ([]string, error) {
	length, err := r.ReadString(' ')
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(length))
	if err != nil {
		return nil, err
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	return []string{string(b)}, nil
}

func asIs(p []byte) []string { return []string{strings.TrimSuffix(string(p), "\n")} }

// gelfDatagrams puts chunks together and decompresses.
func gelfDatagrams() func([]byte) []string {
	parts := map[string][][]byte{}
	return func(p []byte) []string {
		whole := bytes.Clone(p)
		if len(p) > 12 && p[0] == 0x1e && p[1] == 0x0f {
			id, i, n := string(p[2:10]), int(p[10]), int(p[11])
			if parts[id] == nil {
				parts[id] = make([][]byte, n)
			}
			parts[id][i] = bytes.Clone(p[12:])
			for _, part := range parts[id] {
				if part == nil {
					return nil
				}
			}
			whole = bytes.Join(parts[id], nil)
		}
		var z io.ReadCloser
		var err error
		switch {
		case len(whole) > 2 && whole[0] == 0x1f && whole[1] == 0x8b:
			z, err = gzip.NewReader(bytes.NewReader(whole))
		case len(whole) > 2 && whole[0]&0x0f == 8:
			z, err = zlib.NewReader(bytes.NewReader(whole))
		default:
			return []string{string(whole)}
		}
		if err != nil {
			return []string{err.Error()}
		}
		b, err := io.ReadAll(z)
		if err != nil {
			return []string{err.Error()}
		}
		return []string{string(b)}
	}
}

// forward reads messages of Fluentd's forward protocol: each record becomes a line
// of its tag and its fields as key=value in their order. It answers when that is asked for.
func forward(r *bufio.Reader, c net.Conn) ([]string, error) {
	v, err := unpack(r)
	if err != nil {
		return nil, err
	}
	a, ok := v.([]any)
	if !ok || len(a) < 2 {
		return nil, errors.New("no message")
	}
	var records []string
	if entries, many := a[1].([]any); many {
		for _, e := range entries {
			records = append(records, a[0].(string)+" "+e.([]any)[1].(string))
		}
	} else {
		records = append(records, a[0].(string)+" "+a[2].(string))
	}
	if option, ok := a[len(a)-1].(string); ok && strings.HasPrefix(option, "chunk=") {
		chunk := strings.TrimSpace(strings.TrimPrefix(option, "chunk="))
		if _, err := c.Write(append([]byte{0x81, 0xa3, 'a', 'c', 'k', 0xa0 | byte(len(chunk))}, chunk...)); err != nil {
			return nil, err
		}
	}
	return records, nil
}

// unpack reads a value of MessagePack; a map becomes a string.
func unpack(r *bufio.Reader) (any, error) {
	head, err := r.ReadByte()
	if err != nil {
		return nil, err
	}
	number := func(size int) uint64 {
		var b [8]byte
		if _, rerr := io.ReadFull(r, b[8-size:]); rerr != nil {
			err = rerr
		}
		return binary.BigEndian.Uint64(b[:])
	}
	text := func(n uint64) (any, error) {
		b := make([]byte, n)
		_, err := io.ReadFull(r, b)
		return string(b), err
	}
	list := func(n uint64) (any, error) {
		var a []any
		for range n {
			v, err := unpack(r)
			if err != nil {
				return nil, err
			}
			a = append(a, v)
		}
		return a, nil
	}
	fields := func(n uint64) (any, error) {
		var b strings.Builder
		for range n {
			k, err := unpack(r)
			if err != nil {
				return nil, err
			}
			v, err := unpack(r)
			if err != nil {
				return nil, err
			}
			b.WriteString(k.(string) + "=" + v.(string) + " ")
		}
		return b.String(), nil
	}
	switch {
	case head&0xe0 == 0xa0:
		return text(uint64(head & 0x1f))
	case head == 0xd9:
		return text(number(1))
	case head == 0xda:
		return text(number(2))
	case head == 0xdb:
		return text(number(4))
	case head&0xf0 == 0x90:
		return list(uint64(head & 0xf))
	case head == 0xdc:
		return list(number(2))
	case head&0xf0 == 0x80:
		return fields(uint64(head & 0xf))
	case head == 0xde:
		return fields(number(2))
	case head == 0xce:
		return number(4), err
	case head == 0xd7: // EventTime
		_, _ = r.ReadByte()
		return number(8), err
	}
	return nil, errors.New("what is 0x" + strconv.FormatUint(uint64(head), 16))
}
