package api_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cleatlabs/cleat/internal/api"
)

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", strings.Repeat("a-long-name", 12), "api.sock") // longer than a socket's path may be
	ln, err := api.Listen(path, 12345)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	if info.Mode() != os.ModeSocket|0o660 || stat.Uid != 0 || stat.Gid != 12345 {
		t.Errorf("mode %v, owner %d:%d", info.Mode(), stat.Uid, stat.Gid)
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left beside the socket: %v", entries)
	}
	if ln.Addr().String() != path {
		t.Errorf("address %s", ln.Addr())
	}
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket outlived its listener")
	}
	if ln.Close() == nil {
		t.Error("closing twice is not told")
	}
}

func TestListenOnATakenPath(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "api.sock")
	first, err := api.Listen(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := api.Listen(path, -1); err == nil || !strings.Contains(err.Error(), "another engine serves it") {
		t.Errorf("a served socket: %v", err)
	}
	// An engine that was killed leaves its socket: it is taken over, and the
	// first listener's end does not take the second's socket away.
	file, err := first.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
	stale := filepath.Join(dir, "stale.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	next, err := api.Listen(stale, -1)
	if err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	defer next.Close()
	if err := os.Rename(stale, path); err != nil { // in the place of the first one
		t.Fatal(err)
	}
	first.Close()
	if conn, err := net.Dial("unix", path); err != nil {
		t.Errorf("the second engine's socket has gone with the first engine: %v", err)
	} else {
		conn.Close()
	}

	plain := filepath.Join(dir, "file")
	if err := os.WriteFile(plain, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := api.Listen(plain, -1); err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("a plain file: %v", err)
	}
	if text, _ := os.ReadFile(plain); string(text) != "precious" {
		t.Error("the file was touched")
	}
	if _, err := api.Listen(filepath.Join(plain, "api.sock"), -1); err == nil || !strings.Contains(err.Error(), "cannot listen on") {
		t.Errorf("below a plain file: %v", err)
	}
}
