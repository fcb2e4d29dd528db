// Package solve takes one target of a build through the engine: it prepares what the
// engine's BuildKit is asked (Target.request), serves what the engine fetches from this
// side meanwhile (the context, incrementally; secrets; credentials; SSH agents), shows the
// progress and hands back the result. It speaks to the engine's API only, POST /grpc and
// POST /session, and keeps nothing on disk: a Dockerfile that comes over standard input
// is served from memory.
package solve
