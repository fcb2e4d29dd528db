// Package kernel answers what the running Linux kernel can do, once, before the engine relies on it, and holds the small
// facts about it that several packages need: the boot id, what a process does, the
// mount table, the names of the capabilities.
//
// Nothing here changes the host: every probe works on file descriptors that are closed again before it returns.
package kernel
