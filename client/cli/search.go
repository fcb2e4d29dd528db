package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"
	"github.com/spf13/pflag"

	"github.com/cleatlabs/cleat/client/dockerconfig"
	"github.com/cleatlabs/cleat/client/term"
)

func (a *app) search() spec {
	return spec{
		use: "search [OPTIONS] TERM", short: "Search Docker Hub or a registry for images",
		long: "Search Docker Hub for images or, as HOST/TERM, a registry. One that has no search is\nsearched by its catalogue.",
		args: a.exactArgs(1), top: 10,
		setup: func(fs *pflag.FlagSet) action {
			filter := opts.NewFilterOpt()
			fs.VarP(&filter, "filter", "f", "Filter output based on conditions provided")
			format := fs.String("format", "", formatHelp)
			limit := fs.Int("limit", 0, "Max number of search results")
			noTrunc := fs.Bool("no-trunc", false, "Don't truncate output")
			return func(ctx context.Context, args []string) error {
				auth, err := dockerconfig.RegistryAuth(a.config(), searchDomain(args[0]), a.warn)
				if err != nil {
					return err
				}
				c, err := a.api()
				if err != nil {
					return err
				}
				res, err := c.ImageSearch(ctx, args[0], client.ImageSearchOptions{RegistryAuth: auth, Filters: filter.Value(), Limit: *limit})
				if err != nil {
					return err
				}
				rows := make([]any, len(res.Items))
				for i := range res.Items {
					rows[i] = &searchRow{r: &res.Items[i], trunc: !*noTrunc}
				}
				return listing{format: searchFormat(*format), headers: searchHeaders}.write(a.out, rows)
			}
		},
	}
}

// searchDomain is the registry that a term names, as credentials are filed.
func searchDomain(text string) string {
	host, _, found := strings.Cut(text, "/")
	if !found || !strings.ContainsAny(host, ".:") && host != "localhost" || host == "index.docker.io" {
		return "docker.io"
	}
	return host
}

func searchFormat(format string) string {
	if format == "" || format == "table" {
		return `table {{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}`
	}
	return format
}

var searchHeaders = map[string]string{"Name": "NAME", "Description": "DESCRIPTION", "StarCount": "STARS", "IsOfficial": "OFFICIAL"}

// searchRow is one repository that was found.
type searchRow struct {
	r     *registry.SearchResult
	trunc bool
	json  bool
}

func (r *searchRow) MarshalJSON() ([]byte, error) {
	r.json = true
	return marshalRow(r)
}

func (r *searchRow) Name() string { return r.r.Name }

func (r *searchRow) Description() string {
	text := strings.NewReplacer("\n", " ", "\r", " ").Replace(r.r.Description)
	if r.trunc {
		return term.Ellipsis(text, 45)
	}
	return text
}

func (r *searchRow) StarCount() string { return strconv.Itoa(r.r.StarCount) }

func (r *searchRow) IsOfficial() string {
	switch {
	case r.json:
		return fmt.Sprint(r.r.IsOfficial)
	case r.r.IsOfficial:
		return "[OK]"
	}
	return ""
}
