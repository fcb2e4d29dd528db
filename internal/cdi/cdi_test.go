package cdi_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/cleatlabs/cleat/internal/cdi"
)

// describe writes descriptions of one device each, v.example/c=NAME, and returns their directory.
func describe(t *testing.T, edits map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, e := range edits {
		text := fmt.Sprintf(`{"cdiVersion":"1.1.0","kind":"v.example/c","devices":[{"name":%q,"containerEdits":{%s}}]}`, name, e)
		if err := os.WriteFile(filepath.Join(dir, name+".json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFind(t *testing.T) {
	static := describe(t, map[string]string{
		"a":    `"env":["WHERE=static"]`,
		"b":    `"env":["B=b"],"deviceNodes":[{"path":"/dev/b","hostPath":"/dev/null","permissions":"r"}],"additionalGids":[7]`,
		"hook": `"hooks":[{"hookName":"createContainer","path":"/bin/x"},{"hookName":"poststop","path":"/bin/y"}]`,
		"net":  `"netDevices":[{"hostInterfaceName":"eth9","name":"eth0"}]`,
		"rdt":  `"intelRdt":{"closID":"x"}`,
		"tmp":  `"mounts":[{"hostPath":"tmpfs","containerPath":"/m","type":"tmpfs"}]`,
	})
	dynamic := describe(t, map[string]string{"a": `"env":["WHERE=dynamic"]`})
	e, err := cdi.Find([]string{static, dynamic}, []string{"v.example/c=a", "v.example/c=b"})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(e.Env, []string{"WHERE=dynamic", "B=b"}) || !slices.Equal(e.Groups, []uint32{7}) {
		t.Errorf("%+v", e)
	}
	if len(e.Devices) != 1 || e.Devices[0].Path != "/dev/b" || e.Devices[0].Type != "c" || e.Devices[0].Major != 1 || e.Devices[0].Minor != 3 {
		t.Errorf("devices: %+v", e.Devices)
	}
	if len(e.Rules) != 1 || !e.Rules[0].Allow || e.Rules[0].Access != "r" {
		t.Errorf("rules: %+v", e.Rules)
	}
	for name, c := range map[string]struct {
		class func(error) bool
		text  string
	}{
		"v.example/c=none": {errdefs.IsInvalidArgument, "unresolvable CDI devices v.example/c=none"},
		"no name":          {errdefs.IsInvalidArgument, `"no name" is not the name of a device`},
		"v.example/c=hook": {errdefs.IsNotImplemented, "has hooks (/bin/x, /bin/y)"},
		"v.example/c=net":  {errdefs.IsNotImplemented, "network devices"},
		"v.example/c=rdt":  {errdefs.IsNotImplemented, "intelRdt"},
		"v.example/c=tmp":  {errdefs.IsNotImplemented, "a mount of type tmpfs"},
	} {
		if _, err := cdi.Find([]string{static, dynamic}, []string{"v.example/c=b", name}); err == nil || !c.class(err) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := strings.Join(cdi.Names([]string{static, dynamic}), " "); got != "v.example/c=a v.example/c=b v.example/c=hook v.example/c=net v.example/c=rdt v.example/c=tmp" {
		t.Errorf("names: %s", got)
	}
	if got := cdi.Names([]string{filepath.Join(static, "none")}); len(got) > 0 {
		t.Errorf("names of no directory: %v", got)
	}
}
