package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/platforms"

	"github.com/cleatlabs/cleat/internal/failure"
)

// maxBody bounds a JSON request. A create with 10,000 environment entries is
// around one MiB.
const maxBody = 16 << 20

// readBody returns the JSON body of a request, nil if there is none. A body, and none of a type that is given, must be
// called application/json; parameters of the type are allowed.
func readBody(r *http.Request) ([]byte, error) {
	empty := r.Body == nil || r.ContentLength == 0
	if given := r.Header.Get("Content-Type"); given != "" || !empty {
		if err := requireJSON(given); err != nil {
			return nil, err
		}
	}
	if empty {
		return nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return nil, failure.Invalid("cannot read the request body: %w", err)
	}
	if len(body) > maxBody {
		return nil, failure.Invalid("the request body is larger than %d MiB", maxBody>>20)
	}
	return body, nil
}

func requireJSON(contentType string) error {
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return failure.Invalid("malformed Content-Type header (%s): %w", contentType, err)
	}
	if media != mediaJSON {
		return failure.Invalid("unsupported Content-Type header (%s): must be '%s'", contentType, mediaJSON)
	}
	return nil
}

// readJSON decodes the request's body into value. An empty body leaves value
// as it is; anything after the JSON is an error; unknown fields are ignored,
// as newer clients send fields that older engines do not know.
func readJSON(r *http.Request, value any) error {
	body, err := readBody(r)
	if err != nil || body == nil {
		return err
	}
	return decodeJSON(body, value)
}

func decodeJSON(body []byte, value any) error {
	dec := json.NewDecoder(bytes.NewReader(body))
	if err := dec.Decode(value); err != nil {
		if errors.Is(err, io.EOF) {
			return failure.Invalid("invalid JSON: got EOF while reading request body")
		}
		if json.Valid(body) {
			if m := findMisfit(body, reflect.TypeOf(value).Elem(), ""); m != nil {
				return m.error()
			}
		}
		return failure.Invalid("invalid JSON: %w", err)
	}
	if dec.More() {
		return failure.Invalid("unexpected content after JSON")
	}
	return nil
}

// boolean reads a flag of the query as Docker does: empty, 0, no, false and
// none in any case mean false, everything else means true.
func (q *request) boolean(key string) bool {
	switch strings.ToLower(strings.TrimSpace(q.query.Get(key))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// booleanOr is boolean with a default for a key that is not in the query.
func (q *request) booleanOr(key string, absent bool) bool {
	if _, given := q.query[key]; !given {
		return absent
	}
	return q.boolean(key)
}

// integer reads a whole number of the query; absent or empty is nil.
func (q *request) integer(key string) (*int, error) {
	text := q.query.Get(key)
	if text == "" {
		return nil, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return nil, failure.Invalid("invalid value %q for %s: it must be a whole number", text, key)
	}
	return &n, nil
}

// filters reads the query's filters and refuses a key that is not in allowed:
// a filter that is not applied would return (or remove) too much.
func (q *request) filters(allowed ...string) (map[string][]string, error) {
	f, err := parseFilters(q.query.Get("filters"))
	if err != nil {
		return nil, err
	}
	for key := range f {
		if !slices.Contains(allowed, key) {
			return nil, failure.Invalid("invalid filter '%s': must be one of %s", key, strings.Join(allowed, ", "))
		}
	}
	return f, nil
}

// parseFilters reads both forms that clients send: {"key": ["value"]} and the
// older {"key": {"value": true}}. Empty text means no filters. The values of a
// key come back sorted and without duplicates.
func parseFilters(text string) (map[string][]string, error) {
	if text == "" {
		return map[string][]string{}, nil
	}
	var lists map[string][]string
	if err := decodeJSON([]byte(text), &lists); err != nil {
		var sets map[string]map[string]bool
		if decodeJSON([]byte(text), &sets) != nil {
			return nil, failure.Invalid("invalid filter %q: %w", text, err)
		}
		lists = make(map[string][]string, len(sets))
		for key, set := range sets {
			lists[key] = []string{}
			for value, wanted := range set {
				if wanted {
					lists[key] = append(lists[key], value)
				}
			}
		}
	}
	for key, values := range lists {
		slices.Sort(values)
		lists[key] = slices.Compact(values)
	}
	return object(lists), nil
}

// platform is the one that the query asks for, in its canonical form; "" is none, as in all versions before 1.minor.
func (q *request) platform(minor int) (string, error) {
	text := q.query.Get("platform")
	if text == "" || q.version.below(minor) {
		return "", nil
	}
	platform, err := platforms.Parse(text)
	if err != nil {
		return "", failure.Invalid("invalid platform %q: %s", text, plainText(err))
	}
	return platforms.Format(platform), nil
}
