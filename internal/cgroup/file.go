package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cleatlabs/cleat/internal/kernel"
)

// writeFile writes value to an existing file of a group in one write, as the kernel wants it.
func writeFile(dir, name, value string) error {
	path := filepath.Join(dir, name)
	fd, err := openFile(path, unix.O_WRONLY|unix.O_TRUNC)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	return writeFD(fd, path, value)
}

func writeFD(fd int, path, value string) error {
	for {
		_, err := unix.Write(fd, []byte(value))
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EINTR):
			return &os.PathError{Op: "write " + strconv.Quote(value) + " to", Path: path, Err: err}
		}
	}
}

func openFile(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

func readString(dir, name string) (string, error) {
	b, err := kernel.ReadFile(filepath.Join(dir, name))
	return strings.TrimSpace(string(b)), err
}

// readUint reads a file that holds one number. "max" is the largest one.
func readUint(dir, name string) (uint64, error) {
	s, err := readString(dir, name)
	if err != nil {
		return 0, err
	}
	if s == "max" {
		return 1<<64 - 1, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
	}
	return n, nil
}

// readKey reads a number from a file of "key value" lines; a unit of kB behind the number counts.
func readKey(dir, name, key string) (uint64, error) {
	s, err := readString(dir, name)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != key {
			continue
		}
		n, err := strconv.ParseUint(f[1], 10, 64)
		if err == nil && len(f) == 3 && f[2] == "kB" {
			n *= 1024
		}
		return n, err
	}
	return 0, fmt.Errorf("%s has no %q", filepath.Join(dir, name), key)
}

func makeDir(path string) error {
	for {
		if err := unix.Mkdir(path, 0o755); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
