package payload

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"math/bits"
	"strings"
)

// What well-known structures may carry of random data in one text, in
// characters. They bound a channel that cannot be closed: a credential that
// the server expects looks like any other random data.
const (
	maxSlot      = 2 << 10  // of one credential
	maxSlots     = 8 << 10  // of all credentials of a piece of content
	maxJar       = 2 << 10  // of those in cookies whose names say nothing
	maxHashes    = 64 << 10 // of hashes, where they are most of the text
	maxUUIDs     = 256 << 10
	maxReasoning = 256 << 10 // of one block of a model's encrypted reasoning
	maxReasoned  = 4 << 20   // of all of them
	maxSignature = 1 << 10   // of a JSON web token
)

// slotWords are parts of the names of what holds a credential, a cursor or
// another value that a server made up.
var slotWords = []string{
	"auth", "token", "secret", "passw", "key", "sess", "csrf", "xsrf", "sign", "cookie", "jwt", "assertion",
	"credential", "cursor", "upload", "continuation", "saml", "relaystate", "challenge", "verifier", "hmac",
	"digest", "etag", "if-none-match", "if-match", "idempotency", "ticket", "nonce",
}

// slotNames are such names that are too short to be looked for in others.
var slotNames = map[string]bool{
	"code": true, "state": true, "sig": true, "sid": true, "after": true, "before": true, "marker": true,
	"user_code": true, "device_code": true, "x-client-data": true, "location": true, "boundary": true,
}

// smallSlots are names of other values that a server made up, and the most
// characters that each has: a click on an advertisement, which comes with the
// address of a page.
var smallSlots = map[string]int{
	"gclid": 256, "dclid": 256, "gbraid": 256, "wbraid": 256, "fbclid": 256, "msclkid": 64, "ttclid": 256, "twclid": 128, "yclid": 64, "li_fat_id": 64,
}

// slotLimit returns how many characters the value of a key may have, 0 if none
// are expected to be random.
func (x *examiner) slotLimit(key string) int {
	switch {
	case x.upload && key == "_state": // where the registry left off
		return maxSlot / 2
	case x.cookie:
		return maxSlot / 2
	case isSlotName(key):
		return maxSlot
	}
	return smallSlots[key]
}

// isSlot reports whether a part stands where a random value is expected, and
// takes it from what all such places may hold.
func (x *examiner) isSlot(data, part []byte, key string) bool {
	if key == "" {
		return false
	}
	key = strings.ToLower(key)
	spent := &x.root.spent
	if x.reasoning && len(part) <= maxReasoning && isReasoning(data, key) && spent.reasoned+len(part) <= maxReasoned {
		spent.reasoned += len(part)
		return true
	}
	if len(part) > x.slotLimit(key) || spent.slots+len(part) > maxSlots {
		return false
	}
	if x.cookie && !isSlotName(key) {
		if spent.jar+len(part) > maxJar {
			return false
		}
		spent.jar += len(part)
	}
	spent.slots += len(part)
	return true
}

func isSlotName(key string) bool {
	if slotNames[key] {
		return true
	}
	for _, w := range slotWords {
		if strings.Contains(key, w) {
			return true
		}
	}
	return false
}

// isReasoning reports whether a key of JSON holds what a model's API encrypted
// or signed, and wants back with the next request.
func isReasoning(data []byte, key string) bool {
	switch key {
	case "signature", "encrypted_content", "encrypted_index", "thoughtsignature", "thought_signature":
		return true
	case "data":
		return bytes.Contains(data, []byte("redacted_thinking")) || bytes.Contains(data, []byte("reasoning.encrypted"))
	}
	return false
}

// withoutIDs cuts ids of known shapes out of a run, and returns what is left.
func (x *examiner) withoutIDs(run []byte) [][]byte {
	if isPaddedHash(run) {
		x.found.hashes += len(run)
		return nil
	}
	var parts [][]byte
	rest, at := 0, 0
	for at < len(run) {
		n, counter := idAt(run, at, &x.found)
		if n == 0 {
			at = nextPiece(run, at)
			continue
		}
		*counter += n
		if at > rest {
			parts = append(parts, run[rest:at])
		}
		at += n
		rest = at
	}
	if rest < len(run) {
		parts = append(parts, run[rest:])
	}
	return parts
}

// nextPiece returns where the piece that begins after the next sign begins.
func nextPiece(run []byte, at int) int {
	for at < len(run) && classOf[run[at]]&isSign == 0 {
		at++
	}
	return at + 1
}

// idAt returns the length of an id that begins at a place and ends at a sign,
// and where it is to be counted.
func idAt(run []byte, at int, f *found) (n int, counter *int) {
	s := run[at:]
	if isUUID(s) {
		return 36, &f.uuids
	}
	for n < len(s) && classOf[s[n]]&isSign == 0 && s[n] != '=' {
		n++
	}
	if n < len(s) && s[n] == '=' {
		return 0, nil
	}
	switch n {
	case 24, 32, 40, 56, 64, 96, 128:
		lower := isAll(s[:n], isDigit|isEdge|isHexLower)
		if lower || isAll(s[:n], isDigit|isEdge|isHexUpper) {
			return n, &f.hashes
		}
	case 26, 27:
		if len(run) <= maxAround && f.isStamped(s[:n]) {
			return n, &f.stamped
		}
	}
	return 0, nil
}

