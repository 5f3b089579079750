//go:build !amd64

package main

func int80(nr, a, b, c uint32) int32 { return -38 } // ENOSYS

const haveInt80 = false
