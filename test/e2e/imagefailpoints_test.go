package e2e

// committing makes an image of a container that runs.
var committing = transition{
	prepare: [][]string{create, start, {"exec", doomed, "sh", "-c", "echo x >/x"}}, verb: []string{"commit", doomed, "doomed-image"},
	tidy: []string{"rmi", "doomed-image"},
}

// imageTransitions are those of images that are made here.
var imageTransitions = map[string]transition{
	"engine.prune.after-container": {prepare: [][]string{{"create", "--name", doomed, "busybox"}}, verb: []string{"container", "prune", "-f"}},
	"image.make.after-blobs":       committing,
	"image.make.after-unpack":      committing,
	"image.make.after-name":        committing,
}
