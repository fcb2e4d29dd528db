package image

import (
	"sync"
	"time"

	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// progressInterval is how often a layer's byte counts are told, at most.
const progressInterval = 100 * time.Millisecond

// The statuses of a layer, in Docker's words: clients show them and some parse them.
const (
	statusPulling     = "Pulling fs layer"
	statusWaiting     = "Waiting"
	statusDownloading = "Downloading"
	statusVerifying   = "Verifying Checksum"
	statusDownloaded  = "Download complete"
	statusExtracting  = "Extracting"
	statusPulled      = "Pull complete"
	statusExists      = "Already exists"
	statusLoading     = "Loading layer"
	statusLoaded      = "Load complete"

	statusPreparing = "Preparing"
	statusPushing   = "Pushing"
	statusPushed    = "Pushed"
	statusRemote    = "Layer already exists"
	statusMounted   = "Mounted from"
)

// reporter turns the steps of a pull, push or load into messages, one at a time and in the
// order in which they happen. Its zero callback drops everything.
type reporter struct {
	mu     sync.Mutex
	send   func(jsonstream.Message)
	layers map[digest.Digest]*layerProgress
}

type layerProgress struct {
	size   int64
	status string
	last   time.Time
	chains int // positions in the image that are not unpacked yet
}

func newReporter(send func(jsonstream.Message)) *reporter {
	if send == nil {
		send = func(jsonstream.Message) {}
	}
	return &reporter{send: send, layers: map[digest.Digest]*layerProgress{}}
}

// message sends a status that is about the whole image, or about id.
func (r *reporter) message(id, status string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.send(jsonstream.Message{ID: id, Status: status})
}

// stream sends a line of text.
func (r *reporter) stream(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.send(jsonstream.Message{Stream: text})
}

// know makes layers known without a message. A layer may lie at several places of an
// image. It returns those that are new.
func (r *reporter) know(layers []ocispec.Descriptor) []digest.Digest {
	r.mu.Lock()
	defer r.mu.Unlock()
	var fresh []digest.Digest
	for _, l := range layers {
		if p := r.layers[l.Digest]; p != nil {
			p.chains++
			continue
		}
		r.layers[l.Digest] = &layerProgress{size: l.Size, chains: 1}
		fresh = append(fresh, l.Digest)
	}
	return fresh
}

// announce tells of layers that will be fetched or sent, so many at a time.
func (r *reporter) announce(layers []ocispec.Descriptor, status string, atATime int) {
	fresh := r.know(layers)
	for _, d := range fresh {
		r.step(d, status)
	}
	for _, d := range fresh[min(atATime, len(fresh)):] {
		r.step(d, statusWaiting)
	}
}

// resize says that a layer is sent in another size.
func (r *reporter) resize(d digest.Digest, size int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.layers[d]; p != nil {
		p.size = size
	}
}

// present says that one place of a layer is unpacked already.
func (r *reporter) present(d digest.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.layers[d]; p != nil {
		p.chains--
	}
}

// exists says that the blob of a layer is here.
func (r *reporter) exists(d digest.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.layers[d]; p != nil {
		if p.chains == 0 {
			r.status(d, statusExists)
		} else {
			r.status(d, statusDownloaded)
		}
	}
}

// fetched says that the blob of a layer has come.
func (r *reporter) fetched(d digest.Digest, done string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.layers[d]; p != nil {
		r.status(d, statusDownloaded)
		if p.chains == 0 {
			r.status(d, done)
		}
	}
}

// status sends a step without numbers. The caller holds the lock.
func (r *reporter) status(d digest.Digest, status string) {
	p := r.layers[d]
	if p == nil || p.status == status {
		return
	}
	p.status = status
	r.send(jsonstream.Message{ID: shortID(d.String()), Status: status, Progress: &jsonstream.Progress{}})
}

func (r *reporter) step(d digest.Digest, status string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status(d, status)
}

// bytes sends a step with a count, if the last one was long enough ago or the step is
// new or done.
func (r *reporter) bytes(d digest.Digest, status string, current int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.layers[d]
	if p == nil {
		return
	}
	now := time.Now()
	if p.status == status && current < p.size && now.Sub(p.last) < progressInterval {
		return
	}
	p.status, p.last = status, now
	r.send(jsonstream.Message{
		ID:       shortID(d.String()),
		Status:   status,
		Progress: &jsonstream.Progress{Current: current, Total: p.size},
	})
}

// unpacked counts one place at which the layer is done, and sends done at the last.
func (r *reporter) unpacked(d digest.Digest, done string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.layers[d]; p != nil {
		if p.chains--; p.chains == 0 {
			r.status(d, done)
		}
	}
}

// finish sends done for the layers that another transfer has unpacked meanwhile.
func (r *reporter) finish(layers []ocispec.Descriptor, done string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range layers {
		if p := r.layers[l.Digest]; p != nil && p.chains > 0 {
			p.chains = 0
			r.status(l.Digest, done)
		}
	}
}
