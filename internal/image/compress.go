package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/klauspost/pgzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	tarstream "github.com/cleatlabs/cleat/internal/archive"
	"github.com/cleatlabs/cleat/internal/record"
)

// gzipLabel is on an uncompressed layer that was compressed for a registry: digest and
// size of the result. gzipReference lets the collector keep the result as long as the
// layer.
const (
	gzipLabel     = "dev.cleat/gzip"
	gzipReference = "containerd.io/gc.ref.content.gzip"
)

// gzipLevel needs a quarter of the time that Go's own gzip takes at its usual level, for
// 4 % more bytes (measured on a tree of programs and sources); gzipBlock is how much is
// compressed by one processor at a time. The result depends on both, and not on how many
// processors there are.
const (
	gzipLevel = 5
	gzipBlock = 1 << 20
)

// gzipType is the media type that an uncompressed layer has once compressed, "" for what
// is sent as it is.
func gzipType(mediaType string) string {
	switch mediaType {
	case ocispec.MediaTypeImageLayer:
		return ocispec.MediaTypeImageLayerGzip
	case images.MediaTypeDockerSchema2Layer:
		return images.MediaTypeDockerSchema2LayerGzip
	}
	return ""
}

// compressed gives a layer as it is sent to a registry. An uncompressed one is compressed
// once: the result stays beside it, so that it can be sent to other registries and the
// image has the same digest at all of them. One that is compressed, whatever its type
// says, goes as it came. progress is told how much of the layer has been read.
func (s *Service) compressed(ctx context.Context, layer ocispec.Descriptor, progress func(int64)) (ocispec.Descriptor, error) {
	mediaType := gzipType(layer.MediaType)
	if mediaType == "" {
		return layer, nil
	}
	key := "gzip-" + layer.Digest.String()
	if err := s.transfers.Lock(ctx, key); err != nil {
		return ocispec.Descriptor{}, err
	}
	defer s.transfers.Unlock(key)
	out := layer
	out.MediaType = mediaType
	var err error
	if out.Digest, out.Size, err = s.compressedBefore(ctx, layer.Digest); err != nil || out.Digest != "" {
		return out, err
	}
	if packed, err := s.alreadyCompressed(ctx, layer); err != nil || packed {
		return layer, err
	}
	if out.Digest, out.Size, err = s.compress(ctx, layer, progress); err != nil {
		return out, s.explainWrite(fmt.Errorf("compress the layer %s: %w", layer.Digest, err), layer)
	}
	record.Failpoint("image.push.after-compress")
	_, err = s.store.Content.Update(ctx, content.Info{Digest: layer.Digest, Labels: map[string]string{
		gzipLabel: out.Digest.String() + " " + strconv.FormatInt(out.Size, 10), gzipReference: out.Digest.String(),
	}}, "labels."+gzipLabel, "labels."+gzipReference)
	if err != nil {
		return out, s.explainWrite(fmt.Errorf("note how the layer %s is compressed: %w", layer.Digest, err), layer)
	}
	return out, nil
}

// compressedBefore finds what a layer was compressed to, "" if it was not.
func (s *Service) compressedBefore(ctx context.Context, layer digest.Digest) (digest.Digest, int64, error) {
	info, err := s.store.Content.Info(ctx, layer)
	if err != nil {
		return "", 0, fmt.Errorf("the layer %s: %w", layer, err)
	}
	text, size, _ := strings.Cut(info.Labels[gzipLabel], " ")
	dgst, err := digest.Parse(text)
	if err != nil {
		return "", 0, nil
	}
	there, err := s.store.Content.Info(ctx, dgst)
	if errdefs.IsNotFound(err) {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, err
	}
	if strconv.FormatInt(there.Size, 10) != size {
		return "", 0, nil
	}
	return dgst, there.Size, nil
}

// alreadyCompressed looks whether a layer begins as compressed archives do.
func (s *Service) alreadyCompressed(ctx context.Context, layer ocispec.Descriptor) (bool, error) {
	r, err := s.store.Content.ReaderAt(ctx, layer)
	if err != nil {
		return false, fmt.Errorf("the layer %s: %w", layer.Digest, err)
	}
	defer r.Close()
	var head [6]byte
	n, err := r.ReadAt(head[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("read the layer %s: %w", layer.Digest, err)
	}
	return tarstream.Compression(head[:n]) != "", nil
}

// compress writes a layer compressed into the store. Whatever goes wrong, nothing is left.
func (s *Service) compress(ctx context.Context, layer ocispec.Descriptor, progress func(int64)) (_ digest.Digest, _ int64, err error) {
	plain, err := s.store.Content.ReaderAt(ctx, layer)
	if err != nil {
		return "", 0, err
	}
	defer plain.Close()
	ref := "gzip-" + layer.Digest.Encoded()
	w, err := content.OpenWriter(ctx, s.store.Content, content.WithRef(ref))
	if err != nil {
		return "", 0, err
	}
	defer func() {
		w.Close()
		if err != nil {
			if aerr := s.store.Content.Abort(context.WithoutCancel(ctx), ref); aerr != nil && !errdefs.IsNotFound(aerr) {
				err = errors.Join(err, aerr)
			}
		}
	}()
	if err := w.Truncate(0); err != nil {
		return "", 0, err
	}
	z, err := pgzip.NewWriterLevel(w, gzipLevel)
	if err != nil {
		return "", 0, err
	}
	if err := z.SetConcurrency(gzipBlock, compressors()); err != nil {
		return "", 0, err
	}
	_, err = io.Copy(z, &progressReader{ctx: ctx, r: content.NewReader(plain), report: progress})
	// Its goroutines end with Close, also after a fault.
	if cerr := z.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return "", 0, err
	}
	status, err := w.Status()
	if err != nil {
		return "", 0, err
	}
	dgst := w.Digest()
	err = w.Commit(ctx, status.Offset, dgst, content.WithLabels(map[string]string{labels.LabelUncompressed: layer.Digest.String()}))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return "", 0, err
	}
	return dgst, status.Offset, nil
}

// progressReader tells how much was read, and ends with its context.
type progressReader struct {
	ctx    context.Context
	r      io.Reader
	n      int64
	report func(int64)
}

func (p *progressReader) Read(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := p.r.Read(b)
	p.n += int64(n)
	if n > 0 && p.report != nil {
		p.report(p.n)
	}
	return n, err
}
