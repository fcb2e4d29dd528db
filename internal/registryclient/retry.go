package registryclient

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"

	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
)

// How a push goes on after a fault that may pass: pauses of 1, 2, 4, 8 and 16 seconds,
// or as long as the registry asks for within bounds. Attempts that get further than
// those before are not counted, up to a bound.
const (
	maxFaults    = 5
	maxAttempts  = 100
	longestPause = time.Minute
)

// patience is how long is waited for a registry.
type patience struct {
	// pause is the first pause after a fault.
	pause time.Duration
	// stall is how long an upload may take no byte.
	stall time.Duration
	// answer is how long the registry may take to answer once all is sent: it checks a
	// large blob first.
	answer time.Duration
	// ask is how long the answer to a question that needs little work may take.
	ask time.Duration
}

func usualPatience() patience {
	return patience{pause: time.Second, stall: 2 * time.Minute, answer: 15 * time.Minute, ask: time.Minute}
}

// persist calls try until it succeeds, fails for good or has failed too often in a row.
// p, if not nil, is asked whether there was headway.
func (s *Session) persist(ctx context.Context, retrying func(time.Duration), p *blobPush, try func() error) error {
	faults := 0
	for attempt := 1; ; attempt++ {
		err := try()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if faults++; p != nil && p.progressed() {
			faults = 1
		}
		if !s.passing(err) || faults > maxFaults || attempt == maxAttempts {
			return &hostError{address: s.hosts[0].address(), err: err}
		}
		pause := s.patience.pauseAfter(err, faults)
		if retrying != nil {
			retrying(pause)
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
	}
}

// MayPass reports whether a download failed by a fault that may be gone at the next attempt.
func (s *Session) MayPass(err error) bool { return s.passing(err) }

// RefusesRange reports whether a download failed as the registry does not go on with the blob from where it broke off.
func RefusesRange(err error) bool {
	var status remoteerrors.ErrUnexpectedStatus
	return errors.As(err, &status) && status.StatusCode == http.StatusRequestedRangeNotSatisfiable && status.RequestMethod == http.MethodGet
}

// Pause is how long to wait after so many faults in a row, the last of which was err.
func (s *Session) Pause(err error, faults int) time.Duration {
	return s.patience.pauseAfter(err, faults)
}

// passing reports whether a fault may be gone at the next attempt. A registry that was
// never reached is not waited for.
func (s *Session) passing(err error) bool {
	var local *localError
	if errors.As(err, &local) {
		return false
	}
	var status remoteerrors.ErrUnexpectedStatus
	if errors.As(err, &status) {
		switch status.StatusCode {
		case http.StatusNotFound, http.StatusRequestedRangeNotSatisfiable:
			// An upload that the registry has lost begins anew; what else is not found stays so.
			return status.RequestMethod == http.MethodPut || status.RequestMethod == http.MethodPatch
		}
		return passingStatus(status.StatusCode)
	}
	if errors.Is(err, errStalled) {
		return true
	}
	broken := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		ofNetwork(err)
	return broken && s.reached.Load()
}

// passingStatus reports whether a server that answers so may answer otherwise when it is asked again.
func passingStatus(code int) bool {
	switch code {
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported, http.StatusInsufficientStorage:
		return false
	}
	return code >= 500
}

// ofNetwork says whether a connection has failed. What the kernel says of a file, be it that the disk is full, passes for
// that, too, where nothing of a network lies around it.
func ofNetwork(err error) bool {
	var op net.Error
	if !errors.As(err, &op) {
		return false
	}
	_, ofFile := op.(syscall.Errno)
	return !ofFile
}

// pauseAfter is how long to wait: what the registry asks for, or twice as long as before.
func (w patience) pauseAfter(err error, faults int) time.Duration {
	var asked *retryAfterError
	if errors.As(err, &asked) {
		return max(w.pause, min(asked.wait, longestPause))
	}
	pause := w.pause << min(faults-1, 6)
	// Pushes that were refused together do not come back together.
	return min(pause, longestPause) + rand.N(pause/4)
}

// retryAfterError is an answer that says when to ask again.
type retryAfterError struct {
	err  error
	wait time.Duration
}

func (e *retryAfterError) Error() string { return e.err.Error() }
func (e *retryAfterError) Unwrap() error { return e.err }

// retryAfter reads the header of that name, in seconds or as a date.
func retryAfter(header string, now time.Time) (time.Duration, bool) {
	if header == "" {
		return 0, false
	}
	if n, err := strconv.ParseUint(header, 10, 31); err == nil {
		return time.Duration(n) * time.Second, true
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(at.Sub(now), 0), true
	}
	return 0, false
}

// stalling makes a call that is given up if it makes no headway for long.
func (p *blobPush) stalling(ctx context.Context, r request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := &stallWatch{limit: p.s.patience.stall, answer: p.s.patience.answer, stop: func() { cancel(errStalled) }}
	watch.timer = time.AfterFunc(watch.answer, watch.stop)
	defer watch.end()
	if open := r.body; open != nil {
		r.body = func() (io.ReadCloser, error) {
			rc, err := open()
			if err != nil {
				return nil, err
			}
			watch.begin()
			return &watchedBody{ReadCloser: rc, watch: watch}, nil
		}
	}
	resp, err := p.s.send(ctx, p.h, r)
	if err != nil && errors.Is(context.Cause(ctx), errStalled) {
		return nil, errStalled
	}
	if err != nil {
		return nil, err
	}
	// The body ends with the context: what matters of it is read now.
	return buffered(resp)
}

// stallWatch stops a request that neither takes bytes nor answers.
type stallWatch struct {
	mu    sync.Mutex
	timer *time.Timer
	over  bool
	stop  func()
	// limit is how long no byte may be taken, answer how long the answer may take.
	limit, answer time.Duration
}

func (w *stallWatch) reset(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		w.timer.Reset(d)
	}
}

func (w *stallWatch) begin() { w.reset(w.limit) }

func (w *stallWatch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	w.timer.Stop()
}

// watchedBody tells the watch of each read.
type watchedBody struct {
	io.ReadCloser
	watch *stallWatch
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.watch.reset(b.watch.answer)
	} else {
		b.watch.reset(b.watch.limit)
	}
	return n, err
}

// countedBody tells how much has been read. A body that was sent may still be read when
// its request has been answered, so nothing of it is shared with the next attempt.
type countedBody struct {
	io.ReadCloser
	n    int64
	sent func(int64)
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	if n > 0 && b.sent != nil {
		b.sent(b.n)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = &localError{err}
	}
	return n, err
}
