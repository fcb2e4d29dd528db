package build_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	control "github.com/moby/buildkit/api/services/control"
	types "github.com/moby/buildkit/api/types"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/filesync"
	"github.com/moby/buildkit/util/bklog"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"

	"github.com/cleatlabs/cleat/client/build"
)

// engine stands for one: it takes what the client sends to /grpc and /session and answers
// as solve and status say.
type engine struct {
	control.UnimplementedControlServer
	socket   string
	sessions *session.Manager

	mu       sync.Mutex
	requests []*control.SolveRequest
	pruned   []*control.PruneRequest
	asked    []string

	solve   func(ctx context.Context, e *engine, r *control.SolveRequest) (map[string]string, error)
	status  func(ref string) []*control.StatusResponse
	usage   []*control.UsageRecord
	records []*control.BuildHistoryEvent
	labels  map[string]string
	mute    bool   // it does not tell of itself
	bounded bool   // how much is used was to be told within a time
	refusal string // why it does not build; or ""
}

func start(t *testing.T) *engine {
	t.Helper()
	e := &engine{socket: filepath.Join(t.TempDir(), "s"), labels: map[string]string{}}
	var err error
	if e.sessions, err = session.NewManager(); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", e.socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/grpc", e.grpc)
	mux.HandleFunc("/session", func(w http.ResponseWriter, r *http.Request) {
		_ = e.sessions.HandleHTTPRequest(quietly(context.WithoutCancel(r.Context())), w, r)
	})
	srv := &http.Server{Handler: mux}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	t.Setenv("DOCKER_HOST", "unix://"+e.socket)
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	return e
}

// quietly keeps what the engine has to say of a session that ends from the client's logger, which both have in this process.
func quietly(ctx context.Context) context.Context {
	silent := logrus.New()
	silent.SetOutput(io.Discard)
	return bklog.WithLogger(ctx, logrus.NewEntry(silent))
}

func (e *engine) grpc(w http.ResponseWriter, _ *http.Request) {
	if e.refusal != "" {
		w.WriteHeader(http.StatusInternalServerError)
		_ = json.NewEncoder(w).Encode(map[string]string{"message": e.refusal})
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
	srv := grpc.NewServer(grpc.UnaryInterceptor(grpcerrors.UnaryServerInterceptor), grpc.StreamInterceptor(grpcerrors.StreamServerInterceptor))
	control.RegisterControlServer(srv, e)
	_ = srv.Serve(&oneConn{conn: conn, done: make(chan struct{})})
}

// oneConn is a listener that has one connection.
type oneConn struct {
	conn net.Conn
	done chan struct{}
	once sync.Once
}

func (l *oneConn) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	<-l.done
	return nil, net.ErrClosed
}
func (l *oneConn) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{} }

func (e *engine) Solve(ctx context.Context, r *control.SolveRequest) (*control.SolveResponse, error) {
	e.mu.Lock()
	e.requests = append(e.requests, r)
	e.mu.Unlock()
	res := map[string]string{"containerimage.digest": "sha256:" + strings.Repeat("a", 64), "containerimage.config.digest": "sha256:" + strings.Repeat("b", 64)}
	if e.solve != nil {
		var err error
		if res, err = e.solve(ctx, e, r); err != nil {
			return nil, err
		}
	}
	return &control.SolveResponse{ExporterResponse: res}, nil
}

func (e *engine) Status(r *control.StatusRequest, s control.Control_StatusServer) error {
	if e.status != nil {
		for _, m := range e.status(r.Ref) {
			if err := s.Send(m); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *engine) ListWorkers(ctx context.Context, _ *control.ListWorkersRequest) (*control.ListWorkersResponse, error) {
	if e.mute {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &control.ListWorkersResponse{Record: []*types.WorkerRecord{{ID: "w", Labels: e.labels, BuildkitVersion: &types.BuildkitVersion{Version: "v0.34.2"}}}}, nil
}

// fetch reads a file of one of the client's directories, as the engine does.
func (e *engine) fetch(ctx context.Context, r *control.SolveRequest, dir string) (map[string]string, error) {
	caller, err := e.sessions.Get(ctx, r.Session, false)
	if err != nil {
		return nil, err
	}
	dest, err := os.MkdirTemp("", "cleat-build-test-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dest) }()
	if err := filesync.FSSync(ctx, caller, filesync.FSSendRequestOpt{Name: dir, DestDir: dest}); err != nil {
		return nil, err
	}
	out := map[string]string{}
	err = filepath.WalkDir(dest, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(p)
		rel, _ := filepath.Rel(dest, p)
		out[rel] = string(data)
		return err
	})
	return out, err
}

// last is what the engine was asked last.
func (e *engine) last(t *testing.T) *control.SolveRequest {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.requests) == 0 {
		t.Fatal("the engine was asked nothing")
	}
	return e.requests[len(e.requests)-1]
}

type result struct {
	code           int
	stdout, stderr string
}

// cleat runs a command line with standard input.
func cleat(stdin string, args ...string) result {
	var out, errs bytes.Buffer
	code := build.Run(build.Process{Args: append([]string{"cleat-build"}, args...), Version: "test", In: strings.NewReader(stdin), Out: &out, Err: &errs})
	return result{code, out.String(), errs.String()}
}

// files makes a directory of files.
func files(t *testing.T, list map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range list {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
