package build_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	controlapi "github.com/moby/buildkit/api/services/control"
	"google.golang.org/protobuf/proto"

	"github.com/cleatlabs/cleat/internal/build"
)

// account is what a build has told.
type account struct {
	mu      sync.Mutex
	image   string
	steps   []string
	onTrace func() error
}

func (a *account) Trace(encoded []byte) error {
	var piece controlapi.StatusResponse
	if err := proto.Unmarshal(encoded, &piece); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, v := range piece.Vertexes {
		a.steps = append(a.steps, v.Name)
	}
	if a.onTrace != nil {
		return a.onTrace()
	}
	return nil
}

func (a *account) Image(id string) error {
	a.image = id
	return nil
}

// archive packs files as a client sends them.
func archive(t *testing.T, files map[string]string) io.Reader {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for name, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &out
}

func TestBuildInOneCall(t *testing.T) {
	b := bareBench(t)
	value := "x"
	told := &account{}
	err := b.builder.Build(context.Background(), build.Request{
		Context:    archive(t, map[string]string{"sub/D": "FROM scratch AS a\nARG V\nCOPY sub/$V /\nFROM scratch\nCOPY no /\n", "sub/x": ""}),
		Dockerfile: "sub/D", Target: "a", Args: map[string]*string{"V": &value, "UNSET": nil}, Labels: map[string]string{"l": "m"},
		Tags: []string{"one", "two:2"},
	}, told)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"docker.io/library/one:latest", "docker.io/library/two:2"} {
		if image, _ := b.manifest(t, name); image.Target.Digest.String() != told.image {
			t.Errorf("%s is %s, told was %s", name, image.Target.Digest, told.image)
		}
	}
	if !strings.Contains(strings.Join(told.steps, "\n"), "COPY sub/x /") {
		t.Errorf("the log has only the steps %q", told.steps)
	}
}

func TestBuildOfFilesInACallOfTheirOwn(t *testing.T) {
	b := bareBench(t)
	told := &account{}
	var done sync.WaitGroup
	done.Go(func() {
		err := b.builder.Build(context.Background(), build.Request{ID: "id", Remote: build.RemoteUpload}, told)
		if err != nil {
			t.Error(err)
		}
	})
	err := b.builder.Build(context.Background(), build.Request{
		ID: build.RemoteUpload + ":id", Context: archive(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY . /\n"}),
	}, &account{})
	if err != nil {
		t.Error(err)
	}
	done.Wait()
	if told.image == "" {
		t.Error("no image was made")
	}
}

// A context that nobody can bring is refused as a request, before anything is built.
func TestRemotesThatAreRefused(t *testing.T) {
	b := bareBench(t)
	for remote, want := range map[string]string{
		build.RemoteUpload: "needs the parameter buildid", build.RemoteSession: "needs the parameter session", "x": "remoteURL (x) could not be recognized as URL",
	} {
		err := b.builder.Build(context.Background(), build.Request{Remote: remote}, &account{})
		if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", remote, err)
		}
	}
}

func TestBuildIsCancelledByName(t *testing.T) {
	b := bareBench(t)
	hanging, end := io.Pipe() // a client that never sends its files to the end
	defer end.Close()
	begun := make(chan struct{})
	told := &account{onTrace: sync.OnceValue(func() error { close(begun); return nil })}
	result := make(chan error, 1)
	go func() {
		result <- b.builder.Build(context.Background(), build.Request{ID: "id", Context: hanging}, told)
	}()
	<-begun
	if err := b.builder.Build(context.Background(), build.Request{ID: "id", Context: strings.NewReader("")}, &account{}); !errdefs.IsConflict(err) {
		t.Errorf("another build of that id: %v", err)
	}
	b.builder.Cancel("unknown")
	b.builder.Cancel("id")
	hanging.CloseWithError(errors.New("the client has gone"))
	if err := <-result; err == nil {
		t.Error("a cancelled build reports success")
	}
}

func TestReportThatCannotBeDelivered(t *testing.T) {
	b := bareBench(t)
	gone := errors.New("the client has gone")
	err := b.builder.Build(context.Background(), build.Request{
		Context: archive(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY . /\n"}),
	}, &account{onTrace: func() error { return gone }})
	if !errors.Is(err, gone) {
		t.Errorf("error %v", err)
	}
}

func TestRequestsAreChecked(t *testing.T) {
	b := bareBench(t)
	for text, r := range map[string]build.Request{
		"multiple outputs":      {Outputs: []build.Output{{Type: "local"}, {Type: "tar"}}},
		"network mode \"mine\"": {NetworkMode: "mine"},
		"host-gateway":          {ExtraHosts: []string{"a:host-gateway"}},
		"write NAME:ADDRESS":    {ExtraHosts: []string{"a"}},
		"is not an address":     {ExtraHosts: []string{"a:b"}},
		"invalid image name":    {Tags: []string{"UPPER"}},
		"could not be found":    {Outputs: []build.Output{{Type: "nothing-known"}}},
	} {
		r.Context = archive(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY . /\n"})
		if err := b.builder.Build(context.Background(), r, &account{}); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
