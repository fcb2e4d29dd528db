package registryclient

import (
	"cmp"
	"net/http"
	"net/url"

	"golang.org/x/net/http/httpproxy"
)

// Proxy is which proxies to go through. What is empty is taken from the environment
// (HTTP_PROXY, HTTPS_PROXY, NO_PROXY); loopback is always reached directly.
type Proxy struct {
	HTTP, HTTPS, No string
}

// choose returns the function that a transport asks for the proxy of a request.
func (p Proxy) choose() func(*http.Request) (*url.URL, error) {
	env := httpproxy.FromEnvironment()
	cfg := httpproxy.Config{
		HTTPProxy:  cmp.Or(p.HTTP, env.HTTPProxy),
		HTTPSProxy: cmp.Or(p.HTTPS, env.HTTPSProxy),
		NoProxy:    cmp.Or(p.No, env.NoProxy),
		CGI:        env.CGI,
	}
	proxy := cfg.ProxyFunc()
	return func(r *http.Request) (*url.URL, error) { return proxy(r.URL) }
}
