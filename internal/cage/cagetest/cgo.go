//go:build linux && cgo

package cagetest

// withCgo says that this test binary has threads that Go cannot confine. The
// product is built without.
const withCgo = true
