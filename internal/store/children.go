package store

import (
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// forgetChildren takes layers that are gone off the lists that their parents have of their children. containerd's
// collector leaves them there: an image that stays while others are built upon it would have a line of each of them for
// good, and its layer could not be removed by its name.
func (s *Store) forgetChildren() error {
	found := false
	err := s.meta.View(func(tx *bolt.Tx) error {
		return eachGoneChild(tx, func(*bolt.Bucket, []byte) error { found = true; return nil })
	})
	if err == nil && found {
		err = s.meta.Update(func(tx *bolt.Tx) error {
			return eachGoneChild(tx, func(list *bolt.Bucket, child []byte) error { return list.Delete(child) })
		})
	}
	if err != nil {
		return fmt.Errorf("forget layers that are gone: %w", err)
	}
	return nil
}

// eachGoneChild calls f with the names of layers on lists of children that are no layers.
func eachGoneChild(tx *bolt.Tx, f func(list *bolt.Bucket, child []byte) error) error {
	return eachBucket(tx.Bucket([]byte("v1")), func(space *bolt.Bucket) error {
		return eachBucket(space.Bucket([]byte("snapshots")), func(layers *bolt.Bucket) error {
			return eachBucket(layers, func(layer *bolt.Bucket) error {
				list := layer.Bucket([]byte("children"))
				if list == nil {
					return nil
				}
				var gone [][]byte // nothing is removed from a list that is gone through
				err := list.ForEach(func(child, _ []byte) error {
					if layers.Bucket(child) == nil {
						gone = append(gone, child)
					}
					return nil
				})
				for _, child := range gone {
					if err == nil {
						err = f(list, child)
					}
				}
				return err
			})
		})
	})
}

// eachBucket calls f with all buckets in b, if there is such a one.
func eachBucket(b *bolt.Bucket, f func(*bolt.Bucket) error) error {
	if b == nil {
		return nil
	}
	return b.ForEachBucket(func(name []byte) error { return f(b.Bucket(name)) })
}
