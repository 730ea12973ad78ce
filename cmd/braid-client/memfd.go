package main

import (
	"syscall"
	"unsafe"
)

func memfdCreate(name *byte, flags int) (int, syscall.Errno) {
	fd, _, errno := syscall.Syscall(sysMemfdCreate, uintptr(unsafe.Pointer(name)), uintptr(flags), 0)
	return int(fd), errno
}
