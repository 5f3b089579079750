//go:build linux

package cagetest

import (
	"os"
	"syscall"
)

func owner(fi os.FileInfo) int {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return -1
	}
	return int(st.Uid)
}
