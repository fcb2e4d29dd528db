package runtime

import (
	"errors"
	"strings"
	"syscall"

	"github.com/cleatlabs/cleat/internal/launch"
	"github.com/cleatlabs/cleat/internal/rootpath"
)

// defaultPath is searched when the environment has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// candidates are the paths to try for a command, as execvp does. Directories of PATH that are not absolute are passed
// over: what a command means must not depend on the directory it is started in.
func candidates(command string, env []string) []string {
	if strings.Contains(command, "/") {
		return []string{command}
	}
	path := defaultPath
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	var list []string
	for _, dir := range strings.Split(path, ":") {
		if strings.HasPrefix(dir, "/") {
			list = append(list, strings.TrimSuffix(dir, "/")+"/"+command)
		}
	}
	return list
}

func checkCommand(args []string) error {
	if len(args) == 0 || args[0] == "" {
		return invalid("no command specified")
	}
	return nil
}

// StartError says which step of a start failed.
type StartError struct {
	Op, Path string // the system call and its object; for a command that cannot be executed, "exec" and the command
	Errno    syscall.Errno
	Code     int // the exit code that Docker gives: 127 not found, 126 cannot be executed, 128 anything else
	text     string
}

// Error is worded as in Docker, without its runtime's prefixes.
func (e *StartError) Error() string {
	if e.text != "" {
		return e.text
	}
	s := e.Op
	if e.Path != "" {
		s += " " + e.Path
	}
	return s + ": " + e.Errno.Error()
}

// Unwrap is the errno.
func (e *StartError) Unwrap() error { return e.Errno }

const (
	codeNotFound      = 127
	codeNotExecutable = 126
	codeStartFailed   = 128
)

// startError translates the failure of a program. look is for what only a look at the file can tell.
func startError(err error, command string, look func(path string) (program, bool)) error {
	var f *launch.Failure
	if !errors.As(err, &f) {
		return err
	}
	if f.Call != "execve" && f.Call != "fail" {
		return setupError(f)
	}
	return commandError(command, f.Errno, look)
}

func setupError(f *launch.Failure) *StartError {
	e := &StartError{Op: f.Call, Path: f.What, Errno: f.Errno, Code: codeStartFailed}
	switch {
	case isProfile(f):
		e.text = profileError(strings.TrimPrefix(f.What, profileMark), f.Errno)
	case f.Call == "fchdir" || f.Call == "openat2" && strings.HasPrefix(f.What, cwdMark):
		dir := strings.TrimPrefix(f.What, cwdMark)
		e.Op, e.Path = "chdir", dir
		if f.Errno == syscall.ELOOP {
			e.text = "chdir to cwd (\"" + dir + "\") set in config.json failed: too many levels of symbolic links, or a link that leads outside the container"
			break
		}
		e.text = "chdir to cwd (\"" + dir + "\") set in config.json failed: " + f.Errno.Error()
		if f.Errno == syscall.ENOTDIR {
			e.Code = codeNotExecutable
		}
		if f.Errno == syscall.ENOENT {
			e.Code = codeNotFound
		}
	case f.Call == "move_mount" && (f.Errno == syscall.EINVAL || f.Errno == syscall.ENOTDIR):
		// Docker's words, which clients look for.
		e.Code, e.Errno = codeNotExecutable, syscall.ENOTDIR
		e.text = "error mounting to rootfs at \"/" + strings.TrimPrefix(f.What, "/") + "\": not a directory: Are you trying to mount a directory onto a file (or vice-versa)? " +
			"Check if the specified host path exists and is the expected type"
	case f.Call == "openat2" && strings.HasPrefix(f.What, "sys/"):
		key := strings.ReplaceAll(strings.TrimPrefix(f.What, "sys/"), "/", ".")
		e.text = "sysctl " + key + ": " + f.Errno.Error()
		if f.Errno == syscall.ENOENT {
			e.text = "sysctl " + key + ": this kernel has no such setting"
		}
	case f.Call == "openat2" && (f.Errno == syscall.ELOOP || f.Errno == syscall.EXDEV):
		e.text = "mounting on /" + strings.TrimPrefix(strings.TrimPrefix(f.What, targetMark), "/") + ": it is a symbolic link in the image, which could lead the mount astray"
	}
	return e
}

// targetMark begins the object of operations that make or open a mount's target.
const targetMark = "mount target "

// targetError is that of a mount whose target nothing can be mounted on, in Docker's words, which clients look for. Any
// other error stays as it is.
func targetError(target string, err error) error {
	if !rootpath.Unfit(err) {
		return err
	}
	e := &StartError{Op: "mount", Path: target, Errno: errnoOf(err), Code: codeStartFailed, text: err.Error()}
	if e.Errno == syscall.ENOTDIR {
		e.Code = codeNotExecutable
		e.text += ": Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type"
	}
	return e
}

func commandError(command string, errno syscall.Errno, look func(path string) (program, bool)) *StartError {
	e := &StartError{Op: "exec", Path: command, Errno: errno, Code: codeNotExecutable}
	quoted := "exec: \"" + command + "\": "
	if !strings.Contains(command, "/") {
		e.text = quoted + errno.Error()
		if errno == syscall.ENOENT {
			e.Code = codeNotFound
			e.text = quoted + "executable file not found in $PATH"
		}
		return e
	}
	file, exists := program{}, false
	if strings.HasPrefix(command, "/") {
		file, exists = look(command)
	}
	if errno == syscall.ENOENT || errno == syscall.ENOTDIR {
		e.Code = codeNotFound
	}
	switch {
	case e.Code == codeNotFound && !exists:
		e.text = quoted + "stat " + command + ": " + errno.Error()
		return e
	case errno == syscall.EACCES && exists && file.isDir():
		// Clients choose their exit code by the words: Docker's 20.10 knows only the latter of these.
		e.Errno, e.text = syscall.EISDIR, quoted+"is a directory: permission denied"
		return e
	}
	e.text = quoted + errno.Error()
	if exists {
		if why := file.why(errno); why != "" {
			e.text += ": " + why
		}
	}
	return e
}
