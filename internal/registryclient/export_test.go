package registryclient

import (
	"net/http"
	"net/url"
	"time"
)

// Hasten makes a client lose its patience soon.
func (c *Client) Hasten(pause, stall, answer time.Duration) {
	c.patience = patience{pause: pause, stall: stall, answer: answer, ask: c.patience.ask}
}

// Parsers of what registries answer, for fuzzing.
func LastByte(header string) (int64, bool)                          { return lastByte(header) }
func RetryAfter(header string, now time.Time) (time.Duration, bool) { return retryAfter(header, now) }
func NextPage(link, current string) string                          { return nextPage(link, current) }
func RegistrySays(body []byte) string                               { return registrySays(body) }
func SendsCredentials(c *Client, s *Session, to string) (at string, err error) {
	p := &blobPush{s: s, h: s.hosts[0]}
	from := s.below(p.h, "/blobs/uploads/")
	resp := &http.Response{Header: http.Header{"Location": {to}}, Body: http.NoBody, Request: &http.Request{URL: from}}
	if err := p.follow(resp); err != nil {
		return "", err
	}
	return (&url.URL{Scheme: p.at.Scheme, Host: p.at.Host}).String(), nil
}
