package volume_test

import (
	"archive/tar"
	"bytes"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The volume's own directory is as the archive says, like all that is in it.
func TestImportOfTheDirectoryItself(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	year2318 := time.Unix(11e9, 0) // which nanoseconds do not reach
	for _, name := range []string{"./", "./sub/"} {
		err := w.WriteHeader(&tar.Header{
			Name: name, Typeflag: tar.TypeDir, Mode: 0o1711, Uid: 12, Gid: 34, ModTime: year2318, Format: tar.FormatPAX,
			PAXRecords: map[string]string{"SCHILY.xattr.user.x": "y"},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	v, err := open(t, t.TempDir()).Import(ctx, "data", nil, &b)
	if err != nil {
		t.Fatal(err)
	}
	var itself, sub unix.Stat_t
	if err := unix.Stat(v.Mountpoint, &itself); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat(v.Mountpoint+"/sub", &sub); err != nil {
		t.Fatal(err)
	}
	if itself.Mode != sub.Mode || itself.Uid != sub.Uid || itself.Gid != sub.Gid || itself.Mtim != sub.Mtim {
		t.Errorf("mode %o, owner %d:%d, time %v; of what is in it %o, %d:%d, %v",
			itself.Mode, itself.Uid, itself.Gid, itself.Mtim, sub.Mode, sub.Uid, sub.Gid, sub.Mtim)
	}
	value := make([]byte, 10)
	if n, err := unix.Getxattr(v.Mountpoint, "user.x", value); err != nil || string(value[:n]) != "y" {
		t.Errorf("attribute %q, %v", value[:max(n, 0)], err)
	}
}
