package mount

import "errors"

// CopyUp copies the content of the directory srcPath inside the root srcRootFD into the empty directory dstDir.
func CopyUp(srcRootFD int, srcPath, dstDir string) error { return errors.New("mount: not available") }
