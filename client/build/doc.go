// Package build is the commands that build images: build, and what belongs to the one
// builder that an engine has (ls, inspect, du, prune, history, imagetools …). They have
// buildx's flags, output and exit codes. A flag that nothing would come of is refused by
// its name. The package knows the engine by its API only.
package build
