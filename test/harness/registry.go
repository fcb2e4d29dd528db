package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Registry is a private registry server on loopback.
type Registry struct {
	Addr string // host:port
	Data string // its directory
	cmd  *exec.Cmd
}

// StartRegistry serves the named images as library/NAME, with the tags latest and
// other, so that an engine with it as a mirror pulls them by their short names.
func StartRegistry(t testing.TB, names ...string) *Registry {
	t.Helper()
	r := serve(t, t.TempDir())
	t.Cleanup(r.Stop)
	for i, f := range Images(t, names...) {
		for _, tag := range []string{"latest", "other"} {
			if out, err := exec.Command(Binary(t, "cleat-registry"), "push", f, r.Addr+"/library/"+names[i]+":"+tag).CombinedOutput(); err != nil {
				t.Fatalf("push: %v\n%s", err, out)
			}
		}
	}
	return r
}

// serve starts a registry server on data, on a port that the kernel chooses.
func serve(t testing.TB, data string) *Registry {
	t.Helper()
	r := &Registry{Addr: "127.0.0.1:0", Data: data}
	r.Run(t)
	return r
}

// Run starts the registry, again if it has ended, and waits until it answers.
func (r *Registry) Run(t testing.TB) {
	t.Helper()
	cmd := exec.Command(Binary(t, "cleat-registry"), "serve", "--addr", r.Addr, "--data", r.Data)
	out, err := os.CreateTemp("", "registry-*.log")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	defer os.Remove(out.Name())
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.cmd = cmd
	Eventually(t, func() (bool, string) {
		said := make([]byte, 4096)
		n, _ := out.ReadAt(said, 0)
		_, rest, ok := strings.Cut(string(said[:n]), "listening on ")
		if !ok || !strings.Contains(rest, "\n") {
			return false, string(said[:n])
		}
		r.Addr = strings.TrimSpace(rest[:strings.Index(rest, "\n")])
		return true, ""
	})
}

// Kill ends the registry with SIGKILL.
func (r *Registry) Kill() {
	r.cmd.Process.Kill()
	r.cmd.Wait()
}

// Stop ends the registry; it is safe to call it more than once.
func (r *Registry) Stop() {
	if r.cmd.ProcessState == nil {
		r.cmd.Process.Signal(syscall.SIGTERM)
		r.cmd.Wait()
	}
}

// StartHub serves the images that everyday Dockerfiles start from, made here under
// Docker Hub's names (images/hub). It stays up until Stop.
func StartHub(t testing.TB) *Registry {
	t.Helper()
	return serve(t, hub(t))
}

// Wheels is a directory of what `pip install --no-index flask` needs.
func Wheels(t testing.TB) string {
	t.Helper()
	return filepath.Join(hub(t), "wheels")
}

func hub(t testing.TB) string {
	t.Helper()
	if out, err := exec.Command(filepath.Join(Top(t), "images", "hub"), ImageDir()).CombinedOutput(); err != nil {
		t.Fatalf("images/hub: %v\n%s", err, out)
	}
	return filepath.Join(ImageDir(), "hub")
}

// UseBuildx gives the docker command on this engine the stock buildx that test/buildx
// names, as the plugin by which it builds. It is built at the first use on a machine,
// which takes minutes.
func (e *Engine) UseBuildx(t testing.TB) {
	t.Helper()
	plugins := filepath.Join(e.Dir, "config", "cli-plugins")
	if err := os.MkdirAll(plugins, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(stock(t, "buildx"), filepath.Join(plugins, "docker-buildx")); err != nil {
		t.Fatal(err)
	}
}

// StockCompose is the path of the stock docker compose v2 that test/compose names. It is
// built at the first use on a machine, which takes minutes.
func StockCompose(t testing.TB) string {
	t.Helper()
	return stock(t, "compose")
}

// stock is the program of another project that a test module names.
func stock(t testing.TB, module string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(Top(t), "test", module, "build"), toolDir())
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("test/%s/build: %v\n%s", module, err, said.String())
	}
	return strings.TrimSpace(string(out))
}

// toolDir is where programs that tests build are kept between test runs.
func toolDir() string {
	if d := os.Getenv("CLEAT_TEST_TOOLS"); d != "" {
		return d
	}
	return "/var/cache/cleat-test-tools"
}
