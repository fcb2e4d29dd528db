// Package archive packs trees of files into tar streams and unpacks such streams
// into the tree of a container.
//
// Both sides are hostile: a process of the container may change the tree
// meanwhile, and a stream may say anything. What the package promises:
//
//   - Files are reached by descriptors that were opened inside the root
//     (internal/rootpath). No link, no "..", no name in a stream and no process that
//     swaps directories for links leads outside.
//   - Nothing is opened that could block or act: pipes, sockets and devices are
//     described, never read.
//   - Whatever is mounted over a name stays mounted: a mount point is never
//     replaced. Filesystems that are the kernel's own interfaces (procfs, sysfs,
//     cgroups …) are packed as empty directories and not unpacked into.
//   - Owners, modes, times, extended attributes, hard links, devices and holes are
//     kept. A file that is being replaced is whole at every instant, before and
//     after; a full disk or a kill leaves the former one.
//   - Memory does not grow with the size of files, and depth is bounded.
//
// Functions return when their context ends, at the latest after the read or write
// of the stream that is under way.
package archive
