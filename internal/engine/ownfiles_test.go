package engine

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/mount"

	"github.com/cleatlabs/cleat/internal/container"
)

func tarOf(t testing.TB, headers ...*tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte("x"), int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var fileMounts = []container.Mount{
	{Type: typeFile, Destination: "/run/secrets/a"}, {Type: typeFile, Destination: "/run/second"}, {Type: mount.TypeBind, Destination: "/bound"},
}

func TestOwnFilesOfAnArchive(t *testing.T) {
	for name, c := range map[string]struct {
		headers []*tar.Header
		want    string // of the error
	}{
		"a file":          {[]*tar.Header{{Typeflag: tar.TypeReg, Name: "/run/secrets/a", Mode: 0o400, Uid: 7, Size: 3}}, ""},
		"relative":        {[]*tar.Header{{Typeflag: tar.TypeReg, Name: "run/secrets/a", Size: 3}}, ""},
		"another target":  {[]*tar.Header{{Typeflag: tar.TypeReg, Name: "/etc/passwd"}}, "is no mount"},
		"a bind":          {[]*tar.Header{{Typeflag: tar.TypeReg, Name: "/bound"}}, "is no mount"},
		"out of the root": {[]*tar.Header{{Typeflag: tar.TypeReg, Name: "../../run/secrets/a/../b"}}, "is no mount"},
		"a link":          {[]*tar.Header{{Typeflag: tar.TypeSymlink, Name: "/run/secrets/a", Linkname: "/etc/shadow"}}, "not a regular file"},
		"a directory":     {[]*tar.Header{{Typeflag: tar.TypeDir, Name: "/run/secrets/a"}}, "not a regular file"},
		"twice":           {[]*tar.Header{{Typeflag: tar.TypeReg, Name: "/run/secrets/a"}, {Typeflag: tar.TypeReg, Name: "run/secrets/a"}}, "twice"},
		"too much":        {[]*tar.Header{{Typeflag: tar.TypeReg, Name: "/run/secrets/a", Size: maxOwnFile / 2}, {Typeflag: tar.TypeReg, Name: "/run/second", Size: maxOwnFile/2 + 1}}, "too large"},
	} {
		got, err := readOwnFiles(bytes.NewReader(tarOf(t, c.headers...)), fileMounts)
		if c.want == "" && (err != nil || len(got) != 1 || len(got[0].contents) != 3) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		if c.want != "" && (!errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func FuzzOwnFiles(f *testing.F) {
	f.Add(tarOf(f, &tar.Header{Typeflag: tar.TypeReg, Name: "/run/secrets/a", Mode: 0o400, Size: 3}))
	f.Add([]byte("no archive"))
	f.Fuzz(func(t *testing.T, data []byte) {
		found, err := readOwnFiles(bytes.NewReader(data), fileMounts)
		if err != nil && !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Error(err)
		}
		for _, o := range found {
			if o.mount.Type != typeFile || o.header.Uid < 0 || o.header.Mode&^0o7777 != 0 {
				t.Errorf("%+v", o.header)
			}
		}
	})
}

func TestPlacesOfOwnFiles(t *testing.T) {
	for source, ok := range map[string]bool{"memory": true, "disk": true, "": false, "/etc/passwd": false} {
		_, _, err := parseMount(&mount.Mount{Type: typeFile, Source: source, Target: "/f"})
		if (err == nil) != ok {
			t.Errorf("%q: %v", source, err)
		}
	}
	if _, _, err := parseMount(&mount.Mount{Type: typeFile, Source: "memory", Target: "/f", BindOptions: &mount.BindOptions{}}); err == nil {
		t.Error("options of another type were accepted")
	}
	mounts := []container.Mount{{Type: typeFile, Source: onDisk, Destination: "/a"}, {Type: typeFile, Source: inMemory, Destination: "/b"}}
	memory, err := os.MkdirTemp("/dev/shm", "cleat-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(memory)
	if err := placeFiles(&Settings{ExecRoot: memory}, "id", "/data/containers/id", mounts); err != nil {
		t.Fatal(err)
	}
	if mounts[0].Source != "/data/containers/id/files/0" || mounts[1].Source != filepath.Join(memory, "files/id/1") {
		t.Errorf("%+v", mounts)
	}
	mounts[1].Source = inMemory
	if err := placeFiles(&Settings{ExecRoot: "/proc"}, "id", "/data", mounts[1:]); !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "--exec-root") {
		t.Errorf("an exec root that is no memory: %v", err)
	}
}
