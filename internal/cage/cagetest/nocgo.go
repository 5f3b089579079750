//go:build linux && !cgo

package cagetest

const withCgo = false
