package e2e

// committing makes an image of a container that runs.
var committing = transition{
	prepare: [][]string{create, start, {"exec", doomed, "sh", "-c", "echo x >/x"}}, verb: []string{"commit", doomed, "doomed-image"},
	tidy: []string{"rmi", "doomed-image"},
}

// pushing makes an image of a container and sends it to the registry of the test, which
// is not known before.
var pushing = transition{
	prepare: [][]string{create, start, {"exec", doomed, "sh", "-c", "echo x >/x"}, {"commit", doomed, theRegistry + "/doomed:v1"}},
	verb:    []string{"push", "-q", theRegistry + "/doomed:v1"},
}

const theRegistry = "REGISTRY"

// imageTransitions are those of images that are made here.
var imageTransitions = map[string]transition{
	"image.push.after-compress":    pushing,
	"image.push.after-blobs":       pushing,
	"image.push.after-manifest":    pushing,
	"image.push.after-note":        pushing,
	"engine.prune.after-container": {prepare: [][]string{{"create", "--name", doomed, "busybox"}}, verb: []string{"container", "prune", "-f"}},
	"image.make.after-blobs":       committing,
	"image.make.after-unpack":      committing,
	"image.make.after-name":        committing,
}
