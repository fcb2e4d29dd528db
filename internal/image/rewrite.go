package image

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Images are rewritten when they are sent to a registry: the layers that are kept
// uncompressed here are compressed there, so the manifest that names them is another one
// there, and so is the index above it and what attests it. Nothing else changes: members
// that are not known here stay, in their order and with their bytes.

// object is a JSON object whose members keep their order and, unless set, their bytes.
type object struct {
	keys   []string
	values map[string]json.RawMessage
}

// parseObject reads an object. Of a member that is there twice the last one counts, as
// for everybody who reads JSON with Go.
func parseObject(b []byte) (*object, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("not a JSON object")
	}
	o := &object{values: map[string]json.RawMessage{}}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		key, ok := t.(string)
		if !ok {
			return nil, fmt.Errorf("not a JSON object")
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		if _, twice := o.values[key]; !twice {
			o.keys = append(o.keys, key)
		}
		o.values[key] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("there is more than a JSON object")
	}
	return o, nil
}

// set changes a member, or adds it at the end.
func (o *object) set(key string, value any) error {
	raw, ok := value.(json.RawMessage)
	if !ok {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(value); err != nil {
			return err
		}
		raw = bytes.TrimRight(b.Bytes(), "\n")
	}
	if _, there := o.values[key]; !there {
		o.keys = append(o.keys, key)
	}
	o.values[key] = raw
	return nil
}

func (o *object) bytes() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, key := range o.keys {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := json.Marshal(key)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(o.values[key])
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// elements applies change to each object of an array member. One for which it gives nil
// is left out. An array that is not there is no fault.
func (o *object) elements(key string, change func(*object) (*object, error)) error {
	raw, ok := o.values[key]
	if !ok || bytes.Equal(bytes.TrimSpace(raw), []byte("null")) {
		return nil
	}
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return err
	}
	var b bytes.Buffer
	b.WriteByte('[')
	for _, e := range list {
		el, err := parseObject(e)
		if err != nil {
			return err
		}
		if el, err = change(el); err != nil {
			return err
		}
		if el == nil {
			continue
		}
		text, err := el.bytes()
		if err != nil {
			return err
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		b.Write(text)
	}
	b.WriteByte(']')
	return o.set(key, json.RawMessage(b.Bytes()))
}

// digest is the digest that a descriptor names.
func (o *object) digest() digest.Digest {
	var d digest.Digest
	if json.Unmarshal(o.values["digest"], &d) != nil {
		return ""
	}
	return d
}

// point makes a descriptor name another blob.
func (o *object) point(to ocispec.Descriptor) error {
	if to.MediaType != "" {
		if err := o.set("mediaType", to.MediaType); err != nil {
			return err
		}
	}
	if err := o.set("digest", to.Digest); err != nil {
		return err
	}
	return o.set("size", to.Size)
}

// replacements are blobs by the digest of what they take the place of.
type replacements map[digest.Digest]ocispec.Descriptor

// differ reports whether anything is to be replaced.
func (r replacements) differ() bool {
	for old, to := range r {
		if old != to.Digest {
			return true
		}
	}
	return false
}

// descriptor replaces what a descriptor names.
func (r replacements) descriptor(o *object) (changed bool, err error) {
	to, ok := r[o.digest()]
	if !ok || to.Digest == o.digest() {
		return false, nil
	}
	return true, o.point(to)
}

// descriptors replaces what the descriptors in an array member name.
func (r replacements) descriptors(o *object, key string) (changed bool, err error) {
	err = o.elements(key, func(e *object) (*object, error) {
		c, err := r.descriptor(e)
		changed = changed || c
		return e, err
	})
	return changed, err
}

// member replaces what the descriptor in a member names.
func (r replacements) member(o *object, key string) (changed bool, err error) {
	raw, ok := o.values[key]
	if !ok {
		return false, nil
	}
	d, err := parseObject(raw)
	if err != nil {
		return false, err
	}
	if changed, err = r.descriptor(d); err != nil || !changed {
		return false, err
	}
	text, err := d.bytes()
	if err != nil {
		return false, err
	}
	return true, o.set(key, json.RawMessage(text))
}

// rewriteManifest gives the manifest with other layers. One that stays the same keeps its
// bytes.
func rewriteManifest(manifest []byte, layers replacements) ([]byte, error) {
	o, err := parseObject(manifest)
	if err != nil {
		return nil, err
	}
	changed, err := layers.descriptors(o, "layers")
	if err != nil || !changed {
		return manifest, err
	}
	return o.bytes()
}

// rewriteIndex gives the index with other manifests, without those for which keep is
// false. One that stays the same keeps its bytes.
func rewriteIndex(index []byte, manifests replacements, keep func(digest.Digest) bool) ([]byte, error) {
	o, err := parseObject(index)
	if err != nil {
		return nil, err
	}
	changed := false
	err = o.elements("manifests", func(m *object) (*object, error) {
		old := m.digest()
		if !keep(old) {
			changed = true
			return nil, nil
		}
		if _, err := manifests.descriptor(m); err != nil {
			return nil, err
		}
		about, err := manifests.annotation(m)
		changed = changed || about || m.digest() != old
		return m, err
	})
	if err != nil {
		return nil, err
	}
	if !changed {
		return index, nil
	}
	return o.bytes()
}

// annotation replaces the digest by which an attestation names its manifest.
func (r replacements) annotation(m *object) (changed bool, err error) {
	raw, ok := m.values["annotations"]
	if !ok {
		return false, nil
	}
	annotations, err := parseObject(raw)
	if err != nil {
		return false, err
	}
	var about digest.Digest
	if value, ok := annotations.values[annotationReferenceDigest]; !ok || json.Unmarshal(value, &about) != nil {
		return false, nil
	}
	to, ok := r[about]
	if !ok || to.Digest == about {
		return false, nil
	}
	if err := annotations.set(annotationReferenceDigest, to.Digest); err != nil {
		return false, err
	}
	text, err := annotations.bytes()
	if err != nil {
		return false, err
	}
	return true, m.set("annotations", json.RawMessage(text))
}

// rewriteDigests replaces digests wherever they are written in a document, in either
// form. Its length stays.
func rewriteDigests(document []byte, blobs replacements) []byte {
	for old, to := range blobs {
		if old != to.Digest {
			document = bytes.ReplaceAll(document, []byte(old.Encoded()), []byte(to.Digest.Encoded()))
		}
	}
	return document
}

// rewriteAttestation gives the manifest of an attestation with other blobs, about
// another manifest. One that stays the same keeps its bytes.
func rewriteAttestation(manifest []byte, blobs, manifests replacements) ([]byte, error) {
	o, err := parseObject(manifest)
	if err != nil {
		return nil, err
	}
	layers, err := blobs.descriptors(o, "layers")
	if err != nil {
		return nil, err
	}
	config, err := blobs.member(o, "config")
	if err != nil {
		return nil, err
	}
	subject, err := manifests.member(o, "subject")
	if err != nil || !(layers || config || subject) {
		return manifest, err
	}
	return o.bytes()
}
