package cli

import (
	"encoding/json"
	"io"
	"os"
	"testing"

	"github.com/moby/moby/api/types/container"
)

// BenchmarkPS200 is what `ps -a` does with the answer of an engine with 200 containers.
func BenchmarkPS200(b *testing.B) {
	data, err := os.ReadFile("testdata/containers.json")
	if err != nil {
		b.Fatal(err)
	}
	var few, many []container.Summary
	if err := json.Unmarshal(data, &few); err != nil {
		b.Fatal(err)
	}
	for i := range 200 {
		many = append(many, few[i%len(few)])
	}
	answer, err := json.Marshal(many)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("decode", func(b *testing.B) {
		b.SetBytes(int64(len(answer)))
		for range b.N {
			var list []container.Summary
			if err := json.Unmarshal(answer, &list); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("print", func(b *testing.B) {
		for range b.N {
			rows := make([]any, len(many))
			for i := range many {
				rows[i] = &containerRow{c: &many[i], trunc: true}
			}
			if err := (listing{format: containerFormat("", false, false), headers: containerHeaders}).write(io.Discard, rows); err != nil {
				b.Fatal(err)
			}
		}
	})
}
