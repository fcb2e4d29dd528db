package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/cleatlabs/cleat/test/harness"
)

// building makes an image in one call of the API, without Docker's plugin for it.
var building = transition{
	verb: []string{buildCall, "doomed-image", "FROM busybox\nRUN echo first >/first\nRUN echo second >/second\n"},
	tidy: []string{"rmi", "doomed-image"},
}

// weaving makes an image two of whose layers have the same archive, in which a file of the size is left where it is.
func weaving(size string) transition {
	large := "RUN head -c " + size + " /dev/zero >/large; touch -d @0 /large"
	return transition{
		verb: []string{buildCall, "doomed-image", "FROM busybox\n" + large + "\nRUN rm /large\n" + large + "; true\n"},
		tidy: []string{"rmi", "doomed-image"},
	}
}

// buildCall stands for a call of the API in place of a command line.
const buildCall = "POST /build"

// buildTransitions are those of builds.
var buildTransitions = map[string]transition{
	"build.export.before-name":    building,
	"image.built.after-name":      building,
	"build.export.after-layers":   building,
	"store.defer.after-blobs":     building,
	"store.defer.after-copy":      building,
	"store.defer.after-sync":      building,
	"store.defer.after-next-copy": building,
	"build.recover.before-note":   building,
	"store.woven.after-blob":      weaving("100000"),
	"store.woven.before-replace":  weaving("100001"),
}

// callBuild builds a Dockerfile as an image of the given name.
func callBuild(t *testing.T, e *harness.Engine, name, dockerfile string) harness.Result {
	t.Helper()
	var files bytes.Buffer
	w := tar.NewWriter(&files)
	if err := w.WriteHeader(&tar.Header{Name: "Dockerfile", Mode: 0o644, Size: int64(len(dockerfile))}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, dockerfile); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", e.Socket)
	}}
	defer transport.CloseIdleConnections()
	query := url.Values{"version": {"2"}, "t": {name}}
	failed := func(err error) harness.Result { return harness.Result{Code: 1, Stderr: err.Error()} }
	res, err := (&http.Client{Transport: transport}).Post("http://engine/v1.50/build?"+query.Encode(), "application/x-tar", &files)
	if err != nil {
		return failed(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return failed(err)
	case res.StatusCode != http.StatusOK || strings.Contains(string(body), `"errorDetail"`):
		return harness.Result{Code: 1, Stderr: string(body)}
	}
	return harness.Result{Stdout: string(body)}
}
