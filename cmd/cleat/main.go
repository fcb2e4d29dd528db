// Command cleat is the client of the Cleat engine. Installed under the name docker
// it says Docker's name where scripts look for it.
package main

import (
	"os"

	"github.com/cleatlabs/cleat/client/cli"
)

// version is set by the linker.
var version = "unknown"

func main() {
	os.Exit(cli.Run(cli.Process{
		Args: os.Args, Version: version,
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
	}))
}
