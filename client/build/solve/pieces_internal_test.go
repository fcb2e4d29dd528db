package solve

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
)

// TestPieces holds that a message with a piece of a file in it fits into 32 KiB, whatever else it says.
func TestPieces(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), make([]byte, 3*pieceSize+5), 0o600); err != nil {
		t.Fatal(err)
	}
	fs, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	f, err := pieces{fs}.Open("f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf, total := make([]byte, 64<<10), 0
	for {
		n, err := f.Read(buf)
		total += n
		if p := (&types.Packet{Type: types.PACKET_DATA, ID: 1<<32 - 1, Data: buf[:n]}); p.SizeVT() > 32<<10 {
			t.Errorf("a message of %d bytes", p.SizeVT())
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if total != 3*pieceSize+5 {
		t.Errorf("%d bytes", total)
	}
	if _, err := (pieces{fs}).Open("missing"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
