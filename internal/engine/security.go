package engine

import (
	"strconv"
	"strings"

	"github.com/cleatlabs/cleat/internal/apparmor"
	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/kernel"
)

// securityOpts are the decoded --security-opt values.
type securityOpts struct {
	noNewPrivs bool
	unconfined bool   // seccomp=unconfined
	profile    []byte // seccomp=<JSON>; the client has read the file
	// What a request says wins over the engine's defaults.
	noNewPrivsGiven, seccompGiven bool
	appArmor                      string // profile, "" is the default one
}

// parseSecurityOpts decodes opts, both "key=value" and the older "key:value".
func parseSecurityOpts(opts []string, f kernel.Features) (securityOpts, error) {
	var s securityOpts
	for _, opt := range opts {
		if opt == "no-new-privileges" {
			s.noNewPrivs, s.noNewPrivsGiven = true, true
			continue
		}
		key, value, ok := strings.Cut(opt, "=")
		if !ok {
			key, value, ok = strings.Cut(opt, ":")
		}
		if !ok {
			return s, failure.Invalid("invalid --security-opt 1: %q", opt)
		}
		switch key {
		case "no-new-privileges":
			on, err := strconv.ParseBool(value)
			if err != nil {
				return s, failure.Invalid("invalid --security-opt 2: %q", opt)
			}
			s.noNewPrivs, s.noNewPrivsGiven = on, true
		case "seccomp":
			s.unconfined, s.profile, s.seccompGiven = false, nil, true
			switch value {
			case "unconfined":
				s.unconfined = true
			case "builtin", "":
			default:
				s.profile = []byte(value)
			}
		case "systempaths":
			if value != "unconfined" {
				return s, failure.Invalid("invalid --security-opt 2: %q", opt)
			}
			// fillPaths does what it says.
		case "apparmor":
			if value != apparmor.Unconfined && !f.AppArmor {
				return s, failure.Invalid("--security-opt apparmor=%s: AppArmor is not enabled on this host: leave the option away, or say apparmor=unconfined", value)
			}
			if err := apparmor.CheckName(value); err != nil {
				return s, err
			}
			s.appArmor = value
		case "label":
			// Without SELinux there is nothing to label, so switching labels
			// off is what happens; asking for one is not.
			if value != "disable" {
				return s, failure.NotImplemented("--security-opt label=%s is not supported by this engine: use label=disable", value)
			}
		default:
			return s, failure.Invalid("invalid --security-opt 2: %q", opt)
		}
	}
	return s, nil
}
