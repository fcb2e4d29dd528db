package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// headerTimeout bounds how long a client may take to say what it wants.
const headerTimeout = 30 * time.Second

// Server serves a Handler on any number of listeners.
type Server struct {
	handler *Handler
	http    *http.Server
	crowd   *crowd
	serving sync.WaitGroup
}

// NewServer makes the server of a handler.
func NewServer(h *Handler) *Server {
	// BuildKit's API comes by HTTP/2, on a socket without TLS too.
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	c := newCrowd(h.log)
	return &Server{
		handler: h,
		crowd:   c,
		http: &http.Server{
			Handler:           h,
			Protocols:         protocols,
			ReadHeaderTimeout: headerTimeout,
			ConnContext:       withConn,
			ConnState:         c.changed,
			ErrorLog:          slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
		},
	}
}

// Around has calls pass through what wrap makes of the handler. Call it before Serve.
func (s *Server) Around(wrap func(http.Handler) http.Handler) { s.http.Handler = wrap(s.http.Handler) }

// Serve answers calls on ln until Shutdown, and then returns nil.
func (s *Server) Serve(ln net.Listener) error {
	s.serving.Add(1)
	defer s.serving.Done()
	if err := s.http.Serve(&gate{Listener: ln, crowd: s.crowd}); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown stops listening, ends all streams, and waits for the other calls
// until ctx ends; then it cuts them off and returns ctx's error. Containers are
// not touched.
func (s *Server) Shutdown(ctx context.Context) error {
	s.handler.EndStreams()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.http.Close())
	}
	s.serving.Wait()
	s.handler.Close()
	return err
}
