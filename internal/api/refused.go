package api

import (
	"context"
	"net/http"

	"github.com/cleatlabs/cleat/internal/failure"
)

// refusal is an operation of the API that is not served yet. A client that
// needs it is told which feature is missing, not that the path is unknown.
type refusal struct {
	method, pattern, feature string
}

// notYet are the operations whose engine part is still to come.
var notYet = []refusal{
	{"GET", "/containers/{id}/checkpoints", "checkpoints"},
	{"POST", "/containers/{id}/checkpoints", "checkpoints"},

	{"GET", "/plugins/privileges", "plugins"},
	{"POST", "/plugins/pull", "plugins"},
	{"POST", "/plugins/create", "plugins"},
	{"DELETE", "/plugins/{name}", "plugins"},
	{"POST", "/plugins/{name}/enable", "plugins"},
	{"POST", "/plugins/{name}/disable", "plugins"},
	{"POST", "/plugins/{name}/upgrade", "plugins"},
	{"POST", "/plugins/{name}/push", "plugins"},
	{"POST", "/plugins/{name}/set", "plugins"},

	{"POST", "/swarm/init", "swarm mode"},
	{"POST", "/swarm/join", "swarm mode"},
}

// outsideSwarm are the operations that Docker answers with 503 as long as the
// node is in no swarm, which is always so here.
var outsideSwarm = []refusal{
	{method: "GET", pattern: "/swarm"},
	{method: "POST", pattern: "/swarm/update"},
	{method: "GET", pattern: "/swarm/unlockkey"},
	{method: "POST", pattern: "/swarm/unlock"},
	{method: "GET", pattern: "/nodes"},
	{method: "GET", pattern: "/nodes/{id}"},
	{method: "DELETE", pattern: "/nodes/{id}"},
	{method: "POST", pattern: "/nodes/{id}/update"},
	{method: "GET", pattern: "/services"},
	{method: "POST", pattern: "/services/create"},
	{method: "GET", pattern: "/services/{id}"},
	{method: "DELETE", pattern: "/services/{id}"},
	{method: "POST", pattern: "/services/{id}/update"},
	{method: "GET", pattern: "/services/{id}/logs"},
	{method: "GET", pattern: "/tasks"},
	{method: "GET", pattern: "/tasks/{id}"},
	{method: "GET", pattern: "/tasks/{id}/logs"},
	{method: "GET", pattern: "/secrets"},
	{method: "POST", pattern: "/secrets/create"},
	{method: "GET", pattern: "/secrets/{id}"},
	{method: "DELETE", pattern: "/secrets/{id}"},
	{method: "POST", pattern: "/secrets/{id}/update"},
	{method: "GET", pattern: "/configs"},
	{method: "POST", pattern: "/configs/create"},
	{method: "GET", pattern: "/configs/{id}"},
	{method: "DELETE", pattern: "/configs/{id}"},
	{method: "POST", pattern: "/configs/{id}/update"},
}

func (h *Handler) refusals() []route {
	routes := []route{
		{"POST", "/swarm/leave", refuse(failure.Unavailable("This node is not part of a swarm"))},
		{"PUT", "/volumes/{name}", refuse(failure.Unavailable("volume update only valid for cluster volumes, but swarm is unavailable"))},
	}
	for _, r := range notYet {
		routes = append(routes, route{r.method, r.pattern, refuse(unsupported(r.feature))})
	}
	for _, r := range outsideSwarm {
		routes = append(routes, route{r.method, r.pattern, refuse(errNoSwarm)})
	}
	return routes
}

// errNoSwarm has the words that clients look for to tell a missing swarm from
// a failure.
var errNoSwarm = failure.Unavailable("This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.")

// unsupported is the refusal of a feature by its name.
func unsupported(feature string) error {
	return failure.NotImplemented("%s is not supported by this version of Cleat yet", feature)
}

func refuse(err error) handlerFunc {
	return func(context.Context, http.ResponseWriter, *request) error { return err }
}

// pluginList is served because the answer is true: there are no plugins.
func (h *Handler) pluginList(_ context.Context, w http.ResponseWriter, _ *request) error {
	return writeJSON(w, http.StatusOK, []struct{}{})
}

func (h *Handler) pluginInspect(_ context.Context, _ http.ResponseWriter, q *request) error {
	return failure.NotFound("plugin %q not found", q.param("name"))
}
