package image

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"

	"github.com/cleatlabs/cleat/internal/failure"
	"github.com/cleatlabs/cleat/internal/record"
)

// Remove removes a name, or an image with all of its names, by Docker's rules:
//
//   - By name, while other names are left: only that name goes, whoever uses the image.
//   - By its last name, unused: name and image go. Used by any container: refused, but
//     with Force the name goes and the image stays without one.
//   - By id: refused while a running container uses it, Force or not; refused without
//     Force while a stopped one does, or if the id has names in several repositories
//     or several tags.
//
// users gives the containers that use an image. Space is freed in the background.
func (s *Service) Remove(ctx context.Context, ref string, opts RemoveOptions, users func(imageID string) []User) ([]image.DeleteResponse, error) {
	ctx = s.store.Context(ctx)
	for {
		records, err := s.remove(ctx, ref, opts, users)
		if !errors.Is(err, errRenamed) {
			return records, err
		}
	}
}

// errRenamed says that the image's names are others than when it was looked up: another
// rule may be the one that counts.
var errRenamed = errors.New("the names of the image have changed")

// remove does so as far as the names stay what they are when the image is looked up.
func (s *Service) remove(ctx context.Context, ref string, opts RemoveOptions, users func(imageID string) []User) ([]image.DeleteResponse, error) {
	c, err := s.catalog(ctx)
	if err != nil {
		return nil, err
	}
	m, err := c.find(ref)
	if err != nil {
		return nil, err
	}
	r := removal{s: s, match: m, RemoveOptions: opts, ask: func() []User { return nil }}
	if users != nil {
		r.ask = func() []User { return users(m.id().String()) }
	}
	r.users = r.ask()
	if m.named == nil {
		return r.byID(ctx)
	}
	return r.byName(ctx)
}

type removal struct {
	RemoveOptions
	s     *Service
	match *match
	ask   func() []User
	users []User // when it was asked last
}

func (r *removal) byID(ctx context.Context) ([]image.DeleteResponse, error) {
	id := r.match.id().String()
	if u := r.user(true); u != nil {
		return nil, conflict(shortID(id), true, "image is being used by running container "+shortID(u.ContainerID))
	}
	if r.Nameless && slices.ContainsFunc(r.match.names, func(n images.Image) bool { return !isDangling(n.Name) }) {
		return nil, conflict(shortID(id), false, "image has a name")
	}
	if !r.Force {
		if u := r.user(false); u != nil {
			return nil, conflict(shortID(id), false, "image is being used by stopped container "+shortID(u.ContainerID))
		}
		if !r.Unused && !oneReference(r.match.names) {
			return nil, conflict(shortID(id), false, "image is referenced in multiple repositories")
		}
	}
	return r.all(ctx)
}

func (r *removal) byName(ctx context.Context) ([]image.DeleteResponse, error) {
	same := sameName(r.match.named, r.match.names)
	if len(same) != len(r.match.names) {
		return r.untag(ctx, same, false)
	}
	if len(r.users) > 0 {
		if !r.Force {
			return nil, conflict(reference.FamiliarString(r.match.named), false, fmt.Sprintf("container %s is using its referenced image %s",
				shortID(r.users[0].ContainerID), shortID(r.match.id().String())))
		}
		return r.untag(ctx, same, true)
	}
	return r.all(ctx)
}

// user gives a container that uses the image, running or not.
func (r *removal) user(running bool) *User {
	for i := range r.users {
		if r.users[i].Running == running {
			return &r.users[i]
		}
	}
	return nil
}

func conflict(what string, hard bool, why string) error {
	way := "must be forced"
	if hard {
		way = "cannot be forced"
	}
	return failure.Conflict("conflict: unable to delete %s (%s) - %s", what, way, why)
}

// untag removes names and nothing else. keep gives the image, which loses its last
// name, a place among the dangling ones.
func (r *removal) untag(ctx context.Context, names []images.Image, keep bool) ([]image.DeleteResponse, error) {
	err := r.s.store.Update(ctx, func(ctx context.Context) error {
		if err := r.check(ctx); err != nil {
			return err
		}
		if keep {
			dangling := images.Image{Name: danglingName(r.match.id()), Target: r.match.target.Target}
			if _, err := r.s.store.Images.Create(ctx, dangling); err != nil && !errdefs.IsAlreadyExists(err) {
				return err
			}
		}
		return r.s.deleteNames(ctx, names)
	})
	if err != nil {
		return nil, fmt.Errorf("remove the name %s: %w", r.match.ref(), err)
	}
	return r.untagged(names), nil
}

