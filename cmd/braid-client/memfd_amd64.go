package main

// sysMemfdCreate is the number of the system call, which package syscall does not have.
const sysMemfdCreate = 319
