package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/identity"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/cleatlabs/cleat/internal/failure"
)

// uploadPatience is how long the two calls of a build whose files come in a call of
// their own wait for each other.
const uploadPatience = 5 * time.Second

// Progress is told how a build goes. Its methods are not called at the same time, and
// not after the build has returned. An error ends the build.
type Progress interface {
	// Trace is a piece of the log, an encoded StatusResponse of BuildKit's API.
	Trace(encoded []byte) error
	// Image is the digest of the image that was made.
	Image(id string) error
}

// calls are the builds that were asked for in one call and can be cancelled by name.
type calls struct {
	mu    sync.Mutex
	named map[string]*call
}

// call is a build with a name, or the promise of its files, whichever came first.
type call struct {
	users   int
	cancel  context.CancelFunc
	uploads chan io.Reader // taken by the build
	taken   chan struct{}  // closed when the build has ended
}

func (c *calls) enter(id string) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.named == nil {
		c.named = map[string]*call{}
	}
	one := c.named[id]
	if one == nil {
		one = &call{uploads: make(chan io.Reader), taken: make(chan struct{})}
		c.named[id] = one
	}
	one.users++
	return one
}

func (c *calls) leave(id string, one *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if one.users--; one.users == 0 {
		delete(c.named, id)
	}
}

// begin makes the build cancellable by its name.
func (c *calls) begin(id string, one *call, cancel context.CancelFunc) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if one.cancel != nil {
		return failure.Conflict("a build with the id %s is under way already", id)
	}
	one.cancel = cancel
	return nil
}

// Cancel ends the build of that id. A build that is not there is no error: it may just
// have ended.
func (b *Builder) Cancel(id string) {
	b.calls.mu.Lock()
	one := b.calls.named[id]
	var cancel context.CancelFunc
	if one != nil {
		cancel = one.cancel
	}
	b.calls.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

// Build builds what a client asks for in one call, and returns when that is done. The
// build ends with ctx.
func (b *Builder) Build(ctx context.Context, r Request, progress Progress) error {
	if id, upload := strings.CutPrefix(r.ID, RemoteUpload+":"); upload {
		return b.upload(ctx, id, r.Context)
	}
	if err := r.checkRemote(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if r.ID != "" {
		one := b.calls.enter(r.ID)
		defer b.calls.leave(r.ID, one)
		if err := b.calls.begin(r.ID, one, cancel); err != nil {
			return err
		}
		defer close(one.taken)
		if r.Remote == RemoteUpload {
			var err error
			if r.Context, err = one.await(ctx); err != nil {
				return err
			}
			r.Remote = ""
		}
	}
	s, err := b.open()
	if err != nil {
		return err
	}
	ref := identity.NewID()
	req, err := b.solveRequest(&r, ref)
	if err != nil {
		return err
	}
	switch r.Remote {
	case "":
		url, forget := b.bodies.add(r.Context)
		defer forget()
		req.FrontendAttrs["context"] = url
	case RemoteSession:
	default:
		req.FrontendAttrs["context"] = r.Remote
	}
	return s.run(ctx, req, progress)
}

// upload hands files to the build that waits for them.
func (b *Builder) upload(ctx context.Context, id string, files io.Reader) error {
	one := b.calls.enter(id)
	defer b.calls.leave(id, one)
	patience := time.NewTimer(uploadPatience)
	defer patience.Stop()
	select {
	case one.uploads <- files:
	case <-one.taken:
		return nil
	case <-patience.C:
		return failure.NotFound("no build %s waits for its files", id)
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-one.taken: // the files are read as long as the build goes on
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// await gives the files that come in a call of their own.
func (one *call) await(ctx context.Context) (io.Reader, error) {
	patience := time.NewTimer(uploadPatience)
	defer patience.Stop()
	select {
	case files := <-one.uploads:
		return files, nil
	case <-patience.C:
		return nil, failure.Invalid("the files of the build were not sent within %s", uploadPatience)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// run solves a request and reports on it.
func (s *solving) run(ctx context.Context, req *controlapi.SolveRequest, progress Progress) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The log goes on to its end, and says what was cancelled.
	logCtx, endLog := context.WithCancel(context.WithoutCancel(ctx))
	defer endLog()
	log := make(chan *controlapi.StatusResponse)
	stream := &statusStream{ctx: logCtx, out: log}
	ended, told := make(chan error, 1), make(chan error, 1)
	go func() {
		defer close(log)
		ended <- s.control.Status(&controlapi.StatusRequest{Ref: req.Ref}, stream)
	}()
	go func() { told <- forward(logCtx, log, progress, cancel) }()

	began := time.Now()
	res, err := s.control.Solve(ctx, req)
	err = s.worker.relief.explain(err, began)
	if err != nil && !stream.awaitEnd(ended, endLog) {
		return err // it was refused, and there is nothing to tell
	}
	if lost := <-told; lost != nil {
		return lost
	}
	if err != nil {
		return err
	}
	if err := <-ended; err != nil {
		return fmt.Errorf("the log of the build: %w", err)
	}
	if len(req.Exporters) != 1 || !makesImage(req.Exporters[0].Type) {
		return nil
	}
	return progress.Image(res.ExporterResponse[exptypes.ExporterImageDigestKey])
}

// awaitEnd waits for the end of the log of a build that has failed. It reports false for
// one that was refused and has no log: BuildKit would wait for it for seconds.
func (s *statusStream) awaitEnd(ended <-chan error, end func()) bool {
	grace := statusGrace
	if !s.begun.Load() {
		grace = refusalGrace
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-ended:
		return true
	case <-timer.C:
	}
	end()
	return s.begun.Load()
}

const (
	// statusGrace is how long the log of a failed build may take to come to its end.
	statusGrace = 3 * time.Second
	// refusalGrace is how long a log that has not begun may take to.
	refusalGrace = 300 * time.Millisecond
)

// forward passes the log on, and calls stop if it cannot. The channel is read to its end
// in any case; what comes after the end of ctx is not told.
func forward(ctx context.Context, log <-chan *controlapi.StatusResponse, progress Progress, stop func()) error {
	var failed error
	for piece := range log {
		if failed != nil || ctx.Err() != nil {
			continue
		}
		encoded, err := proto.Marshal(piece)
		if err == nil {
			err = progress.Trace(encoded)
		}
		if err != nil {
			failed = fmt.Errorf("report on the build: %w", err)
			stop()
		}
	}
	return failed
}

// statusStream is the server's end of a stream of BuildKit's API within the process.
type statusStream struct {
	ctx   context.Context
	out   chan<- *controlapi.StatusResponse
	begun atomic.Bool
}

func (s *statusStream) Context() context.Context                { return s.ctx }
func (s *statusStream) SetHeader(metadata.MD) error             { return nil }
func (s *statusStream) SendHeader(metadata.MD) error            { return nil }
func (s *statusStream) SetTrailer(metadata.MD)                  {}
func (s *statusStream) RecvMsg(any) error                       { return io.EOF }
func (s *statusStream) Send(r *controlapi.StatusResponse) error { return s.SendMsg(r) }

func (s *statusStream) SendMsg(m any) error {
	piece, ok := m.(*controlapi.StatusResponse)
	if !ok {
		return errors.New("the log holds something else than its pieces")
	}
	s.begun.Store(true)
	select {
	case s.out <- piece:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}
