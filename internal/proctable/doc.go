// Package proctable lists processes in the columns of ps(1). It reads /proc itself: no
// program is run. Parse understands the arguments of ps that choose columns, in the
// styles of Unix (-ef), BSD (aux) and -o; those that choose processes are accepted where
// they cannot matter, as the caller has chosen already. What it does not know is an
// error that names it.
package proctable
