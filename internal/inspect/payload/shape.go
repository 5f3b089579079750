package payload

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"strings"
)

// What well-known structures may carry of random data in one text, in
// characters. They bound a channel that cannot be closed: a credential that
// the server expects looks like any other random data.
const (
	maxSlot      = 2 << 10  // of one credential
	maxSlots     = 8 << 10  // of all credentials of a piece of content
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
	"user_code": true, "device_code": true, "x-client-data": true, "location": true,
}

// isSlot reports whether a part stands where a random value is expected, and
// takes it from what all such places may hold.
func (x *examiner) isSlot(data, part []byte, key string) bool {
	if key == "" {
		return false
	}
	key = strings.ToLower(key)
	if x.reasoning && len(part) <= maxReasoning && isReasoning(data, key) && x.root.reasoned+len(part) <= maxReasoned {
		x.root.reasoned += len(part)
		return true
	}
	limit := maxSlot
	if x.cookie {
		limit = maxSlot / 2
	} else if !x.root.isSlotName(key) {
		return false
	}
	if len(part) > limit || x.root.slots+len(part) > maxSlots {
		return false
	}
	x.root.slots += len(part)
	return true
}

// isSlotName remembers the last answer: in JSON one key stands before most of
// the text.
func (r *root) isSlotName(key string) bool {
	if key != r.key {
		r.key, r.slot = key, isSlotName(key)
	}
	return r.slot
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
	return len(before) > len(name) && bytes.IndexByte([]byte("=:-"), before[len(before)-1]) >= 0 &&
		bytes.HasSuffix(before[:len(before)-1], []byte(name))
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
	x.root.slots += len(signature)
	if x.root.slots > maxSlots {
		x.found.medium += len(signature)
	}
}

// maxKey bounds certificates and public keys, in bytes.
const maxKey = 16 << 10

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
	return sshKey(data) || pgpPublic(data)
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
		switch tag {
		case 2, 6, 13, 14:
		default:
			return false
		}
		if size > len(data)-head || size > 4<<10 || tag != 13 && data[head] != 4 && data[head] != 6 {
			return false
		}
		data = data[head+size:]
		packets++
	}
	return packets > 0 && len(data) == 0
}

func sshKey(data []byte) bool {
	fields := 0
	for len(data) >= 4 {
		n := int(binary.BigEndian.Uint32(data))
		if n < 0 || n > len(data)-4 {
			return false
		}
		if name := string(data[4 : 4+n]); fields == 0 && !strings.HasPrefix(name, "ssh-") && !strings.HasPrefix(name, "ecdsa-sha2-") && !strings.HasPrefix(name, "sk-") {
			return false
		}
		data = data[4+n:]
		fields++
	}
	return len(data) == 0 && 2 <= fields && fields <= 6
}
