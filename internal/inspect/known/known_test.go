package known

import (
	"context"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/agentcage/agentcage/internal/config"
	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
)

const token = "sk-ant-api03-R4nd0m+Bytes/AreHere_0123456789-ZyXwVuTsRqPoNm"

// hold returns a set with values called V0, V1 and so on.
func hold(t testing.TB, values ...string) *Set {
	t.Helper()
	var list []Value
	for i, v := range values {
		list = append(list, Value{Name: fmt.Sprintf("V%d", i), Bytes: []byte(v)})
	}
	s := new(Set)
	if err := s.Replace("test", list); err != nil {
		t.Fatal(err)
	}
	return s
}

func chain(s *Set) *inspect.Chain { return inspect.NewChain().WithContent(New(s, nil)) }

func request(host string) *inspect.Request {
	return &inspect.Request{Method: "POST", Scheme: "https", Host: hostname.MustParse(host), Port: 443, Path: "/", URL: &url.URL{Path: "/"}}
}

func body(host, text string) *inspect.Content {
	return &inspect.Content{Request: request(host), Kind: inspect.KindRequest, Direction: inspect.ToServer, Body: []byte(text)}
}

func send(s *Set, host, text string) inspect.Verdict {
	return chain(s).DecideContent(context.Background(), body(host, text))
}

// places are the ways in which a text can leave.
var places = map[string]func(text string) *inspect.Content{
	"body":      func(text string) *inspect.Content { return body("a.test", `{"x": "`+text+`"}`) },
	"bare body": func(text string) *inspect.Content { return body("a.test", text) },
	"path": func(text string) *inspect.Content {
		c := body("a.test", "")
		c.Request.URL = &url.URL{Path: "/v1/" + text + "/x"}
		if p, err := url.PathUnescape(text); err == nil {
			c.Request.URL.Path, c.Request.URL.RawPath = "/v1/"+p+"/x", "/v1/"+text+"/x"
		}
		return c
	},
	"query": func(text string) *inspect.Content {
		c := body("a.test", "")
		c.Request.URL = &url.URL{Path: "/", RawQuery: "a=b&q=" + text}
		return c
	},
	"query name": func(text string) *inspect.Content {
		c := body("a.test", "")
		c.Request.URL = &url.URL{Path: "/", RawQuery: text}
		return c
	},
	"header": func(text string) *inspect.Content {
		c := body("a.test", "")
		c.Header = http.Header{"X-A": {"nothing", text}}
		return c
	},
	"header name": func(text string) *inspect.Content {
		c := body("a.test", "")
		c.Header = http.Header{"X-" + text: {""}}
		return c
	},
	"cookie": func(text string) *inspect.Content {
		c := body("a.test", "")
		c.Header = http.Header{"Cookie": {"a=b; c=" + text}}
		return c
	},
	"message": func(text string) *inspect.Content {
		c := body("a.test", text)
		c.Kind = inspect.KindWebSocket
		return c
	},
	"grpc": func(text string) *inspect.Content {
		c := body("a.test", "\n\x05"+text)
		c.Kind = inspect.KindMessage
		return c
	},
	"window": func(text string) *inspect.Content {
		c := body("a.test", strings.Repeat("lorem ipsum ", 999)+text)
		c.Kind = inspect.KindWindow
		return c
	},
	"trailer": func(text string) *inspect.Content {
		c := body("a.test", "")
		c.Kind, c.Header = inspect.KindTrailer, http.Header{"X-Sum": {text}}
		return c
	},
}

