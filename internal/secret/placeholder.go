package secret

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/agentcage/agentcage/internal/config"
)

// prefix and digits make a placeholder that says what it is, wherever it turns
// up: agentcage:secret:ENV:HEX, with 128 random bits, so that no ordinary
// content holds it by chance or by design (rule 64).
const (
	prefix = "agentcage:secret:"
	digits = 32
)

// The bounds of a placeholder that somebody chose, in bytes. Its first four
// characters are what a search begins at.
const (
	minPlaceholder = 5
	maxPlaceholder = 512
)

// NewPlaceholder makes a placeholder for the secret that env names. It is kept
// for as long as the secret has that name: agents write it into files.
func NewPlaceholder(env string) string {
	var b [digits / 2]byte
	_, _ = rand.Read(b[:]) // it never fails
	return prefix + env + ":" + hex.EncodeToString(b[:])
}

// ParsePlaceholder reads a placeholder as NewPlaceholder makes it, and returns
// the name in it.
func ParsePlaceholder(s string) (env string, ok bool) {
	rest, ok := strings.CutPrefix(s, prefix)
	env, random, found := strings.Cut(rest, ":")
	if !ok || !found || !config.ValidEnv(env) || len(random) != digits || strings.Trim(random, "0123456789abcdef") != "" {
		return "", false
	}
	return env, true
}

// CheckPlaceholder says why s can be no placeholder. The characters are those
// that stand for themselves in a header, in JSON and in HTML, so that a
// redaction breaks none of these.
func CheckPlaceholder(s string) error {
	switch {
	case len(s) < minPlaceholder:
		return fmt.Errorf("a placeholder has at least %d characters", minPlaceholder)
	case len(s) > maxPlaceholder:
		return fmt.Errorf("a placeholder has at most %d characters", maxPlaceholder)
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; !config.ValidEnv("a"+string(rune(c))) && !strings.ContainsRune("-.:{}[]()$@!*~^", rune(c)) {
			return errors.New("a placeholder has only letters, digits and _ - . : { } [ ] ( ) $ @ ! * ~ ^")
		}
	}
	return nil
}

// Guessable reports a placeholder that is not of the form of NewPlaceholder,
// such as the original's {{NAME}}: content that holds it without meaning to
// would have the secret put into it. It is accepted, with a warning.
func Guessable(s string) bool {
	_, ok := ParsePlaceholder(s)
	return !ok
}
