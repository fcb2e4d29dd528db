package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// networkReport is what the engine finds out about a container's network.
type networkReport struct {
	ID, Name, Mode string
	Running        bool
	Networks       []struct {
		Name, Driver, Interface string
		IP, IP6, Gateway        string `json:",omitempty"`
		Internal, Reaches       bool
		Blocked                 string `json:",omitempty"`
		Peers                   []string
	}
	Ports []struct {
		Host, Container, From string
		Listening             bool
	}
	Listening []string
	Names     *struct {
		Server  string
		Answers bool
		Servers []struct {
			Addr    string
			Answers bool
			Took    time.Duration `json:",omitempty"`
		}
	} `json:",omitempty"`
	Findings []struct {
		Level, Text string
		Remedy      string `json:",omitempty"`
	}
}

func (a *app) networkCheck() spec {
	return spec{
		use: "check [OPTIONS] CONTAINER", short: "Show what a container reaches, what reaches it, and what blocks it", args: a.exactArgs(1),
		long: "Show what a container reaches over its networks, who reaches its ports, and what stands in the way: programs that listen on" +
			"\nnothing or on 127.0.0.1 only, the host's firewall and settings, name servers. The exit status is 1 if something that was asked" +
			"\nfor does not work.",
		setup: func(fs *pflag.FlagSet) action {
			format := fs.String("format", "", `Format the output: "json" prints everything as JSON`)
			return func(ctx context.Context, args []string) error {
				if *format != "" && *format != "json" {
					return fmt.Errorf("invalid value %q of --format: only json is supported", *format)
				}
				var r networkReport
				if err := a.ownJSON(ctx, ownRequest{method: http.MethodGet, route: "/networks/check/" + url.PathEscape(args[0])}, &r); err != nil {
					return err
				}
				if *format == "json" {
					enc := json.NewEncoder(a.out)
					enc.SetIndent("", "    ")
					if err := enc.Encode(r); err != nil {
						return err
					}
				} else {
					r.write(a.out)
				}
				if r.problems() > 0 {
					return &statusError{code: 1}
				}
				return nil
			}
		},
	}
}

func (r *networkReport) problems() int {
	n := 0
	for _, f := range r.Findings {
		if f.Level == "problem" {
			n++
		}
	}
	return n
}

// write is the report for people.
func (r *networkReport) write(w io.Writer) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	for _, n := range r.Networks {
		say("network %s (%s)", n.Name, n.Driver)
		say("    address   %s", orNone(n.IP, n.IP6, n.Interface))
		switch {
		case n.Internal:
			say("    outside   not reached: the network is internal")
		case n.Blocked != "":
			say("    outside   not reached: %s", n.Blocked)
		case n.Gateway != "":
			say("    outside   by %s", n.Gateway)
		default:
			say("    outside   not reached by this network")
		}
		switch {
		case len(n.Peers) == 0:
			say("    reaches   no other container is on it")
		case n.Reaches:
			say("    reaches   %s", strings.Join(n.Peers, ", "))
		default:
			say("    reaches   not %s: containers on it are kept apart", strings.Join(n.Peers, ", "))
		}
	}
	for _, p := range r.Ports {
		state := "nothing listens there"
		if p.Listening {
			state = "reached by " + p.From
		}
		say("port %s -> %s: %s", p.Host, p.Container, state)
	}
	if r.Names != nil {
		say("names: %s %s", r.Names.Server, answers(r.Names.Answers))
		for _, s := range r.Names.Servers {
			took := ""
			if s.Answers {
				took = fmt.Sprintf(" in %v", s.Took.Round(100*time.Microsecond))
			}
			say("    behind it %s %s%s", s.Addr, answers(s.Answers), took)
		}
	}
	for _, f := range r.Findings {
		say("%s: %s", f.Level, f.Text)
		if f.Remedy != "" {
			say("    what helps: %s", f.Remedy)
		}
	}
	if r.problems() == 0 {
		say("no problem found")
	}
}

func answers(yes bool) string {
	if yes {
		return "answers"
	}
	return "does not answer"
}

// orNone writes the addresses that there are, and the interface they are on.
func orNone(ip, ip6, link string) string {
	var all []string
	for _, a := range []string{ip, ip6} {
		if a != "" {
			all = append(all, a)
		}
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, " ") + " on " + link
}