// isID reports whether a run is an id and nothing else.
func isID(run []byte) bool {
	n, _ := idAt(run, 0, new(found))
	return n == len(run) || isPaddedHash(run)
}

// isNamedHash reports a hash in base64 without padding behind the name of its
// algorithm: sha256=…, as in the records of Python's packages.
func isNamedHash(before, run []byte) bool {
	name := ""
	switch len(run) {
	case 27:
		name = "sha1"
	case 43:
		name = "sha256"
	case 64:
		name = "sha384"
	case 86:
		name = "sha512"
	default:
		return false
	}
	n := len(before) - 1
	return n > 0 && bytes.IndexByte([]byte("=:-"), before[n]) >= 0 && bytes.HasSuffix(before[:n], []byte(name))
}

// isUUID reports whether s begins with a UUID of RFC 9562: its version is 1 to
// 8, and its variant is that of the RFC.
func isUUID(s []byte) bool {
	if len(s) < 36 || len(s) > 36 && classOf[s[36]]&(inBase64&^isSign) != 0 {
		return false
	}
	for i, c := range s[:36] {
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if classOf[c]&(isDigit|isEdge|isHexLower|isHexUpper) == 0 {
				return false
			}
		}
	}
	return '1' <= s[14] && s[14] <= '8' && bytes.IndexByte([]byte("89abAB"), s[19]) >= 0
}

// isPaddedHash reports a hash in padded base64, by itself or with its name
// before it as in subresource integrity ("sha512-…").
func isPaddedHash(run []byte) bool {
	hash := run
	if name, rest, ok := bytes.Cut(run, []byte("-")); ok && bytes.HasPrefix(name, []byte("sha")) && len(name) <= 6 {
		hash = rest
		if len(hash) == 64 {
			return bytes.Equal(name, []byte("sha384")) // it fills its base64
		}
	}
	pad := 1
	switch len(hash) {
	case 24, 88:
		pad = 2
	case 28, 44:
	default:
		return false
	}
	return bytes.IndexByte(hash, '=') == len(hash)-pad
}

// webToken returns the length of a JSON web signature (RFC 7515) that data
// begins with, 0 if there is none.
func webToken(data []byte) int {
	part := func(at int) int {
		n := at
		for n < len(data) && classOf[data[n]]&inBase64 != 0 {
			n++
		}
		return n
	}
	head := part(0)
	if head == len(data) || data[head] != '.' {
		return 0
	}
	body := part(head + 1)
	if body == len(data) || data[body] != '.' {
		return 0
	}
	end := part(body + 1)
	if end-body > maxSignature || end < len(data) && data[end] == '.' {
		return 0
	}
	var header struct {
		Alg string `json:"alg"`
		Enc string `json:"enc"`
	}
	text, err := fromBase64(data[:head])
	if err != nil || json.Unmarshal(text, &header) != nil || header.Alg == "" || header.Enc != "" {
		return 0
	}
	return end
}

// webToken looks into the claims of a token, and takes its signature from what
// credentials may hold.
func (x *examiner) webToken(token []byte) {
	head, rest, _ := bytes.Cut(token, []byte("."))
	body, signature, _ := bytes.Cut(rest, []byte("."))
	for _, p := range [][]byte{head, body} {
		claims, err := fromBase64(p)
		if err == nil && len(claims) > 0 {
			x.found.medium += x.inside(claims)
		}
	}
	x.root.spent.slots += len(signature)
	if x.root.spent.slots > maxSlots {
		x.found.medium += len(signature)
	}
}

// What bounds certificates, public keys and signatures, in bytes: whoever makes
// one chooses much of it.
const (
	maxKey  = 16 << 10
	maxKeys = 256 << 10 // of all of them in a piece of content: those that a system trusts
)

// publicKey reports a certificate, a public key, or the public key of SSH
// (RFC 4253 section 6.6).
func publicKey(data []byte) bool {
	if len(data) > maxKey {
		return false
	}
	if len(data) > 0 && data[0] == 0x30 {
		if _, err := x509.ParseCertificate(data); err == nil {
			return true
		}
		if _, err := x509.ParseCertificateRequest(data); err == nil {
			return true
		}
		_, err := x509.ParsePKIXPublicKey(data)
		return err == nil
	}
	return sshKey(data) || sshSignature(data) || pgpPublic(data)
}

