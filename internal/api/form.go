package api

import (
	"context"
	"mime"
	"net/http"

	"github.com/cleatlabs/cleat/internal/failure"
)

// mediaForm is the type of a body that holds parameters as a query does.
const mediaForm = "application/x-www-form-urlencoded"

// form has a handler find its parameters in a form, too, which some programs post in place of a query: curl -d signal=HUP,
// Python's requests with data=, Ansible's uri. A kill that overlooked them would send another signal than it was asked
// for. It is for operations that have no other body.
func form(handle handlerFunc) handlerFunc {
	return func(ctx context.Context, w http.ResponseWriter, q *request) error {
		if err := q.readForm(); err != nil {
			return err
		}
		return handle(ctx, w, q)
	}
}

// readForm adds the parameters of a form to those of the query, before which they count.
func (q *request) readForm() error {
	if media, _, err := mime.ParseMediaType(q.Header.Get("Content-Type")); err != nil || media != mediaForm {
		return nil
	}
	if err := q.ParseForm(); err != nil {
		return failure.Invalid("invalid form: %w", err)
	}
	q.query = q.Form
	return nil
}
