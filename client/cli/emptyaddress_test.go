package cli

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/docker/cli/templates"
)

func TestPlainAddresses(t *testing.T) {
	type endpoint struct {
		IP, Gateway netip.Addr
		Prefix      netip.Prefix
	}
	data := struct {
		Networks map[string]*endpoint
		None     *endpoint
		Bindings map[string][]endpoint
		Words    []string
		Said     struct {
			IP   netip.Addr
			Text string
		}
	}{Bindings: map[string][]endpoint{"80/tcp": {{}, {IP: netip.MustParseAddr("::1")}}}, Words: []string{"invalid IP"}, Networks: map[string]*endpoint{"a": {IP: netip.MustParseAddr("10.0.0.2")}, "b": {Prefix: netip.MustParsePrefix("10.1.0.0/16")}}}
	data.Said.Text = "it was an invalid IP"
	for format, want := range map[string]string{
		"{{.Networks.a.IP}}|{{.Networks.a.Gateway}}|{{.Networks.a.Prefix}}":               "10.0.0.2||",
		"{{range .Networks}}{{.IP}},{{.Prefix}};{{end}}":                                  "10.0.0.2,;,10.1.0.0/16;",
		"{{range .Networks}}{{if .IP}}yes{{else}}no{{.IP}}{{end}} {{end}}":                "yes no ",
		"{{range .Networks}}{{with .IP}}{{.}}{{else}}none{{end}} {{end}}":                 "10.0.0.2 none ",
		"{{with $x := .Networks.b.IP}}{{$x}}{{else}}none{{end}}":                          "none",
		`{{define "x"}}[{{.Gateway}}]{{end}}{{range .Networks}}{{template "x" .}}{{end}}`: "[][]",
		"{{json .Networks.b.IP}} {{len .Networks}} {{.None}} {{if .None}}x{{end}}":        `"" 2 <nil> `,
		"{{.Bindings}}{{range .Bindings}}{{.}}{{end}}":                                    "map[80/tcp:[{  } {::1  }]][{  } {::1  }]",
		`{{with index .Bindings "80/tcp"}}{{range .}}{{.}}{{end}}{{end}}{{.Words}}`:       "{  }{::1  }[invalid IP]",
		"{{$b := .Bindings}}{{len $b}}{{$b}} {{.Networks.a}} {{.Said}}":                   "1map[80/tcp:[{  } {::1  }]] {10.0.0.2  } {invalid IP it was an invalid IP}",
	} {
		tmpl, err := templates.Parse(format)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := withPlainAddresses(tmpl)
		if err != nil {
			t.Fatal(err)
		}
		var before, after, b bytes.Buffer
		_ = tmpl.Execute(&before, data)
		if err := plain.Execute(&b, data); err != nil || b.String() != want {
			t.Errorf("%s: %q, want %q (%v)", format, b.String(), want, err)
		}
		if _ = tmpl.Execute(&after, data); before.String() != after.String() {
			t.Errorf("%s: the template itself has changed: %q", format, after.String())
		}
	}
}
