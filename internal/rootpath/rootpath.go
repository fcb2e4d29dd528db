// Package rootpath resolves the paths of a container: always inside the container's root, always by file descriptor, so
// that no symbolic link in an image or a volume, nor a process that changes it meanwhile, can lead outside.
package rootpath

import (
	"errors"
	"os"
)

// Open opens path inside the root rootFD.
func Open(rootFD int, path string, flags int, mode uint32) (int, error) {
	return -1, errors.New("rootpath: not available")
}

// MkdirAll makes the directory path and its missing parents inside the root and returns an O_PATH descriptor of it.
func MkdirAll(rootFD int, path string, perm os.FileMode, uid, gid int) (int, error) {
	return -1, errors.New("rootpath: not available")
}

// CreateFile opens the regular file path inside the root as an O_PATH descriptor, and makes it, empty, with its parents
// when it is missing.
func CreateFile(rootFD int, path string, perm os.FileMode, uid, gid int) (int, error) {
	return -1, errors.New("rootpath: not available")
}

// ReadFile reads the regular file path inside the root, up to max bytes; a larger one is an error.
func ReadFile(rootFD int, path string, max int64) ([]byte, error) {
	return nil, errors.New("rootpath: not available")
}
