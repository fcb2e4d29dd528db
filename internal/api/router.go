package api

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// request is one call with everything that the router found out about it.
type request struct {
	*http.Request
	version version
	unasked bool // for a version: the path has none
	query   url.Values
	params  map[string]string
}

// param returns a part of the path by its name in the route's pattern.
func (q *request) param(name string) string { return q.params[name] }

// handlerFunc answers a request. An error is written by ServeHTTP; a handler
// that has begun its answer must not return one that matters to the client.
type handlerFunc func(ctx context.Context, w http.ResponseWriter, q *request) error

// route is one operation. A pattern is made of literal segments and at most
// one {name}, which stands for one or more segments: image names hold slashes,
// and container names may be asked for with a leading one.
type route struct {
	method  string
	pattern string
	handle  handlerFunc
}

// router finds the route of a method and path. It is immutable once made.
type router struct {
	exact map[string]handlerFunc  // "METHOD /path"
	named map[string][]namedRoute // "METHOD first-segment"
}

type namedRoute struct {
	prefix, suffix []string
	name           string
	handle         handlerFunc
}

func newRouter(routes []route) *router {
	rt := &router{exact: map[string]handlerFunc{}, named: map[string][]namedRoute{}}
	for _, r := range routes {
		segments := strings.Split(strings.TrimPrefix(r.pattern, "/"), "/")
		at := slices.IndexFunc(segments, func(s string) bool { return strings.HasPrefix(s, "{") })
		if at < 0 {
			rt.exact[r.method+" "+r.pattern] = r.handle
			continue
		}
		key := r.method + " " + segments[0]
		rt.named[key] = append(rt.named[key], namedRoute{
			prefix: segments[:at],
			suffix: segments[at+1:],
			name:   strings.Trim(segments[at], "{}"),
			handle: r.handle,
		})
	}
	// The longest ending is tried first: /services/{id}/logs before /services/{id}.
	for _, candidates := range rt.named {
		slices.SortStableFunc(candidates, func(a, b namedRoute) int { return len(b.suffix) - len(a.suffix) })
	}
	return rt
}

// find returns the handler of a method and an escaped path without version,
// and the parts of the path that the pattern names, unescaped.
func (rt *router) find(method, path string) (handlerFunc, map[string]string) {
	if handle, found := rt.exact[method+" "+path]; found {
		return handle, nil
	}
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for _, r := range rt.named[method+" "+segments[0]] {
		if name, found := r.match(segments); found {
			return r.handle, map[string]string{r.name: name}
		}
	}
	return nil, nil
}

func (r *namedRoute) match(segments []string) (string, bool) {
	count := len(segments) - len(r.prefix) - len(r.suffix)
	if count < 1 ||
		!slices.Equal(segments[:len(r.prefix)], r.prefix) ||
		!slices.Equal(segments[len(segments)-len(r.suffix):], r.suffix) {
		return "", false
	}
	name, err := url.PathUnescape(strings.Join(segments[len(r.prefix):len(segments)-len(r.suffix)], "/"))
	if err != nil || strings.Trim(name, "/") == "" {
		return "", false
	}
	return name, true
}
