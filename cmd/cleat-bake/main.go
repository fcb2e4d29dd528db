// Command cleat-bake builds what bake files describe: `cleat bake` and `cleat buildx bake`
// run it by way of cleat-build, whose commands it has all. It is a program of its own
// because the languages of bake files take long to get ready.
package main

import (
	"os"

	"github.com/cleatlabs/cleat/client/build"
	"github.com/cleatlabs/cleat/client/build/bake"
)

// version is set by the linker.
var version = "unknown"

func main() {
	os.Exit(build.Run(build.Process{Args: os.Args, Version: version, In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Bake: bake.Read}))
}
