package launch

import (
	"bytes"
	"testing"
)

// A program built in memory that was used before is the same, byte for byte, as one in fresh memory.
func TestPoolGivesEmptyPrograms(t *testing.T) {
	build := func(p *Program) []byte {
		s := p.Slot()
		p.Call(1, "a", Int(1), p.Str("text"), s.Arg()).To(s).Ignore(2)
		p.Call(2, "b", p.Words(1, 2, 3), p.Bytes(make([]byte, 100), "zeros"))
		b, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return append([]byte(nil), b...)
	}
	want := build(NewProgram(false))
	pool := NewPool(1)
	used := pool.Program()
	for i := range 600 {
		s := used.Slot()
		used.Call(3, "x", Hex(^uint64(0)), used.Str("secret"), s.Arg()).To(s).IgnoreAll()
		used.Bytes(bytes.Repeat([]byte{0xff}, i), "ones")
	}
	used.Str("a\x00b") // an error of Encode
	if _, err := used.Encode(); err == nil {
		t.Error("a NUL byte was accepted")
	}
	pool.Put(used)
	small := pool.Program()
	build(small)
	pool.Put(small)
	again := pool.Program()
	if again != small {
		t.Error("the program was not kept")
	}
	if !bytes.Equal(build(again), want) {
		t.Error("something of the earlier program is left")
	}
	traced := NewProgram(true)
	pool.Put(traced)
	if pool.Program() == traced {
		t.Error("a program with trace is kept")
	}
}
