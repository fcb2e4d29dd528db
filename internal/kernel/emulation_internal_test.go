package kernel

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestEmulated(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"status":       "enabled\n",
		"qemu-aarch64": "enabled\ninterpreter /usr/bin/qemu-aarch64-static\nflags: OCF\noffset 0\nmagic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n",
		"qemu-s390x":   "enabled\ninterpreter /usr/bin/qemu-s390x\nflags: F\noffset 0\nmagic 7f454c4602020100000000000000000000020016\n",
		"qemu-arm":     "enabled\ninterpreter /usr/bin/qemu-arm\nflags: OC\noffset 0\nmagic 7f454c4601010100000000000000000002002800\n",
		"qemu-riscv64": "disabled\ninterpreter /usr/bin/qemu-riscv64\nflags: F\noffset 0\nmagic 7f454c460201010000000000000000000200f300\n",
		"again":        "enabled\ninterpreter /other\nflags: F\noffset 0\nmagic 7f454c460201010000000000000000000200b700\n",
		"jar":          "enabled\ninterpreter /usr/bin/java\nflags: F\nextension .jar\n",
		"broken":       "enabled\ninterpreter /x\nflags: F\noffset 0\nmagic 7f45x\n",
		"short":        "enabled\ninterpreter /x\nflags: F\noffset 0\nmagic 7f454c46\n",
		"later":        "enabled\ninterpreter /x\nflags: F\noffset 4\nmagic 7f454c4602020100000000000000000000020016\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := emulated(dir), []string{"arm64", "s390x"}; !slices.Equal(got, want) {
		t.Errorf("emulated %v, want %v", got, want)
	}
	if got := emulated(filepath.Join(dir, "missing")); got != nil {
		t.Errorf("emulated %v without registrations", got)
	}
}
