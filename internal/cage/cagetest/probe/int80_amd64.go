package main

func int80(nr, a, b, c uint32) int32

const haveInt80 = true