// encodings are the forms of rules.md 58, without what only a decoder finds.
var encodings = map[string]func(string) string{
	"plain":         func(s string) string { return s },
	"small":         func(s string) string { return mapped(s, func(b byte) bool { return 'A' <= b && b <= 'Z' }) },
	"capital":       func(s string) string { return mapped(s, func(b byte) bool { return 'a' <= b && b <= 'z' }) },
	"swapped":       func(s string) string { return mapped(s, func(byte) bool { return true }) },
	"base64 0":      func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
	"base64 1":      func(s string) string { return base64.StdEncoding.EncodeToString([]byte("x" + s)) },
	"base64 2":      func(s string) string { return base64.RawStdEncoding.EncodeToString([]byte("xy" + s + "zz")) },
	"base64url 0":   func(s string) string { return base64.URLEncoding.EncodeToString([]byte(s)) },
	"base64url 1":   func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte("user" + s)) },
	"base64url 2":   func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte("user:" + s)) },
	"hex":           func(s string) string { return hex.EncodeToString([]byte(s)) },
	"HEX":           func(s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) },
	"base32":        func(s string) string { return base32.StdEncoding.EncodeToString([]byte(s)) },
	"base32 3":      func(s string) string { return strings.ToLower(base32.StdEncoding.EncodeToString([]byte("abc" + s))) },
	"query":         url.QueryEscape,
	"path":          url.PathEscape,
	"small percent": func(s string) string { return strings.ToLower(url.QueryEscape(s)) },
	"all percent": func(s string) string {
		var b strings.Builder
		for i := range len(s) {
			fmt.Fprintf(&b, "%%%02x", s[i])
		}
		return b.String()
	},
	"json": func(s string) string {
		if !utf8.ValidString(s) {
			return s // JSON cannot hold it
		}
		b, _ := json.Marshal(s)
		return string(b[1 : len(b)-1])
	},
	"slash": func(s string) string { return strings.ReplaceAll(s, "/", `\/`) },
}

// mapped changes the case of letters.
func mapped(s string, which func(byte) bool) string {
	out := []byte(s)
	for i, b := range out {
		if letter := b | 0x20; 'a' <= letter && letter <= 'z' && which(b) {
			out[i] = b ^ 0x20
		}
	}
	return string(out)
}

var values = map[string]string{
	"token":    token,
	"specials": `p"ss\w/rd <&'> 100% + "more" ünïcode` + "\n\ttail",
	"eight":    "Xq7#kP2z",
	"binary":   "\x00\x01\xfe\xff\x80\x7f\x10\x0a\x0d\xc3\x28",
	"hex":      "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
}

// TestWhole: all of a value, in every form and every place, does not leave.
func TestWhole(t *testing.T) {
	other := "k9Jd-2mVb7Tq0sLx4Wc8Hn3Gf6Yp1Ra5Ze" // the positive control
	for name, v := range values {
		for how, encode := range encodings {
			for where, place := range places {
				if how == "json" && where == "path" {
					continue // two encodings: that is for a decoder
				}
				s := hold(t, v)
				f := chain(s).DecideContent(context.Background(), place(encode(v)))
				if f.Allowed() || f.Findings[0].Severity != inspect.Critical || f.Findings[0].Rule != "V0" {
					t.Errorf("%s %s in %s: %+v", name, how, where, f)
				}
				if f := chain(s).DecideContent(context.Background(), place(encode(other))); f.Decision != inspect.Allowed {
					t.Errorf("%s in %s: something else is %+v", how, where, f)
				}
			}
		}
	}
}

func TestReasons(t *testing.T) {
	s := hold(t, token)
	for _, tt := range []struct{ text, reason string }{
		{token, "known value V0 sent to unauthorized host"},
		{"R4nd0m+Bytes", "piece of known value V0 (12 of 46 bytes seen)"},
		{"nothing", ""},
		{"R4nd0m+Bytes", ""}, // no news
		{"AreHere_", "piece of known value V0 (20 of 46 bytes seen)"},
		{"ZyXwVuTs", "known value V0 sent in pieces to unauthorized host (28 of 46 bytes seen)"},
	} {
		if v := send(s, "a.test", "see "+tt.text+" there"); v.Reason != tt.reason {
			t.Errorf("%s: %q, want %q", tt.text, v.Reason, tt.reason)
		}
	}
}