// pgpPublic reports packets of OpenPGP (RFC 9580 section 4) of which each is a
// signature, a public key or a user's name.
func pgpPublic(data []byte) bool {
	packets := 0
	for len(data) > 1 {
		tag, head, size := 0, 0, 0
		switch first := data[0]; {
		case first&0xc0 == 0xc0 && data[1] < 192:
			tag, head, size = int(first&0x3f), 2, int(data[1])
		case first&0xc0 == 0xc0 && len(data) > 2 && data[1] < 224:
			tag, head, size = int(first&0x3f), 3, int(data[1]-192)<<8+int(data[2])+192
		case first&0xc3 == 0x80:
			tag, head, size = int(first>>2&15), 2, int(data[1])
		case first&0xc3 == 0x81 && len(data) > 2:
			tag, head, size = int(first>>2&15), 3, int(data[1])<<8|int(data[2])
		default:
			return false
		}
		if size == 0 || size > len(data)-head || size > 4<<10 {
			return false
		}
		body, ok := data[head:head+size], false
		switch tag {
		case 2:
			ok = pgpSignature(body)
		case 6, 14:
			ok = body[0] == 4 || body[0] == 6
		case 13:
			ok = isText(body)
		}
		if !ok {
			return false
		}
		data = data[head+size:]
		packets++
	}
	return packets > 0 && len(data) == 0
}

// pgpSignature reports the body of a signature of version 4 or 6 (RFC 9580
// section 5.2.3), of which each subpacket and each number ends where the next
// begins, and the last one with it.
func pgpSignature(body []byte) bool {
	width := 2
	if body[0] == 6 {
		width = 4
	} else if body[0] != 4 {
		return false
	}
	if len(body) < 4+2*width+2 {
		return false
	}
	algorithm, rest, ok := body[2], body[4:], true
	for range 2 { // the hashed ones, and the others
		if len(rest) < width {
			return false
		}
		n := int(binary.BigEndian.Uint16(rest[width-2:]))
		if rest = rest[width:]; n > len(rest) || !pgpSubpackets(rest[:n]) {
			return false
		}
		rest = rest[n:]
	}
	if len(rest) < 2 {
		return false
	}
	rest = rest[2:] // of the hash
	if width == 4 { // its salt
		if len(rest) == 0 || int(rest[0]) >= len(rest) {
			return false
		}
		rest = rest[1+int(rest[0]):]
	}
	switch algorithm {
	case 27:
		return len(rest) == 64
	case 28:
		return len(rest) == 114
	}
	for numbers := 0; ok && len(rest) > 0; numbers++ {
		rest, ok = pgpNumber(rest)
		ok = ok && numbers < 2
	}
	return ok
}

// pgpSubpackets walks over subpackets, all with a known type.
func pgpSubpackets(data []byte) bool {
	for len(data) > 0 {
		head, size := 1, int(data[0])
		if size >= 192 {
			if len(data) < 2 || size == 255 {
				return false
			}
			head, size = 2, (size-192)<<8+int(data[1])+192
		}
		if size == 0 || size > len(data)-head || data[head]&0x7f > 40 {
			return false
		}
		data = data[head+size:]
	}
	return true
}

// pgpNumber cuts a number off whose first bit is where its length says.
func pgpNumber(data []byte) (rest []byte, ok bool) {
	if len(data) < 3 {
		return nil, false
	}
	n := int(binary.BigEndian.Uint16(data))
	size := (n + 7) / 8
	if n == 0 || size > len(data)-2 || bits.Len8(data[2]) != (n-1)%8+1 {
		return nil, false
	}
	return data[2+size:], true
}

// sshSignature reports a signature of a file or a commit (OpenSSH,
// PROTOCOL.sshsig): a public key, what it is for, and a signature by such a key.
func sshSignature(data []byte) bool {
	const least, most = 64, 1 << 10 // of an Ed25519 signature, and of one by RSA
	rest, ok := bytes.CutPrefix(data, []byte("SSHSIG\x00\x00\x00\x01"))
	var fields [5][]byte
	for i := range fields {
		var n int
		if len(rest) >= 4 {
			n = int(binary.BigEndian.Uint32(rest))
		}
		if !ok || len(rest) < 4 || n < 0 || n > len(rest)-4 {
			return false
		}
		fields[i], rest = rest[4:4+n], rest[4+n:]
	}
	hash, signature := string(fields[3]), fields[4]
	return len(rest) == 0 && sshKey(fields[0]) && len(fields[1]) <= 64 && isText(fields[1]) && len(fields[2]) == 0 &&
		(hash == "sha256" || hash == "sha512") && least <= len(signature) && len(signature) <= most && sshKey(signature)
}

func sshKey(data []byte) bool {
	fields := 0
	for len(data) >= 4 {
		n := int(binary.BigEndian.Uint32(data))
		if n < 0 || n > len(data)-4 {
			return false
		}
		if name := string(data[4 : 4+n]); fields == 0 && !strings.HasPrefix(name, "ssh-") && !strings.HasPrefix(name, "rsa-sha2-") && !strings.HasPrefix(name, "ecdsa-sha2-") && !strings.HasPrefix(name, "sk-") {
			return false
		}
		data = data[4+n:]
		fields++
	}
	return len(data) == 0 && 2 <= fields && fields <= 6
}
