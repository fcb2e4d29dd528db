// Command cleat-build is the plugin of cleat that builds images: `cleat build`, `cleat
// builder …` and `cleat buildx …` run it. It speaks the protocol of Docker's CLI plugins,
// so that under the name docker-buildx in one of Docker's plugin directories it does the
// same for the docker command.
package main

import (
	"os"

	"github.com/cleatlabs/cleat/client/build"
)

// version is set by the linker.
var version = "unknown"

func main() {
	os.Exit(build.Run(build.Process{Args: os.Args, Version: version, In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
