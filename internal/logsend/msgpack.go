package logsend

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// What the forward protocol needs of MessagePack: strings, arrays, maps, times.

func packString(b []byte, s string) []byte { return append(packStringHead(b, len(s)), s...) }

// packBytes adds bytes as a string: Docker's logs are strings whatever they hold.
func packBytes(b, p []byte) []byte { return append(packStringHead(b, len(p)), p...) }

func packStringHead(b []byte, n int) []byte {
	switch {
	case n < 32:
		return append(b, 0xa0|byte(n))
	case n < 1<<8:
		return append(b, 0xd9, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, 0xda), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(b, 0xdb), uint32(n))
}

func packArray(b []byte, n int) []byte { return packCount(b, n, 0x90, 0xdc) }

func packMap(b []byte, n int) []byte { return packCount(b, n, 0x80, 0xde) }

// packCount adds the head of an array or map: small is the kind with up to 15
// elements, wide the one with a 16-bit count, and the next one has 32 bits.
func packCount(b []byte, n int, small, wide byte) []byte {
	switch {
	case n < 16:
		return append(b, small|byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, wide), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(b, wide+1), uint32(n))
}

// packTime adds a time in seconds, or as the protocol's EventTime with nanoseconds.
func packTime(b []byte, t time.Time, precise bool) []byte {
	if precise {
		b = binary.BigEndian.AppendUint32(append(b, 0xd7, 0), uint32(t.Unix()))
		return binary.BigEndian.AppendUint32(b, uint32(t.Nanosecond()))
	}
	return binary.BigEndian.AppendUint32(append(b, 0xce), uint32(t.Unix()))
}

// maxAck bounds a string of the server's answer.
const maxAck = 1 << 10

// unpackAck reads the server's answer, {"ack": "…"}.
func unpackAck(r *bufio.Reader) (string, error) {
	head, err := r.ReadByte()
	if err != nil {
		return "", err
	}
	if head&0xf0 != 0x80 || head == 0x80 {
		return "", fmt.Errorf("it is no map but begins with 0x%02x", head)
	}
	ack, found := "", false
	for range head & 0x0f {
		key, err := unpackString(r)
		if err != nil {
			return "", err
		}
		value, err := unpackString(r)
		if err != nil {
			return "", err
		}
		if key == "ack" {
			ack, found = value, true
		}
	}
	if !found {
		return "", errors.New(`it has no key "ack"`)
	}
	return ack, nil
}

func unpackString(r *bufio.Reader) (string, error) {
	head, err := r.ReadByte()
	if err != nil {
		return "", err
	}
	size := 0
	switch {
	case head&0xe0 == 0xa0:
		size = int(head & 0x1f)
	case head == 0xd9, head == 0xc4:
		n, err := r.ReadByte()
		if err != nil {
			return "", err
		}
		size = int(n)
	case head == 0xda, head == 0xc5:
		var b [2]byte
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return "", err
		}
		size = int(binary.BigEndian.Uint16(b[:]))
	default:
		return "", fmt.Errorf("no string but 0x%02x", head)
	}
	if size > maxAck {
		return "", fmt.Errorf("a string of %d bytes", size)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		return "", err
	}
	return string(b), nil
}