func TestNothingHeld(t *testing.T) {
	if v := send(new(Set), "a.test", token); v.Decision != inspect.Allowed {
		t.Errorf("%+v", v)
	}
	if v := inspect.NewChain().WithContent(&Inspector{}).DecideContent(context.Background(), body("a.test", "")); v.Allowed() {
		t.Error("an inspector without a set lets content pass")
	}
}

// TestResponses: what a server says is for the redactor.
func TestResponses(t *testing.T) {
	c := body("a.test", token)
	c.Kind, c.Direction = inspect.KindResponse, inspect.ToClient
	if v := chain(hold(t, token)).DecideContent(context.Background(), c); v.Decision != inspect.Allowed {
		t.Errorf("%+v", v)
	}
}

// TestPublicParts: what everybody knows of a value is no piece of it.
func TestPublicParts(t *testing.T) {
	pem := "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgx1\n-----END PRIVATE KEY-----\n"
	account, err := json.Marshal(map[string]string{
		"type": "service_account", "project_id": "a-project-of-example", "private_key_id": "0123456789abcdef0123456789abcdef",
		"private_key": pem, "client_email": "worker@a-project-of-example.iam.example.com",
		"auth_uri": "https://accounts.example.com/o/oauth2/auth",
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ value, public, secret string }{
		{token, "sk-ant-api03-", "R4nd0m+B"},
		{"github_pat_" + strings.Repeat("0", 22) + "_aB3dE5gH7jK9mN1pQ3", "github_pat_0000000000000000000000", "aB3dE5gH"},
		{"acme_prod_v2_aB3dE5gH7jK9mN1pQ3sT5v", "acme_prod_v2_", "aB3dE5gH"},
		{pem, "-----BEGIN PRIVATE KEY-----\n", "MIGHAgEA"},
		{pem, "\n-----END PRIVATE KEY-----\n", "SM49AgEG"},
		{"aB3dE5gH" + strings.Repeat("\x00", 40) + "9x8y7z6w5v", strings.Repeat("\x00", 200), "9x8y7z6w5v"},
		{"postgres://app:pQ7-kk2-Zr9@db.internal.example:5432/prod", "connect to postgres://db.internal.example:5432", "pQ7-kk2-Zr9"},
		{"https://hooks.example.com/services/T0123/B4567/aB3dE5gH7jK9mN1p", "https://hooks.example.com", "T0123/B4567"},
		{"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjMifQ.aB3dE5gH7jK9mN1pQ3", "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ", "aB3dE5gH7j"},
		{string(account), `"project_id":"a-project-of-example","type":"service_account"`, "MIGHAgEA"},
		{string(account), "worker@a-project-of-example.iam.example.com https://accounts.example.com/o/oauth2/auth private_key", "SM49AgEG"},
		{"hunter2-production-database-x9", "the production database", "hunter2-"},
	} {
		s := hold(t, tt.value)
		if v := send(s, "a.test", tt.public); v.Decision != inspect.Allowed {
			t.Errorf("%.20s: %q is %+v", tt.value, tt.public, v)
		}
		if v := send(s, "a.test", tt.secret); v.Decision == inspect.Allowed {
			t.Errorf("%.20s: %q passes", tt.value, tt.secret)
		}
		if v := send(hold(t, tt.value), "a.test", tt.value); v.Allowed() {
			t.Errorf("%.20s passes", tt.value)
		}
	}
	// Where nothing would be left, all of it is secret.
	for _, v := range []string{"aaaaaaaaaaaa", "production-database", `{"a": "b", "c": "d"}`, "https://user@example.com"} {
		if f := send(hold(t, v), "a.test", "x "+v); f.Allowed() {
			t.Errorf("%s passes", v)
		}
	}
}

func TestAllowTo(t *testing.T) {
	s := new(Set)
	if err := s.Replace("test", []Value{{Name: "KEY", Bytes: []byte(token), AllowTo: []config.Target{
		{Host: hostname.MustParse("zone.test"), Zone: true}, {Host: hostname.MustParse("exact.test")},
	}}}); err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{
		"zone.test": true, "api.zone.test": true, "exact.test": true,
		"www.exact.test": false, "notzone.test": false, "other.test": false,
	} {
		if v := send(s, host, token); v.Allowed() != want {
			t.Errorf("%s: %+v", host, v)
		}
	}
	// What goes where it may does not count.
	if v := send(s, "other.test", "R4nd0m+B"); v.Reason != "piece of known value KEY (8 of 46 bytes seen)" {
		t.Errorf("%+v", v)
	}
}

// TestDestinations: each destination that gets a piece is told of, and what
// all of them together have decides.
func TestDestinations(t *testing.T) {
	s := hold(t, token)
	for _, tt := range []struct{ host, text, reason string }{
		{"a.test", "R4nd0m+B", "piece of known value V0 (8 of 46 bytes seen)"},
		{"b.test", "R4nd0m+B", "piece of known value V0 (8 of 46 bytes seen)"},
		{"b.test", "R4nd0m+B", ""},
		{"b.test", "ytes/Are", "piece of known value V0 (16 of 46 bytes seen)"},
		{"c.test", "ZyXwVuTs", "known value V0 sent in pieces to unauthorized host (24 of 46 bytes seen)"},
	} {
		if v := send(s, tt.host, tt.text); v.Reason != tt.reason {
			t.Errorf("%s to %s: %q, want %q", tt.text, tt.host, v.Reason, tt.reason)
		}
	}
}

// TestFloodOfDestinations is rules.md 114: the table is capped, and pushing a
// destination out of it forgets nothing that decides.
func TestFloodOfDestinations(t *testing.T) {
	s := hold(t, token)
	send(s, "target.test", "R4nd0m+B")
	for i := range maxDestinations + 100 {
		if v := send(s, fmt.Sprintf("h%d.test", i), "ytes/Are"); v.Decision != inspect.Flagged {
			t.Fatalf("%d: %+v", i, v)
		}
	}
	if len(s.dests) != maxDestinations || s.recent.Len() != maxDestinations || s.seenLen > maxSeenBytes {
		t.Errorf("%d destinations, %d bytes", len(s.dests), s.seenLen)
	}
	if s.dests[hostname.MustParse("target.test")] != nil {
		t.Error("the first one is still there: the test proves nothing")
	}
	if v := send(s, "target.test", "ZyXwVuTs"); v.Allowed() {
		t.Errorf("%+v", v)
	}
}

func TestMemoryOfDestinationsIsCapped(t *testing.T) {
	var long strings.Builder
	random := rand.New(rand.NewPCG(1, 2))
	for long.Len() < 60<<10 {
		fmt.Fprintf(&long, "%x", random.Uint64())
	}
	s := hold(t, long.String())
	piece := long.String()[500:520]
	for i := range 2000 {
		send(s, fmt.Sprintf("h%d.test", i), piece)
	}
	sum := 0
	for _, el := range s.dests {
		sum += el.Value.(*destination).len
	}
	if s.seenLen > maxSeenBytes || sum != s.seenLen || len(s.dests) < 100 {
		t.Errorf("%d bytes for %d destinations, counted %d", s.seenLen, len(s.dests), sum)
	}
}

// TestReserve is peer-holes E8: requests that are judged at the same time do
// not pass together when only one of them may.
func TestReserve(t *testing.T) {
	for range 50 {
		s := hold(t, token)
		send(s, "a.test", "R4nd0m+Bytes")
		var wg sync.WaitGroup
		passed := make([]bool, 4)
		for i, piece := range []string{"AreHere_", "01234567", "ZyXwVuTs", "RqPoNm"} {
			wg.Go(func() { passed[i] = send(s, "a.test", "x="+piece).Allowed() })
		}
		wg.Wait()
		n := 0
		for _, p := range passed[:3] {
			if p {
				n++
			}
		}
		if n != 1 || !passed[3] || len(s.flying) != 0 {
			t.Fatalf("%d of three pieces passed, %v", n, passed)
		}
	}
}

// TestWhatDidNotLeaveIsNotCounted, and what left because nobody enforced is.
func TestWhatDidNotLeaveIsNotCounted(t *testing.T) {
	s := hold(t, token)
	other := inspect.NewChain().WithContent(New(s, nil), refuser{})
	for range 3 {
		other.DecideContent(context.Background(), body("a.test", "R4nd0m+Bytes AreHere_"))
	}
	if v := send(s, "a.test", "ZyXwVuTs"); v.Reason != "piece of known value V0 (8 of 46 bytes seen)" {
		t.Errorf("after what another inspector blocked: %+v", v)
	}
	observing := chain(s).WithAdjust(func(_ *inspect.Request, f inspect.Finding) inspect.Finding { f.Mode = inspect.Observed; return f })
	if v := observing.DecideContent(context.Background(), body("a.test", "R4nd0m+Bytes AreHere_")); v.Decision != inspect.Allowed || len(v.Findings) != 1 {
		t.Errorf("observed: %+v", v)
	}
	if v := send(s, "a.test", "01234567"); v.Reason != "known value V0 sent in pieces to unauthorized host (36 of 46 bytes seen)" {
		t.Errorf("after what was only observed: %+v", v)
	}
}

type refuser struct{}

func (refuser) Name() string { return "refuser" }

func (refuser) InspectContent(context.Context, *inspect.Content) inspect.Result {
	return inspect.Done(inspect.Finding{Reason: "no", Severity: inspect.Error})
}

// TestChance: data of every kind that has nothing to do with a value gives no
// finding, although there are many values.
func TestChance(t *testing.T) {
	random := rand.New(rand.NewChaCha8([32]byte{1}))
	alphabets := []string{"0123456789abcdef", "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", "0123456789"}
	draw := func(alphabet string, n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = alphabet[random.IntN(len(alphabet))]
		}
		return string(b)
	}
	var list []string
	for i := range 90 {
		list = append(list, draw(alphabets[i%3], 40))
	}
	s := hold(t, list...)
	size := 1 << 20
	for _, alphabet := range alphabets {
		run := draw(alphabet, size)
		var lines strings.Builder
		for i := 0; i+64 < size; i += 64 {
			lines.WriteString(run[i:i+64] + "\n")
		}
		for _, text := range []string{run, lines.String()} {
			if v := send(s, "a.test", text); v.Decision == inspect.Blocked {
				t.Errorf("%.20s…: %+v", text, v)
			}
		}
	}
	if v := send(s, "a.test", "x "+list[0][3:11]+" y"); v.Decision != inspect.Flagged {
		t.Errorf("positive control: %+v", v)
	}
}

