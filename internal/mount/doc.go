// Package mount makes mounts as file descriptors: an overlay of image layers, a clone of a host directory. Nothing that
// it returns is visible in a directory tree until someone attaches it, so a crash leaves no mount behind. It also fills
// a new volume from the image's content at the same place.
package mount
