package store

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What a pull or a build has goes when the time of its lease has passed, and not when the host's clock is set forward, or
// the machine has slept: of that clock nothing is in the database.
func TestTemporaryLeasesGoByNoClockThatIsSet(t *testing.T) {
	s, err := Open(t.Context(), Config{Root: filepath.Join(t.TempDir(), "store"), Warn: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	passed := time.Duration(0)
	s.timed.now = func() time.Time { return time.Now().Add(passed) }
	for _, namespace := range []string{Namespace, Namespace + "_history"} {
		for _, label := range []string{TemporaryLabel, buildkitTemporary} {
			ctx := namespaces.WithNamespace(s.Context(t.Context()), namespace)
			opts := []leases.Opt{leases.WithExpiration(time.Hour), leases.WithLabel(label, "x")}
			ended, err := s.Leases.Create(ctx, append(opts, leases.WithID("ended"))...)
			if err == nil {
				err = s.Leases.Delete(ctx, ended)
			}
			if err != nil {
				t.Fatal(err)
			}
			lease, err := s.Leases.Create(ctx, append(opts, leases.WithID("held"))...)
			if err != nil {
				t.Fatal(err)
			}
			text := namespace + label
			held := ocispec.Descriptor{Digest: digest.FromString(text), Size: int64(len(text))}
			if err := content.WriteBlob(leases.WithLease(ctx, lease.ID), s.Content, text, strings.NewReader(text), held); err != nil {
				t.Fatal(err)
			}
			if list, err := s.Leases.List(ctx); err != nil || len(list) != 1 || list[0].Labels[expireLabel] != "" {
				t.Errorf("%s: leases %v, %v", text, list, err)
			}
			for _, c := range []struct {
				passed time.Duration
				there  bool
			}{{50 * time.Minute, true}, {70 * time.Minute, false}} {
				passed = c.passed
				if err := s.GC(ctx); err != nil {
					t.Fatal(err)
				}
				if _, err := s.Content.Info(ctx, held.Digest); (err == nil) != c.there || err != nil && !errdefs.IsNotFound(err) {
					t.Errorf("%s after %v: %v", text, passed, err)
				}
			}
			passed = 0
			if n := len(s.timed.ends); n != 0 {
				t.Errorf("%s: %d times are still in memory", text, n)
			}
		}
	}
}
