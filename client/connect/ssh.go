package connect

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/docker/cli/cli/connhelper"
	"github.com/docker/cli/cli/connhelper/ssh"
)

// remoteCommand connects its streams to the engine of the machine where it runs: with cleat, or with docker where that
// is the one there is. The arguments are theirs.
const remoteCommand = `for c in cleat docker; do command -v $c >/dev/null 2>&1 && exec $c "$@"; done; ` +
	`echo "neither cleat nor docker is in the PATH of that machine's ssh sessions" >&2; exit 127`

// overSSH reaches the engine of another machine as docker's client does, by a command that ssh runs there.
func overSSH(host string) (*connhelper.ConnectionHelper, error) {
	u, err := url.Parse(host)
	if err != nil {
		return nil, err
	}
	spec, err := ssh.NewSpec(u)
	if err != nil {
		return nil, fmt.Errorf("ssh host connection is not valid: %w", err)
	}
	command := []string{"sh", "-c", remoteCommand, "sh"}
	if strings.Trim(spec.Path, "/") != "" {
		command = append(command, "--host=unix://"+spec.Path)
	}
	args, err := spec.Command([]string{"-o ConnectTimeout=30", "-T"}, append(command, "system", "dial-stdio")...)
	if err != nil {
		return nil, err
	}
	return connhelper.GetCommandConnectionHelper("ssh", args...)
}
