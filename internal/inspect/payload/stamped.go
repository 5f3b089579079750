package payload

// Ids that begin with the instant at which they were made are known by it: those
// of one text were made within a few years of one another, and random symbols
// were not. A ULID has 80 random bits, a KSUID 128.
const (
	ulid = iota
	ksuid
	stampKinds
)

const (
	maxAround  = 128                 // characters of the run that one stands in: long ones are data
	maxStamped = 64 << 10            // characters of all such ids
	maxApart   = 2 * 365 * 24 * 3600 // seconds between one and the next
	firstStamp = 1_262_304_000       // seconds since 1970, of 2010
	lastStamp  = 2_524_608_000       // of 2050
)

// isStamped reports whether s is an id of a kind that was in the text before,
// with an instant near the one of that.
func (f *found) isStamped(s []byte) bool {
	var kind int
	var at int64
	switch len(s) {
	case 26:
		kind, at = ulid, ulidTime(s)
	case 27:
		kind, at = ksuid, ksuidTime(s)
	}
	if at < firstStamp || at > lastStamp {
		return false
	}
	apart := at - f.stamp[kind]
	f.stamp[kind] = at
	return -maxApart <= apart && apart <= maxApart
}

// crockford are the values of the digits of ULIDs and TypeIDs, from 1 on; 0 is
// none.
var crockford = func() (t [256]byte) {
	for i, c := range []byte("0123456789ABCDEFGHJKMNPQRSTVWXYZ") {
		t[c] = byte(i + 1)
		if c >= 'A' {
			t[c|0x20] = byte(i + 1)
		}
	}
	return t
}()

// ulidTime returns the seconds since 1970 of a ULID, or of the UUID of version
// 7 that a TypeID is, 0 if it is none.
func ulidTime(s []byte) int64 {
	ms, letters := int64(0), byte(0)
	for i, c := range s {
		v := crockford[c]
		if v == 0 {
			return 0
		}
		if c >= 'A' {
			letters |= 1 << (c >> 5 & 1)
		}
		if i < 10 {
			ms = ms<<5 | int64(v-1)
		}
	}
	if s[0] > '7' || letters == 3 {
		return 0 // more than 128 bits, or two cases
	}
	return ms / 1000
}

// ksuidTime returns the seconds since 1970 of a KSUID, 0 if it is none: a number
// of 160 bits in base62, of which the upper 32 are seconds since May 2014.
func ksuidTime(s []byte) int64 {
	const epoch = 1_400_000_000
	var n [5]uint32
	for _, c := range s {
		carry := uint64(0)
		switch {
		case '0' <= c && c <= '9':
			carry = uint64(c - '0')
		case 'A' <= c && c <= 'Z':
			carry = uint64(c-'A') + 10
		case 'a' <= c && c <= 'z':
			carry = uint64(c-'a') + 36
		default:
			return 0
		}
		for i := len(n) - 1; i >= 0; i-- {
			carry += uint64(n[i]) * 62
			n[i], carry = uint32(carry), carry>>32 //nolint:gosec // the rest is the carry
		}
		if carry > 0 {
			return 0
		}
	}
	return int64(n[0]) + epoch
}
