package volume_test

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	"github.com/cleatlabs/cleat/internal/record"
	"github.com/cleatlabs/cleat/internal/volume"
)

// The child of the crash test is this test binary: it makes and removes a
// volume until a failpoint kills it.
const (
	childRoot = "CLEAT_TEST_VOLUME_ROOT"
	childSize = "CLEAT_TEST_VOLUME_SIZE"
)

// sized are the options of a volume that has a size, or has none.
func sized(size string) map[string]string {
	if size == "" {
		return nil
	}
	return map[string]string{"size": size}
}

func TestMain(m *testing.M) {
	root := os.Getenv(childRoot)
	if root == "" {
		os.Exit(m.Run())
	}
	s, err := volume.Open(volume.Config{Root: root})
	if err == nil {
		_, err = create(s, volume.Request{Name: "data", Options: sized(os.Getenv(childSize))})
	}
	if err == nil {
		err = s.Remove(ctx, "data", false)
	}
	if err != nil {
		os.Exit(3)
	}
}

func TestCrashLeavesWholeVolumesOnly(t *testing.T) {
	for _, point := range []string{"volume.create.after-limit", "volume.create.before-rename", "volume.remove.after-rename"} {
		t.Run(point, func(t *testing.T) {
			root := t.TempDir()
			killedAt(t, point, root, "")
			if left, _ := os.ReadDir(root); len(left) != 1 {
				t.Fatalf("the crash left %v: nothing to clean up", left)
			}
			s := open(t, root)
			if got := names(t, s, nil); len(got) != 0 {
				t.Errorf("half a volume is listed: %v", got)
			}
			if left, _ := os.ReadDir(root); len(left) != 0 {
				t.Errorf("left over: %v", left)
			}
			if _, err := create(s, volume.Request{Name: "data"}); err != nil {
				t.Error(err)
			}
			if got := names(t, open(t, root), nil); !slices.Equal(got, []string{"data"}) {
				t.Errorf("volumes %v", got)
			}
		})
	}
}

// killedAt has a child make and remove a volume, and be killed at a point of that.
func killedAt(t *testing.T, point, root, size string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childRoot+"="+root, childSize+"="+size, record.FailpointEnv+"="+point)
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the failpoint did not kill: %v", err)
	}
}
