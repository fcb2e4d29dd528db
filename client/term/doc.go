// Package term is the client's terminal: which of its streams are terminals and
// how big they are, raw mode that is always given back, tables whose columns
// line up for wide characters too, and the progress of several layers at once,
// redrawn in place on a terminal and written as plain lines into a pipe.
package term
