package project

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func BenchmarkLoad(b *testing.B) {
	dir := b.TempDir()
	var text strings.Builder
	text.WriteString("services:\n")
	for i := range 6 {
		fmt.Fprintf(&text, "  s%d: {image: busybox, command: sleep 1000}\n", i)
	}
	file := filepath.Join(dir, "compose.yaml")
	if err := os.WriteFile(file, []byte(text.String()), 0o644); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Load(b.Context(), Options{Files: []string{file}}, Raw{}); err != nil {
			b.Fatal(err)
		}
	}
}
