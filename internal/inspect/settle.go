package inspect

// Settle has f called once, when the chain has decided about the content: sent
// says whether it goes on. It is for inspectors that count. They check and
// reserve in one step when they are asked, and keep or give back here, so that
// two pieces that are judged at the same time do not both get the last of a
// limit, and what another inspector blocks or a config only observes is counted
// as what it is.
func (c *Content) Settle(f func(sent bool)) { c.settle = append(c.settle, f) }

// settled tells everybody who waits. It is false when one of them panicked.
func (c *Content) settled(sent bool) (ok bool) {
	ok = true
	for _, f := range c.settle {
		ok = tell(f, sent) && ok
	}
	c.settle = nil
	return ok
}

func tell(f func(sent bool), sent bool) (ok bool) {
	defer func() { _ = recover() }()
	f(sent)
	return true
}
