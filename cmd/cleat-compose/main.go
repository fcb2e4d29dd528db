// Command cleat-compose is the plugin of cleat that brings up whole applications: `cleat
// compose` runs it. It speaks the protocol of Docker's CLI plugins, so that under the name
// docker-compose it does the same for the docker command, and by itself.
package main

import (
	"os"

	"github.com/cleatlabs/cleat/client/compose/command"
)

// version is set by the linker.
var version = "unknown"

func main() {
	os.Exit(command.Run(command.Process{Args: os.Args, Version: version, In: os.Stdin, Out: os.Stdout, Err: os.Stderr}))
}