// TestPiecesThatMayBeChance: one run of eight hexadecimal digits in the middle
// of a longer one is nothing; as a word of its own it is, and so is a second.
func TestPiecesThatMayBeChance(t *testing.T) {
	v := values["hex"]
	around := func(piece string) string { return "77e1" + piece + "5b0c" }
	s := hold(t, v)
	if f := send(s, "a.test", around(v[:8])); f.Decision != inspect.Allowed {
		t.Errorf("one run: %+v", f)
	}
	if f := send(s, "a.test", around(v[:8])); f.Decision != inspect.Allowed {
		t.Errorf("the same run: %+v", f)
	}
	if f := send(s, "a.test", around(v[20:28])); f.Reason != "piece of known value V0 (16 of 40 bytes seen)" {
		t.Errorf("the second: %+v", f)
	}
	if f := send(s, "a.test", around(v[30:38])); f.Allowed() {
		t.Errorf("the third: %+v", f)
	}
	if f := send(hold(t, v), "a.test", "id="+v[:8]); f.Decision != inspect.Flagged {
		t.Errorf("a word: %+v", f)
	}
	if f := send(hold(t, v), "a.test", around(v[:8])+" "+around(v[20:28])); f.Decision != inspect.Flagged {
		t.Errorf("two at once: %+v", f)
	}
}

