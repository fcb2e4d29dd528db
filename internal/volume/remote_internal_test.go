package volume

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWhatTheKernelIsAskedFor(t *testing.T) {
	file := filepath.Join(t.TempDir(), "credentials")
	content := "# the sailor's\n username=sailor\r\npassword=a,b=c \ndom=HARBOUR\n\n"
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ fstype, device, list, want string }{
		{"nfs", ":/srv", "addr=localhost,rw,nfsvers=4", "addr=127.0.0.1,rw,nfsvers=4"},
		{"nfs4", "server:/srv", "rw", "rw"},
		{"cifs", "//localhost/files", "", "addr=127.0.0.1"},
		{"smb3", `\\localhost\files\below`, "username=u", "username=u,addr=127.0.0.1"},
		{"cifs", "//10.0.0.1/files$", "vers=3.0", "vers=3.0,addr=10.0.0.1"},
		{"cifs", "//fd00::1/files", "vers=3.0", "vers=3.0,addr=fd00::1"},
		{"cifs", "//not.there.invalid/files", "ip=localhost,ro", "ip=127.0.0.1,ro"},
		{"cifs", "//not.there.invalid/files", "addr=10.0.0.2", "addr=10.0.0.2"},
		{"cifs", "//10.0.0.1/100%", "password=a,,b,ro", "password=a,,b,ro,addr=10.0.0.1"},
		{"cifs", "//10.0.0.1/files", "credentials=" + file + ",ro", "username=sailor,password=a,,b=c ,domain=HARBOUR,ro,addr=10.0.0.1"},
		{"cifs", "files", "guest", "guest"},
		{"tmpfs", "tmpfs", "size=1m,addr=localhost", "size=1m,addr=localhost"},
	} {
		opts := map[string]string{optType: tc.fstype, optDevice: tc.device, optData: tc.list}
		if got, err := forKernel(t.Context(), opts); err != nil || got != tc.want {
			t.Errorf("%s %s %s: %q, %v; wanted %q", tc.fstype, tc.device, tc.list, got, err, tc.want)
		}
	}
}

func TestCredentialsThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for content, want := range map[string]string{
		"secret":                           "line 1 of its credentials",
		"username=u\nsecret=x":             "line 2 of its credentials",
		"username=secret,noauth":           "cannot be given to the kernel",
		"username=u\npassword=sec\x00ret":  "line 2 of its credentials",
		strings.Repeat("#", 5000):          "at most 4096 bytes",
		"username=u\npassword=secret\nx y": "line 3 of its credentials",
	} {
		file := filepath.Join(dir, "file")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if list, err := credentials(file); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %q, %v; wanted %q", content, list, err, want)
		}
	}
	for _, path := range []string{fifo, dir, filepath.Join(dir, "none"), ""} {
		if list, err := credentials(path); err == nil {
			t.Errorf("%s: %q", path, list)
		}
	}
}

func FuzzCredentials(f *testing.F) {
	f.Add("username=u\npassword=p,,\n", "//h/s")
	f.Add("pass", `\\`)
	f.Fuzz(func(t *testing.T, content, device string) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		list, err := credentials(file)
		if err == nil && strings.ContainsAny(list, "\x00\n") {
			t.Errorf("%q gives the options %q", content, list)
		}
		if strings.Contains(shareHost(device), "/") {
			t.Errorf("%q has the server %q", device, shareHost(device))
		}
	})
}

// What the option size of a plugin's volume means is its plugin's business: nothing of the engine's is limited for it.
func TestOptionsOfPluginsLimitNothing(t *testing.T) {
	meta := metadata{Driver: "plugin", Options: map[string]string{optSize: "large"}}
	if err := (&Service{}).limit(filepath.Join(t.TempDir(), "none"), &meta); err != nil || meta.Project != 0 {
		t.Error(meta.Project, err)
	}
}
