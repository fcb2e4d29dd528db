package logs_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cleatlabs/cleat/internal/logs"
	"github.com/cleatlabs/cleat/internal/stdio"
)

// hundred is 128 KiB of 100-byte lines, one batch of a busy stream.
func hundred() []byte {
	var b []byte
	for i := 0; len(b) < 128<<10-100; i++ {
		b = fmt.Appendf(b, "%06d %s\n", i, bytes.Repeat([]byte{'a' + byte(i%26)}, 92))
	}
	return b
}

func BenchmarkAppend(b *testing.B) {
	w, err := logs.Open(logs.Config{Path: filepath.Join(b.TempDir(), "log")})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	batch := hundred()
	b.SetBytes(int64(len(batch)))
	for b.Loop() {
		for p := batch; len(p) > 0; {
			n, err := w.Append(stdio.Stdout, p, time.Now(), true)
			if err != nil {
				b.Fatal(err)
			}
			p = p[n:]
		}
	}
}

// BenchmarkRead reports bytes of the stored text, not of the file.
func BenchmarkRead(b *testing.B) {
	c := logs.Config{Path: filepath.Join(b.TempDir(), "log")}
	w, err := logs.Open(c)
	if err != nil {
		b.Fatal(err)
	}
	batch := hundred()
	var total int64
	for total < 32<<20 {
		for p := batch; len(p) > 0; {
			n, err := w.Append(stdio.Stdout, p, time.Now(), true)
			if err != nil {
				b.Fatal(err)
			}
			p = p[n:]
			total += int64(n)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	for _, tail := range []int{-1, 10} {
		b.Run(fmt.Sprint("tail", tail), func(b *testing.B) {
			if tail < 0 {
				b.SetBytes(total)
			}
			for b.Loop() {
				var n int64
				o := logs.ReadOptions{Tail: tail, Stdout: true, Stderr: true}
				err := logs.Read(context.Background(), c, o, nil, func(e logs.Entry) error { n += int64(len(e.Line)); return nil })
				if err != nil {
					b.Fatal(err)
				}
				if tail < 0 && n != total {
					b.Fatalf("read %d of %d bytes", n, total)
				}
			}
		})
	}
}

// BenchmarkPump is the whole way of the output: pipe, journal, log.
func BenchmarkPump(b *testing.B) {
	dir, err := os.MkdirTemp("/dev/shm", "cleat-test-")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for _, way := range []string{"journal", "direct"} {
		b.Run(way, func(b *testing.B) {
			w, err := logs.Open(logs.Config{Path: filepath.Join(b.TempDir(), "log")})
			if err != nil {
				b.Fatal(err)
			}
			r, pw, err := os.Pipe()
			if err != nil {
				b.Fatal(err)
			}
			defer r.Close()
			if err := setPipeSize(r, 1<<20); err != nil {
				b.Fatal(err)
			}
			c := stdio.Config{Dir: dir, Stdout: r, Sink: w}
			if way == "direct" {
				c.Dir = ""
			}
			p, err := stdio.Start(c)
			if err != nil {
				b.Fatal(err)
			}
			batch := hundred()
			b.SetBytes(int64(len(batch)))
			for b.Loop() {
				if _, err := pw.Write(batch); err != nil {
					b.Fatal(err)
				}
			}
			pw.Close()
			<-p.Done()
			if err := w.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