// TestDrip is rules.md 50 and the heart of the package: however a value is cut,
// in whatever order, form and place its pieces go, the first is flagged and
// the value is never complete.
func TestDrip(t *testing.T) {
	seed := [32]byte{7}
	random := rand.New(rand.NewChaCha8(seed))
	alphabets := []string{"0123456789abcdef", "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", "abcdefghijklmnopqrstuvwxyz234567"}
	var ways []func(string) *inspect.Content
	for _, p := range places {
		ways = append(ways, p)
	}
	var codes []func(string) string
	for _, name := range []string{"plain", "small", "base64 0", "base64url 1", "base64 2", "hex", "query", "all percent", "base32"} {
		codes = append(codes, encodings[name])
	}
	for round := range 400 {
		alphabet := alphabets[round%len(alphabets)]
		b := make([]byte, 16+random.IntN(200))
		for i := range b {
			b[i] = alphabet[random.IntN(len(alphabet))]
		}
		s := hold(t, string(b))
		if s.held[0].total < len(b) {
			continue // it has a run of one byte in it
		}
		pieces := cut(random, string(b))
		sent := 0
		for i, p := range pieces {
			for range random.IntN(3) {
				if v := send(s, "a.test", fmt.Sprintf("honest %d %d", i, random.Uint64())); v.Decision != inspect.Allowed {
					t.Fatalf("honest: %+v", v)
				}
			}
			v := chain(s).DecideContent(context.Background(), ways[random.IntN(len(ways))](codes[random.IntN(len(codes))](p)))
			if i == 0 && v.Decision == inspect.Allowed {
				t.Fatalf("round %d: the first piece %q of %q passes", round, p, b)
			}
			if v.Allowed() {
				sent += len(p)
			}
		}
		if sent > maxSeen || sent*4 > len(b)*3 {
			t.Fatalf("round %d: %d of %d bytes left, cut as %q", round, sent, len(b), pieces)
		}
	}
}

