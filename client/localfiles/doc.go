// Package localfiles is the local side of copying files between the user's machine and
// a container: what Docker's rules about existing targets, trailing slashes and links
// mean for two paths, and packing and unpacking local files.
//
// What comes from a container is not trusted: it is unpacked through an os.Root, so that
// neither its names nor its links lead out of the directory that the user has named,
// and its owners are not taken over: the files belong to who copies them.
package localfiles
