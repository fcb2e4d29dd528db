package netlink

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	headerLen = unix.NLMSG_HDRLEN
	attrLen   = unix.NLA_HDRLEN
)

// Message is one netlink request under construction. Its methods append attributes
// and return the message, so that calls can be chained. A message may be sent once.
type Message struct {
	b      []byte
	object string
}

// NewMessage starts a request of the given type. header is the family's fixed
// header; object is the name that errors of this message carry, such as
// `link "eth0"`. Every message asks for an acknowledgement.
func NewMessage(typ, flags uint16, header []byte, object string) *Message {
	b := make([]byte, headerLen, 256)
	binary.NativeEndian.PutUint16(b[4:], typ)
	binary.NativeEndian.PutUint16(b[6:], unix.NLM_F_REQUEST|flags)
	return &Message{b: append(b, header...), object: object}
}

// Attr appends an attribute with a raw value of at most 65,531 bytes.
func (m *Message) Attr(typ uint16, value []byte) *Message {
	m.b = binary.NativeEndian.AppendUint16(m.b, uint16(attrLen+len(value)))
	m.b = binary.NativeEndian.AppendUint16(m.b, typ)
	m.b = append(m.b, value...)
	m.pad()
	return m
}

// Str appends a zero-terminated string attribute.
func (m *Message) Str(typ uint16, s string) *Message {
	return m.Attr(typ, append([]byte(s), 0))
}

// U8 appends a one-byte attribute.
func (m *Message) U8(typ uint16, v uint8) *Message { return m.Attr(typ, []byte{v}) }

// U16 adds a number in the host's byte order.
func (m *Message) U16(typ uint16, v uint16) *Message {
	return m.Attr(typ, binary.NativeEndian.AppendUint16(nil, v))
}

// U32 appends a 32-bit attribute in host byte order, as rtnetlink wants it.
func (m *Message) U32(typ uint16, v uint32) *Message {
	return m.Attr(typ, binary.NativeEndian.AppendUint32(nil, v))
}

// U32BE appends a 32-bit attribute in network byte order, as nfnetlink wants it.
func (m *Message) U32BE(typ uint16, v uint32) *Message {
	return m.Attr(typ, binary.BigEndian.AppendUint32(nil, v))
}

// Nest appends an attribute that holds what fill appends. What it holds must not
// exceed 65,531 bytes.
func (m *Message) Nest(typ uint16, fill func(*Message)) *Message {
	start := len(m.b)
	m.b = binary.NativeEndian.AppendUint16(m.b, 0)
	m.b = binary.NativeEndian.AppendUint16(m.b, typ|unix.NLA_F_NESTED)
	fill(m)
	binary.NativeEndian.PutUint16(m.b[start:], uint16(len(m.b)-start))
	return m
}

// Raw appends bytes that are no attribute, such as a nested fixed header.
func (m *Message) Raw(b []byte) *Message {
	m.b = append(m.b, b...)
	m.pad()
	return m
}

// Object is the name given to NewMessage.
func (m *Message) Object() string { return m.object }

func (m *Message) pad() {
	for len(m.b)%unix.NLMSG_ALIGNTO != 0 {
		m.b = append(m.b, 0)
	}
}

// Attr is one decoded attribute.
type Attr struct {
	Type  uint16 // without the nested and byte order bits
	Value []byte
}

// U32 is the value in host byte order, 0 if it is shorter than four bytes.
func (a Attr) U32() uint32 {
	if len(a.Value) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(a.Value)
}

// U32BE is the value in network byte order, 0 if it is shorter than four bytes.
func (a Attr) U32BE() uint32 {
	if len(a.Value) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(a.Value)
}

// Str is the value up to its first zero byte.
func (a Attr) Str() string {
	for i, c := range a.Value {
		if c == 0 {
			return string(a.Value[:i])
		}
	}
	return string(a.Value)
}

// ParseAttrs decodes a sequence of attributes. The values alias b.
func ParseAttrs(b []byte) ([]Attr, error) {
	var attrs []Attr
	for len(b) >= attrLen {
		n := int(binary.NativeEndian.Uint16(b))
		if n < attrLen || n > len(b) {
			return nil, fmt.Errorf("netlink: attribute of %d bytes in %d", n, len(b))
		}
		typ := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		attrs = append(attrs, Attr{Type: typ, Value: b[attrLen:n]})
		next := (n + unix.NLA_ALIGNTO - 1) &^ (unix.NLA_ALIGNTO - 1)
		if next > len(b) {
			break
		}
		b = b[next:]
	}
	return attrs, nil
}