// cut cuts a value into pieces of minPiece bytes or more, in any order.
func cut(random *rand.Rand, v string) []string {
	var pieces []string
	for len(v) >= 2*minPiece {
		n := minPiece + random.IntN(min(len(v)-2*minPiece, 16)+1)
		pieces = append(pieces, v[:n])
		v = v[n:]
	}
	pieces = append(pieces, v)
	random.Shuffle(len(pieces), func(i, k int) { pieces[i], pieces[k] = pieces[k], pieces[i] })
	return pieces
}

// TestHostLabels: a name is small letters, and carries a value all the same.
func TestHostLabels(t *testing.T) {
	s := hold(t, token)
	label := strings.ToLower(strings.TrimRight(base32.StdEncoding.EncodeToString([]byte(token[13:40])), "="))
	if v := send(s, label+".example.com", ""); v.Allowed() {
		t.Errorf("%+v", v)
	}
}

// TestReadme sends the examples of README.md.
func TestReadme(t *testing.T) {
	data, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	s := new(Set)
	if err := s.Replace("test", []Value{{Name: "KEY", Bytes: []byte(token)}}); err != nil {
		t.Fatal(err)
	}
	_, examples, _ := strings.Cut(string(data), "## Examples")
	rows := regexp.MustCompile("(?m)^\\| `(.*)` \\| (.*) \\|$").FindAllStringSubmatch(examples, -1)
	if len(rows) < 7 {
		t.Fatalf("%d examples", len(rows))
	}
	for _, row := range rows {
		v := send(s, "a.test", row[1])
		got := v.Decision.String()
		if v.Reason != "" {
			got += ": " + v.Reason
		}
		if got != row[2] {
			t.Errorf("%s: %s, want %s", row[1], got, row[2])
		}
	}
}