// all removes an image with all of its names. The layers that stopped containers stand
// on stay, and those of containers that were made, or are being made, since the removal
// began: who comes later finds no image.
func (r *removal) all(ctx context.Context) ([]image.DeleteResponse, error) {
	end, held, err := r.s.beginRemoval(ctx, r.match.id())
	if err != nil {
		return nil, err
	}
	defer end()
	r.users = r.ask()
	used := held || len(r.users) > 0
	if used && r.Unused {
		return nil, conflict(shortID(r.match.id().String()), false, "a container was made of it")
	}
	if used {
		if err := r.keepLayers(ctx); err != nil {
			return nil, err
		}
	}
	err = r.s.store.Update(ctx, func(ctx context.Context) error {
		if err := r.check(ctx); err != nil {
			return err
		}
		return r.s.deleteNames(ctx, r.match.names)
	})
	id := r.match.id()
	if err != nil {
		return nil, fmt.Errorf("remove the image %s: %w", id, err)
	}
	record.Failpoint("image.remove.after-names")
	records := append(r.untagged(r.match.names), image.DeleteResponse{Deleted: id.String()})
	r.s.events("delete", id.String(), id.String())
	if !used {
		if err := r.s.dropIfLeased(ctx, id); err != nil {
			return records, err
		}
	}
	r.s.store.ScheduleGC()
	return records, nil
}

// keepLayers keeps the layers that containers stand on, and for one that is being made those of the engine's own platform.
// What a container lacks already is no reason not to remove the image.
func (r *removal) keepLayers(ctx context.Context) error {
	var errs []error
	if img, err := r.s.Resolve(ctx, r.match.id().String(), ""); err == nil {
		_, err := r.s.Lower(ctx, img)
		errs = append(errs, err)
	}
	for _, u := range r.users {
		for _, img := range u.Images {
			if _, err := r.s.Lower(ctx, img); !errdefs.IsNotFound(err) {
				errs = append(errs, err)
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("keep the layers of the image %s for containers: %w", r.match.id(), err)
	}
	return nil
}

// check gives errRenamed, inside of a transaction, if the image does not have the names with which it was looked up.
func (r *removal) check(ctx context.Context) error {
	now, err := r.s.store.Images.List(ctx, "target.digest=="+r.match.id().String())
	if err == nil && !sameNames(now, r.match.names) {
		err = errRenamed
	}
	return err
}

func (r *removal) untagged(names []images.Image) []image.DeleteResponse {
	records := []image.DeleteResponse{}
	id := r.match.id().String()
	for _, n := range names {
		if isDangling(n.Name) {
			continue
		}
		r.s.events("untag", id, id)
		records = append(records, image.DeleteResponse{Untagged: familiar(n.Name)})
	}
	return records
}

// dropIfLeased lets go of the layers of an image without names and users.
func (s *Service) dropIfLeased(ctx context.Context, id digest.Digest) error {
	s.layers.mu.Lock()
	leased := s.layers.leased[id]
	s.layers.mu.Unlock()
	if !leased {
		return nil
	}
	return s.dropLease(ctx, id)
}

// deleteNames deletes names in a transaction. One that is gone already is no fault.
func (s *Service) deleteNames(ctx context.Context, names []images.Image) error {
	for _, n := range names {
		if err := s.store.Images.Delete(ctx, n.Name); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// sameNames reports whether two lists have the same names, in whichever order.
func sameNames(a, b []images.Image) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(x images.Image) bool {
		return !slices.ContainsFunc(b, func(y images.Image) bool { return x.Name == y.Name })
	})
}

// oneReference reports whether an image has one tag at most, and digests of the same
// repository at most beside it.
func oneReference(names []images.Image) bool {
	tags := 0
	repositories := map[string]bool{}
	for _, n := range names {
		if isDangling(n.Name) {
			continue
		}
		repositories[repositoryOf(n.Name)] = true
		if named, err := reference.ParseNormalizedNamed(n.Name); err == nil {
			if _, ok := named.(reference.Tagged); ok {
				tags++
			}
		}
	}
	return tags <= 1 && len(repositories) <= 1
}

// sameName gives the names that go when named is removed: a digest stands for every
// name in its repository; a tag for itself and, if it is the repository's last tag of
// the image, for its digests too. The dangling name counts with either.
func sameName(named reference.Named, names []images.Image) []images.Image {
	_, byDigest := named.(reference.Digested)
	var same, digests []images.Image
	otherTags := false
	for _, n := range names {
		parsed, err := reference.ParseNormalizedNamed(n.Name)
		switch {
		case isDangling(n.Name), err != nil:
			same = append(same, n)
		case parsed.Name() != named.Name():
		case byDigest, n.Name == named.String():
			same = append(same, n)
		default:
			if _, ok := parsed.(reference.Tagged); ok {
				otherTags = true
			} else {
				digests = append(digests, n)
			}
		}
	}
	if !otherTags {
		same = append(same, digests...)
	}
	return slices.Clip(same)
}
