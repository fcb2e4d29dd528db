package e2e

import (
	"strings"
	"testing"
)

// skopeo, and with it podman and buildah, reads and writes an engine's images by API 1.22.
func TestSkopeo(t *testing.T) {
	e := engine(t, "busybox")
	host, dir, image := "unix://"+e.Socket, t.TempDir(), name(t)+":1"
	removeImages(t, e, image)
	e.OK(t, "skopeo", "--insecure-policy", "copy", "--src-daemon-host", host, "docker-daemon:busybox:latest", "oci:"+dir+":a")
	e.OK(t, "skopeo", "--insecure-policy", "copy", "--dest-daemon-host", host, "oci:"+dir+":a", "docker-daemon:"+image)
	if got := e.OK(t, "docker", "run", "--rm", image, "echo", "here"); got != "here" {
		t.Errorf("the copy says %q", got)
	}
	if got := e.OK(t, "skopeo", "inspect", "--daemon-host", host, "docker-daemon:"+image); !strings.Contains(got, `"Os": "linux"`) {
		t.Errorf("%s", got)
	}
}
