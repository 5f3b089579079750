package payloadtest

import (
	"bytes"
	"encoding/ascii85"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/big"
	mime "mime/multipart"
	"net/url"
	"slices"
	"strings"

	"github.com/agentcage/agentcage/internal/inspect"
)

// Sample makes one kind of content.
type Sample struct {
	Name string
	Make func(r *Rand) *inspect.Content
}

const (
	base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	base58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
	z85    = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
)

func post(target, typ string, body []byte) *inspect.Content {
	return Request("POST", target, map[string]string{"Content-Type": typ, "User-Agent": "client/1.2 (linux; x86_64)"}, body)
}

func get(target string, header ...string) *inspect.Content {
	h := map[string]string{"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36", "Accept": "application/json, text/plain;q=0.9, */*;q=0.8"}
	for i := 0; i+1 < len(header); i += 2 {
		h[header[i]] = header[i+1]
	}
	return Request("GET", target, h, nil)
}

// Honest returns kinds of content that no inspector may object to.
func Honest() []Sample {
	return slices.Concat(files(), chats(), heads(), bodies(), texts())
}

// files are packages, images and documents.
func files() []Sample {
	return []Sample{
		{"npm publish", func(r *Rand) *inspect.Content {
			tgz := Gzip(Tar(r.Files()))
			return Request("PUT", "https://registry.example/pkg", map[string]string{"Content-Type": "application/json", "Authorization": "Bearer npm_" + r.Of(base62, 36)},
				Marshal(map[string]any{
					"name": "pkg", "dist-tags": map[string]any{"latest": "1.0.0"}, "versions": map[string]any{"1.0.0": map[string]any{"dist": map[string]any{"integrity": "sha512-" + r.Base64(64), "shasum": r.Hex(40)}}},
					"_attachments": map[string]any{"pkg-1.0.0.tgz": map[string]any{"content_type": "application/octet-stream", "data": base64.StdEncoding.EncodeToString(tgz), "length": len(tgz)}},
				}))
		}},
		{"wheel by itself", func(r *Rand) *inspect.Content {
			return post("https://upload.example/legacy/", "application/zip", Zip(r.Files()))
		}},
		{"tarball", func(r *Rand) *inspect.Content {
			return post("https://upload.example/x.tgz", "application/gzip", Gzip(Tar(r.Files())))
		}},
		{"png", func(r *Rand) *inspect.Content {
			return post("https://img.example/up", "image/png", r.PNG(40+r.IntN(100), 40+r.IntN(100)))
		}},
		{"jpeg", func(r *Rand) *inspect.Content {
			return post("https://img.example/up", "image/jpeg", r.JPEG(40+r.IntN(200), 40+r.IntN(200)))
		}},
		{"gif", func(r *Rand) *inspect.Content {
			return post("https://img.example/up", "image/gif", r.GIF(40+r.IntN(60), 40+r.IntN(60)))
		}},
		{"jpeg declared as png", func(r *Rand) *inspect.Content {
			return post("https://img.example/up", "image/png", r.JPEG(40+r.IntN(200), 40+r.IntN(200)))
		}},
		{"pdf", func(r *Rand) *inspect.Content { return post("https://doc.example/up", "application/pdf", r.PDF()) }},
		{"octet-stream pdf", func(r *Rand) *inspect.Content {
			return post("https://doc.example/up", "application/octet-stream", r.PDF())
		}},
	}
}

// chats are requests to models.
func chats() []Sample {
	std := base64.StdEncoding.EncodeToString
	return []Sample{
		{"chat with png", func(r *Rand) *inspect.Content {
			return post("https://llm.example/v1/messages", "application/json", r.Chat(map[string]any{"type": "image", "source": map[string]any{"type": "base64", "media_type": "image/png", "data": std(r.PNG(60+r.IntN(80), 60))}}))
		}},
		{"chat with jpeg as data URI", func(r *Rand) *inspect.Content {
			return post("https://llm.example/v1/chat/completions", "application/json", r.Chat(map[string]any{"type": "image_url", "image_url": map[string]any{"url": "data:image/jpeg;base64," + std(r.JPEG(60+r.IntN(150), 60))}}))
		}},
		{"chat with pdf", func(r *Rand) *inspect.Content {
			return post("https://llm.example/v1/messages", "application/json", r.Chat(map[string]any{"type": "document", "source": map[string]any{"type": "base64", "media_type": "application/pdf", "data": std(r.PDF())}}))
		}},
		{"chat with code", func(r *Rand) *inspect.Content {
			return post("https://llm.example/v1/messages", "application/json", r.Chat(map[string]any{"type": "text", "text": r.Code(300)}))
		}},
		{"chat with a lock file", func(r *Rand) *inspect.Content {
			return post("https://llm.example/v1/messages", "application/json", r.Chat(map[string]any{"type": "tool_result", "content": string(r.Lock(20 + r.IntN(200)))}))
		}},
		{"chat with reasoning", func(r *Rand) *inspect.Content {
			return post("https://llm.example/v1/messages", "application/json", r.Chat(map[string]any{"type": "thinking", "thinking": r.Prose(60), "signature": r.Base64(200 + r.IntN(3000))}, map[string]any{"type": "redacted_thinking", "data": r.Base64(500)}))
		}},
		{"responses with reasoning", func(r *Rand) *inspect.Content {
			return post("https://llm.example/v1/responses", "application/json", r.Chat(map[string]any{"type": "reasoning", "id": "rs_" + r.Hex(50), "encrypted_content": "gAAAAAB" + base64.URLEncoding.EncodeToString(r.Bytes(700+r.IntN(5000)))}))
		}},
		{"chat with a hash list", func(r *Rand) *inspect.Content {
			var b strings.Builder
			for range 40 {
				fmt.Fprintf(&b, "%s  dist/%s.tar.gz\n%s %s\n", r.SHA256(), r.identifier(), r.Hex(40), r.Prose(6))
			}
			return post("https://llm.example/v1/messages", "application/json", r.Chat(map[string]any{"type": "text", "text": b.String()}))
		}},
		{"chat with go.sum", func(r *Rand) *inspect.Content {
			var b strings.Builder
			for range 60 {
				fmt.Fprintf(&b, "example.com/%s v1.%d.%d h1:%s\n", r.identifier(), r.IntN(20), r.IntN(20), r.Base64(32))
			}
			return post("https://llm.example/v1/messages", "application/json", r.Chat(map[string]any{"type": "text", "text": b.String()}))
		}},
		{"chat with a certificate", func(r *Rand) *inspect.Content {
			return post("https://llm.example/v1/messages", "application/json", r.Chat(map[string]any{"type": "text", "text": "why is this wrong?\n" + Certificate}))
		}},
		{"chat with a public key", func(r *Rand) *inspect.Content {
			key := append([]byte("\x00\x00\x00\x07ssh-rsa\x00\x00\x00\x03\x01\x00\x01\x00\x00\x01\x01\x00"), r.Bytes(256)...)
			return post("https://llm.example/v1/messages", "application/json", r.Chat(map[string]any{"type": "text", "text": "ssh-rsa " + std(key) + " me@host"}))
		}},
	}
}

// heads are requests whose heads hold random values.
func heads() []Sample {
	std := base64.StdEncoding.EncodeToString
	return []Sample{
		{"signed URL of S3", func(r *Rand) *inspect.Content {
			return Request("PUT", "https://bucket.s3.eu-west-1.amazonaws.com/"+r.identifier()+"/"+r.UUID()+"?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential="+r.Of("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 20)+"%2F20260101%2Feu-west-1%2Fs3%2Faws4_request&X-Amz-Date=20260101T000000Z&X-Amz-Expires=900&X-Amz-Security-Token="+url.QueryEscape(r.Base64(500))+"&X-Amz-Signature="+r.Hex(64)+"&X-Amz-SignedHeaders=host", map[string]string{"Content-Type": "text/plain"}, []byte(r.Prose(100)))
		}},
		{"signed URL of CloudFront", func(r *Rand) *inspect.Content {
			sig := strings.NewReplacer("+", "-", "=", "_", "/", "~").Replace(r.Base64(256))
			policy := std(Marshal(map[string]any{"Statement": []any{map[string]any{"Resource": "https://cdn.example/" + r.identifier() + "*", "Condition": map[string]any{"DateLessThan": map[string]any{"AWS:EpochTime": 1700000000}}}}}))
			return get("https://d" + r.Hex(13) + ".cloudfront.net/x/" + r.SHA256() + "?Policy=" + strings.ReplaceAll(policy, "=", "_") + "&Signature=" + sig + "&Key-Pair-Id=K" + r.Of("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", 13))
		}},
		{"signed URL of Google", func(r *Rand) *inspect.Content {
			return get("https://storage.googleapis.com/bucket/o?X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential=sa%40project.iam.gserviceaccount.com%2F20260101%2Fauto%2Fstorage%2Fgoog4_request&X-Goog-Signature=" + r.Hex(512))
		}},
		{"signed URL of Azure", func(r *Rand) *inspect.Content {
			return get("https://acct.blob.core.windows.net/c/b?sv=2024-08-04&se=2026-01-01T00%3A00%3A00Z&sr=b&sp=r&sig=" + url.QueryEscape(r.Base64(32)))
		}},
		{"JWT login", func(r *Rand) *inspect.Content {
			return get("https://api.example.com/me", "Authorization", "Bearer "+r.JWT(256), "X-Request-Id", r.UUID(), "Traceparent", "00-"+r.Hex(32)+"-"+r.Hex(16)+"-01")
		}},
		{"token exchange", func(r *Rand) *inspect.Content {
			v := url.Values{"grant_type": {"authorization_code"}, "code": {"0.AX" + r.Of(base62+"-_", 700+r.IntN(500))}, "redirect_uri": {"http://localhost:8080/callback"}, "client_id": {r.UUID()}, "code_verifier": {r.Of(base62+"-._~", 43+r.IntN(80))}, "client_secret": {r.Of(base62+"~._-", 40)}}
			return post("https://login.example.com/token", "application/x-www-form-urlencoded", []byte(v.Encode()))
		}},
		{"refresh", func(r *Rand) *inspect.Content {
			return post("https://login.example.com/token", "application/json", Marshal(map[string]any{"grant_type": "refresh_token", "refresh_token": "1//0" + r.Of(base62+"-_", 100+r.IntN(900)), "client_id": r.Of(base62, 32)}))
		}},
		{"authorize with PKCE", func(r *Rand) *inspect.Content {
			return get("https://login.example.com/authorize?response_type=code&client_id=" + r.Of(base62, 32) + "&state=" + r.Of(base62+"-_", 86) + "&nonce=" + r.Of(base62, 43) + "&code_challenge=" + r.Of(base62+"-_", 43) + "&code_challenge_method=S256&scope=openid%20profile")
		}},
		{"cookies", func(r *Rand) *inspect.Content {
			return get("https://www.example.com/", "Cookie", "session="+url.QueryEscape(r.Base64(300))+"; _ga=GA1.2."+fmt.Sprint(r.IntN(1e9))+"."+fmt.Sprint(1700000000+r.IntN(1e6))+"; csrftoken="+r.Of(base62, 64)+"; cf_clearance="+r.Of(base62+"._-", 120)+"; id="+r.UUID(), "X-Csrf-Token", r.Base64(64))
		}},
		{"keys in headers", func(r *Rand) *inspect.Content {
			return get("https://api.example.com/v1/models", "X-Api-Key", "sk-ant-api03-"+r.Of(base62+"-_", 95), "If-None-Match", `W/"`+r.Hex(64)+`"`, "Idempotency-Key", r.UUID(), "X-Amz-Content-Sha256", r.SHA256(), "X-Amz-Security-Token", r.Base64(600))
		}},
	}
}

// bodies are those of git, telemetry and other APIs.
func bodies() []Sample {
	std := base64.StdEncoding.EncodeToString
	return []Sample{
		{"git push", func(r *Rand) *inspect.Content {
			return post("https://git.example.com/a/b.git/git-receive-pack", "application/x-git-receive-pack-request", r.Pack(r.Objects()...))
		}},
		{"git fetch", func(r *Rand) *inspect.Content {
			var b strings.Builder
			b.WriteString("0011command=fetch0001000fno-progress")
			for range 10 + r.IntN(300) {
				b.WriteString("0032have " + r.Hex(40) + "\n")
			}
			return post("https://git.example.com/a/b.git/git-upload-pack", "application/x-git-upload-pack-request", []byte(b.String()))
		}},
		{"telemetry in protobuf", func(r *Rand) *inspect.Content {
			return post("https://otel.example.com/v1/traces", "application/x-protobuf", r.Protobuf())
		}},
		{"telemetry in JSON", func(r *Rand) *inspect.Content {
			var spans []any
			for range 20 + r.IntN(60) {
				spans = append(spans, map[string]any{"traceId": r.Hex(32), "spanId": r.Hex(16), "parentSpanId": r.Hex(16), "name": "GET /" + r.identifier(), "startTimeUnixNano": fmt.Sprint(1700000000000000000 + r.Int64N(1e15)), "attributes": map[string]any{"http.url": "https://api.example.com/" + r.identifier(), "session.id": r.UUID()}})
			}
			return post("https://otel.example.com/v1/traces", "application/json", Marshal(map[string]any{"resourceSpans": spans}))
		}},
		{"GraphQL", func(r *Rand) *inspect.Content {
			var ids []string
			for range 5 + r.IntN(30) {
				ids = append(ids, std([]byte(fmt.Sprintf("012:PullRequest%d", r.IntN(1e9)))))
			}
			return post("https://api.example.com/graphql", "application/json", Marshal(map[string]any{"query": "query($ids: [ID!]!) { nodes(ids: $ids) { ... on PullRequest { title body author { login } } } }", "variables": map[string]any{"ids": ids, "after": std([]byte("cursor:v2:" + r.UUID()))}, "extensions": map[string]any{"persistedQuery": map[string]any{"sha256Hash": r.SHA256()}}}))
		}},
		{"source map", func(r *Rand) *inspect.Content {
			return post("https://errors.example.com/maps", "application/json", r.SourceMap())
		}},
		{"UUIDs in JSON", func(r *Rand) *inspect.Content {
			var ids []string
			for range 10 + r.IntN(1000) {
				ids = append(ids, r.UUID())
			}
			return post("https://api.example.com/batch", "application/json", Marshal(map[string]any{"ids": ids}))
		}},
		{"UUIDs in a query", func(r *Rand) *inspect.Content {
			var ids []string
			for range 1 + r.IntN(20) {
				ids = append(ids, r.UUID())
			}
			return get("https://api.example.com/items?ids=" + strings.Join(ids, ",") + "&page_token=" + r.Of(base62, 120))
		}},
		{"hashes in JSON", func(r *Rand) *inspect.Content {
			var objects []any
			for range 5 + r.IntN(95) {
				objects = append(objects, map[string]any{"oid": r.SHA256(), "size": r.IntN(1e7)})
			}
			return post("https://git.example.com/a/b.git/info/lfs/objects/batch", "application/vnd.git-lfs+json", Marshal(map[string]any{"operation": "upload", "objects": objects}))
		}},
		{"minified", func(r *Rand) *inspect.Content {
			return post("https://cdn.example.com/up", "application/javascript", []byte(r.Minified()))
		}},
		{"code as form", func(r *Rand) *inspect.Content {
			return post("https://paste.example.com/", "application/x-www-form-urlencoded", []byte(url.Values{"title": {r.Prose(5)}, "text": {r.Code(60)}}.Encode()))
		}},
		{"embeddings", func(r *Rand) *inspect.Content {
			v := make([]float32, 1536)
			for i := range v {
				v[i] = float32(r.NormFloat64()) / 40
			}
			return post("https://vectors.example.com/upsert", "application/json", Marshal(map[string]any{"vectors": []any{map[string]any{"id": r.UUID(), "values": v}}}))
		}},
		{"token ids", func(r *Rand) *inspect.Content {
			v := make([]int, 500+r.IntN(3000))
			for i := range v {
				v[i] = int(r.ExpFloat64() * 9000)
			}
			return post("https://llm.example/v1/completions", "application/json", Marshal(map[string]any{"prompt": v}))
		}},
	}
}

// texts are of several languages, and have encoded data in them.
func texts() []Sample {
	std := base64.StdEncoding.EncodeToString
	return []Sample{
		{"prose", func(r *Rand) *inspect.Content {
			return post("https://wiki.example.com/edit", "text/plain; charset=utf-8", []byte(r.Prose(200+r.IntN(3000))))
		}},
		{"Greek and accents", func(r *Rand) *inspect.Content {
			greek := strings.Map(func(c rune) rune {
				if 'a' <= c && c <= 'y' {
					return 'α' + c - 'a'
				}
				return c
			}, r.Prose(600))
			return post("https://wiki.example.com/edit", "text/plain", []byte(greek+" é è ü ö ß"))
		}},
		{"Chinese", func(r *Rand) *inspect.Content {
			// Zipf's law over 2,500 characters.
			z := []rune{}
			for range 400 + r.IntN(3000) {
				z = append(z, rune(0x4e00+int(2500*r.Float64()*r.Float64()*r.Float64()*r.Float64())*8))
			}
			return post("https://wiki.example.com/edit", "text/plain", []byte(string(z)))
		}},
		{"long path", func(r *Rand) *inspect.Content {
			return get("https://files.example.com/packages/" + r.Hex(2) + "/" + r.Hex(2) + "/" + r.Hex(60) + "/" + r.identifier() + "-1.2.3-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl")
		}},
		{"blob upload of a registry", func(r *Rand) *inspect.Content {
			state := append(r.Bytes(32), Marshal(map[string]any{"Name": "library/x", "UUID": r.UUID(), "Offset": 0, "StartedAt": "2026-01-01T00:00:00Z"})...)
			return get("https://registry.example.com/v2/library/x/blobs/uploads/" + r.UUID() + "?_state=" + base64.URLEncoding.EncodeToString(state) + "&digest=sha256%3A" + r.SHA256())
		}},
		{"clusters and accounts", func(r *Rand) *inspect.Content {
			return get("https://" + strings.ToLower(r.Hex(32)) + ".gr7.us-east-1.eks.amazonaws.com/api/v1/namespaces/default/pods/web-" + r.Hex(10) + "-" + r.Of("bcdfghjklmnpqrstvwxz2456789", 5))
		}},
		{"multipart upload", func(r *Rand) *inspect.Content {
			return multipart(map[string][]byte{"content": Zip(r.Files()), ":action": []byte("file_upload"), "sha256_digest": []byte(r.SHA256()), "description": []byte(r.Prose(200)), "icon": r.PNG(30, 30)})
		}},
		{"telemetry with a content coding", func(r *Rand) *inspect.Content {
			return Request("POST", "https://otel.example.com/v1/traces", map[string]string{"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}, Gzip(r.Protobuf()))
		}},
		{"JSON with a content coding", func(r *Rand) *inspect.Content {
			return Request("POST", "https://api.example.com/x", map[string]string{"Content-Type": "application/json", "Content-Encoding": "gzip"}, Gzip(r.Lock(100)))
		}},
		{"push with a content coding", func(r *Rand) *inspect.Content {
			return Request("POST", "https://git.example.com/a/b.git/git-receive-pack", map[string]string{"Content-Type": "application/x-git-receive-pack-request", "Content-Encoding": "gzip"}, Gzip(r.Pack(r.Objects()...)))
		}},
		{"css with a data URI", func(r *Rand) *inspect.Content {
			return post("https://cdn.example.com/up", "text/css", []byte(".a{background:url(data:image/png;base64,"+std(r.PNG(20, 20))+")}\n.b{color:red}"))
		}},
		{"MIME with lines", func(r *Rand) *inspect.Content {
			return post("https://mail.example.com/send", "application/json", Marshal(map[string]any{"raw": "Content-Type: image/png\nContent-Transfer-Encoding: base64\n\n" + wrap(std(r.PNG(40, 40)), 76, "\n")}))
		}},
		{"nested base64 of JSON", func(r *Rand) *inspect.Content {
			return post("https://api.example.com/x", "application/json", Marshal(map[string]any{"event": std(Marshal(map[string]any{"id": r.UUID(), "text": r.Prose(200)}))}))
		}},
		{"base64 of gzip of JSON", func(r *Rand) *inspect.Content {
			return post("https://api.example.com/x", "application/json", Marshal(map[string]any{"payload": std(Gzip([]byte(r.Prose(900))))}))
		}},
	}
}

func multipart(fields map[string][]byte) *inspect.Content {
	var b bytes.Buffer
	w := mime.NewWriter(&b)
	for _, name := range sorted(fields) {
		f, err := w.CreateFormFile(name, name)
		must(err)
		_, err = f.Write(fields[name])
		must(err)
	}
	must(w.Close())
	return post("https://upload.example/legacy/", w.FormDataContentType(), b.Bytes())
}

func wrap(s string, n int, sep string) string {
	var b strings.Builder
	for len(s) > n {
		b.WriteString(s[:n] + sep)
		s = s[n:]
	}
	return b.String() + s
}

// Encodings are ways to write data as text.
func Encodings() map[string]func([]byte) string {
	return map[string]func([]byte) string{
		"hex":          hex.EncodeToString,
		"HEX":          func(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) },
		"base64":       base64.StdEncoding.EncodeToString,
		"base64url":    base64.RawURLEncoding.EncodeToString,
		"base32":       base32.StdEncoding.EncodeToString,
		"base32 lower": func(b []byte) string { return strings.ToLower(base32.HexEncoding.EncodeToString(b)) },
		"base36":       func(b []byte) string { return new(big.Int).SetBytes(b).Text(36) },
		"base62":       func(b []byte) string { return new(big.Int).SetBytes(b).Text(62) },
		"decimal":      func(b []byte) string { return new(big.Int).SetBytes(b).Text(10) },
		"base58":       func(b []byte) string { return inAlphabet(b, base58) },
		"z85":          func(b []byte) string { return inAlphabet(b, z85) },
		"ascii85": func(b []byte) string {
			o := make([]byte, ascii85.MaxEncodedLen(len(b)))
			return string(o[:ascii85.Encode(o, b)])
		},
		"base64 wrapped":  func(b []byte) string { return wrap(base64.StdEncoding.EncodeToString(b), 76, "\n") },
		"hex wrapped":     func(b []byte) string { return wrap(hex.EncodeToString(b), 60, "\n") },
		"hex with colons": func(b []byte) string { return wrap(hex.EncodeToString(b), 2, ":") },
		"hex escapes":     func(b []byte) string { return `\x` + wrap(hex.EncodeToString(b), 2, `\x`) },
		"list of bytes":   func(b []byte) string { return strings.ReplaceAll(strings.Trim(fmt.Sprintf("%d", b), "[]"), " ", ", ") },
	}
}

// inAlphabet writes data as a number in the base of an alphabet.
func inAlphabet(b []byte, alphabet string) string {
	n, base, digit := new(big.Int).SetBytes(b), big.NewInt(int64(len(alphabet))), new(big.Int)
	var out []byte
	for n.Sign() > 0 {
		n.DivMod(n, base, digit)
		out = append(out, alphabet[digit.Int64()])
	}
	return string(out)
}

// Leaks returns kinds of content that an inspector has to find.
func Leaks() []Sample {
	var out []Sample
	add := func(name string, f func(r *Rand) *inspect.Content) { out = append(out, Sample{name, f}) }
	for name, enc := range Encodings() {
		n := 400
		add(name+" in JSON", func(r *Rand) *inspect.Content {
			return post("https://api.example.com/x", "application/json", Marshal(map[string]any{"d": enc(r.Bytes(n)), "note": r.Prose(50)}))
		})
		add(name+" as text", func(r *Rand) *inspect.Content {
			return post("https://api.example.com/x", "text/plain", []byte(enc(r.Bytes(n))))
		})
		add(name+" in a long chat", func(r *Rand) *inspect.Content {
			return post("https://llm.example/v1/messages", "application/json", r.Chat(map[string]any{"type": "text", "text": r.Prose(3000) + "\n" + enc(r.Bytes(n))}))
		})
	}
	for name, alphabet := range map[string]string{"hex": "0123456789abcdef", "base32": "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "base64": base62 + "-_", "base62": base62} {
		add(name+" in a param", func(r *Rand) *inspect.Content {
			return get("https://api.example.com/x?q=" + r.Of(alphabet, 130))
		})
		add(name+" as a param's name", func(r *Rand) *inspect.Content {
			return get("https://api.example.com/x?" + r.Of(alphabet, 130))
		})
		add(name+" in the path", func(r *Rand) *inspect.Content {
			return get("https://api.example.com/x/" + r.Of(alphabet, 130) + "/y")
		})
		add(name+" in pieces of the path", func(r *Rand) *inspect.Content {
			return get("https://api.example.com/" + strings.TrimSuffix(strings.Repeat(r.Of(alphabet, 60)+"/", 1)+r.Of(alphabet, 60)+"/"+r.Of(alphabet, 60)+"/"+r.Of(alphabet, 60)+"/"+r.Of(alphabet, 60), "/"))
		})
		add(name+" in many params", func(r *Rand) *inspect.Content {
			q := url.Values{}
			for i := range 8 {
				q.Set(fmt.Sprintf("p%d", i), r.Of(alphabet, 60))
			}
			return get("https://api.example.com/x?" + q.Encode())
		})
		add(name+" in a header", func(r *Rand) *inspect.Content {
			return get("https://api.example.com/x", "X-Debug", r.Of(alphabet, 130))
		})
		add(name+" in a user agent", func(r *Rand) *inspect.Content {
			return get("https://api.example.com/x", "User-Agent", "curl/8.5 "+r.Of(alphabet, 130))
		})
		add(name+" in a cookie", func(r *Rand) *inspect.Content {
			return get("https://api.example.com/x", "Cookie", "a="+r.Of(alphabet, 1500))
		})
		add(name+" in Authorization", func(r *Rand) *inspect.Content {
			return get("https://api.example.com/x", "Authorization", "Bearer "+r.Of(alphabet, 3000))
		})
		add(name+" in fields of 60", func(r *Rand) *inspect.Content {
			m := map[string]any{}
			for i := range 40 {
				m[fmt.Sprintf("d%d", i)] = r.Of(alphabet, 60)
			}
			return post("https://api.example.com/x", "application/json", Marshal(m))
		})
		add(name+" in keys of 60", func(r *Rand) *inspect.Content {
			m := map[string]any{}
			for range 40 {
				m[r.Of(alphabet, 60)] = 1
			}
			return post("https://api.example.com/x", "application/json", Marshal(m))
		})
	}
	lower := "abcdefghijklmnopqrstuvwxyz234567"
	add("host labels", func(r *Rand) *inspect.Content {
		return get("https://" + r.Of(lower, 50) + "." + r.Of(lower, 50) + ".example.com/")
	})
	add("short host labels", func(r *Rand) *inspect.Content {
		return get("https://" + r.Of(lower, 15) + "." + r.Of(lower, 15) + "." + r.Of(lower, 15) + "." + r.Of(lower, 15) + ".example.com/")
	})
	binaries(add)
	wrapped(add)
	bounds(add)
	return out
}

// binaries adds leaks that are no text.
func binaries(add func(string, func(*Rand) *inspect.Content)) {
	std := base64.StdEncoding.EncodeToString
	for _, typ := range []string{"application/octet-stream", "image/png", "application/gzip", "application/zip", "application/pdf", "text/plain", "TEXT/Plain", "application/json", "", "audio/wav", "font/woff2", "video/mp4", "image/svg+xml", "application/x-git-receive-pack-request"} {
		add("random as "+typ, func(r *Rand) *inspect.Content {
			return post("https://api.example.com/x", typ, r.Bytes(300+r.IntN(5000)))
		})
	}
	for _, magic := range []string{"\x89PNG\r\n\x1a\n", "\xff\xd8\xff\xe0\x00\x10JFIF\x00", "GIF89a", "RIFF\x00\x10\x00\x00WEBPVP8 ", "%PDF-1.7\n", "PK\x03\x04", "\x1f\x8b\x08\x00", "\x00\x00\x00\x18ftypmp42", "wOF2", "BM", "0014hello\nPACK", "PACK\x00\x00\x00\x02\x00\x00\x00\x01", "ID3\x03\x00", "\xff\xfb\x90\x00", "%!PS-AdobeFont"} {
		add(fmt.Sprintf("random behind %.8q", magic), func(r *Rand) *inspect.Content {
			return post("https://api.example.com/x", "application/octet-stream", append([]byte(magic), r.Bytes(2000)...))
		})
		add(fmt.Sprintf("random behind %.8q in base64", magic), func(r *Rand) *inspect.Content {
			return post("https://llm.example/v1/messages", "application/json", r.Chat(map[string]any{"data": std(append([]byte(magic), r.Bytes(2000)...))}))
		})
	}
	behind := map[string]func(r *Rand) []byte{
		"png": func(r *Rand) []byte { return r.PNG(30, 30) }, "jpeg": func(r *Rand) []byte { return r.JPEG(30, 30) }, "gif": func(r *Rand) []byte { return r.GIF(20, 20) },
		"pdf": func(r *Rand) []byte { return r.PDF() }, "gzip": func(r *Rand) []byte { return Gzip([]byte(r.Prose(300))) }, "zip": func(r *Rand) []byte { return Zip(r.Files()) }, "pack": func(r *Rand) []byte { return r.Pack(r.Objects()...) },
	}
	for name, make := range behind {
		add("random behind a "+name, func(r *Rand) *inspect.Content {
			return post("https://img.example/up", "application/octet-stream", append(make(r), r.Bytes(20000)...))
		})
		add("random behind a "+name+" in a chat", func(r *Rand) *inspect.Content {
			return post("https://llm.example/v1/messages", "application/json", r.Chat(map[string]any{"data": std(append(make(r), r.Bytes(3000)...))}))
		})
	}
}

// wrapped adds leaks in escapes, codings, parts and files.
func wrapped(add func(string, func(*Rand) *inspect.Content)) {
	escaped := func(b []byte) string {
		var s strings.Builder
		for _, c := range b {
			fmt.Fprintf(&s, "%%%02X", c)
		}
		return s.String()
	}
	add("percent in a param", func(r *Rand) *inspect.Content {
		return get("https://api.example.com/x?q=" + escaped(r.Bytes(100)))
	})
	add("percent in a param of base64", func(r *Rand) *inspect.Content {
		return get("https://api.example.com/x?q=" + escaped([]byte(r.Base64(100))))
	})
	add("percent in the path", func(r *Rand) *inspect.Content {
		return get("https://api.example.com/x/" + escaped([]byte(r.Hex(150))))
	})
	add("percent in a form", func(r *Rand) *inspect.Content {
		return post("https://api.example.com/x", "application/x-www-form-urlencoded", []byte("a=b&d="+escaped(r.Bytes(900))))
	})
	add("escapes in JSON", func(r *Rand) *inspect.Content {
		s := r.Base64(600)
		var b strings.Builder
		for i, c := range s {
			if i%9 == 0 {
				fmt.Fprintf(&b, "\\u%04x", c)
				continue
			}
			b.WriteRune(c)
		}
		return post("https://api.example.com/x", "application/json", []byte(`{"d":"`+b.String()+`"}`))
	})
	add("UTF-16", func(r *Rand) *inspect.Content {
		var b []byte
		for _, c := range []byte(r.Base64(900)) {
			b = append(b, c, 0)
		}
		return post("https://api.example.com/x", "text/plain; charset=utf-16le", b)
	})
	add("random with a content coding", func(r *Rand) *inspect.Content {
		return Request("POST", "https://api.example.com/x", map[string]string{"Content-Type": "application/json", "Content-Encoding": "gzip"}, Gzip(r.Bytes(3000)))
	})
	add("base64 with a content coding", func(r *Rand) *inspect.Content {
		return Request("POST", "https://api.example.com/x", map[string]string{"Content-Type": "application/json", "Content-Encoding": "gzip"}, Gzip([]byte(`{"d":"`+r.Base64(900)+`"}`)))
	})
	add("a part of multipart", func(r *Rand) *inspect.Content {
		return multipart(map[string][]byte{"a": []byte(r.Prose(100)), "b": r.Bytes(3000), "c": r.PNG(30, 30)})
	})
	add("before the parts of multipart", func(r *Rand) *inspect.Content {
		c := multipart(map[string][]byte{"c": r.PNG(30, 30)})
		c.Body = append(r.Bytes(5000), append([]byte("\r\n"), c.Body...)...)
		return c
	})
	add("random in a zip", func(r *Rand) *inspect.Content {
		return post("https://up.example/", "application/zip", Zip(map[string][]byte{"a.txt": []byte(r.Prose(100)), "b": r.Bytes(9000)}))
	})
	add("random in a tarball", func(r *Rand) *inspect.Content {
		return post("https://up.example/", "application/gzip", Gzip(Tar(map[string][]byte{"b": r.Bytes(9000)})))
	})
	add("random in a push", func(r *Rand) *inspect.Content {
		return post("https://git.example.com/a/b.git/git-receive-pack", "application/x-git-receive-pack-request", r.Pack(append(r.Objects(), Object{3, r.Bytes(30000)})...))
	})
	add("base64 in a push", func(r *Rand) *inspect.Content {
		return post("https://git.example.com/a/b.git/git-receive-pack", "application/x-git-receive-pack-request", r.Pack(append(r.Objects(), Object{3, []byte(r.Base64(3000))})...))
	})
	add("random in a PDF", func(r *Rand) *inspect.Content {
		return post("https://doc.example/", "application/pdf", fmt.Appendf(nil, "%%PDF-1.4\n1 0 obj << /Length 4000 /Filter /FlateDecode >>\nstream\n%s\nendstream\nendobj\ntrailer\n%%%%EOF\n", Zlib(r.Bytes(4000))))
	})
}

// bounds adds leaks that pass a bound of what is explained, or are diluted.
func bounds(add func(string, func(*Rand) *inspect.Content)) {
	std := base64.StdEncoding.EncodeToString
	add("random among text", func(r *Rand) *inspect.Content {
		return post("https://api.example.com/x", "text/plain", []byte(r.Prose(400)+string(r.Bytes(3000))+r.Prose(400)))
	})
	add("random among zeros", func(r *Rand) *inspect.Content {
		return post("https://api.example.com/x", "application/octet-stream", append(append(make([]byte, 5000), r.Bytes(5000)...), make([]byte, 5000)...))
	})
	add("latin-1 in JSON", func(r *Rand) *inspect.Content {
		var s []rune
		for _, b := range r.Bytes(3000) {
			s = append(s, rune(0x20+int(b)%0xe0))
		}
		return post("https://api.example.com/x", "application/json", Marshal(map[string]any{"d": string(s)}))
	})
	add("base32768", func(r *Rand) *inspect.Content {
		var s []rune
		for range 600 {
			s = append(s, rune(0x4e00+r.IntN(20000)))
		}
		return post("https://api.example.com/x", "text/plain", []byte(string(s)))
	})
	add("reasoning at another path", func(r *Rand) *inspect.Content {
		return post("https://git.example.com/gists", "application/json", Marshal(map[string]any{"encrypted_content": r.Base64(3000)}))
	})
	add("a credential too large", func(r *Rand) *inspect.Content {
		return post("https://api.example.com/x", "application/json", Marshal(map[string]any{"token": r.Base64(3000)}))
	})
	add("credentials too many", func(r *Rand) *inspect.Content {
		m := map[string]any{}
		for i := range 12 {
			m[fmt.Sprintf("token%d", i)] = r.Base64(1200)
		}
		return post("https://api.example.com/x", "application/json", Marshal(m))
	})
	add("base64 among other base64", func(r *Rand) *inspect.Content {
		return post("https://llm.example/v1/messages", "application/json", r.Chat(map[string]any{"type": "image", "data": std(r.PNG(40, 40)), "more": r.Base64(400)}))
	})
	add("WebSocket message", func(r *Rand) *inspect.Content {
		c := post("https://ws.example.com/", "", r.Bytes(2000))
		c.Kind, c.Header, c.Type = inspect.KindWebSocket, nil, ""
		return c
	})
	add("window of a longer body", func(r *Rand) *inspect.Content {
		c := post("https://up.example.com/", "image/png", r.Bytes(20000))
		c.Kind, c.Header = inspect.KindWindow, nil
		return c
	})
}

// Certificate is a certificate of nobody's, made for the tests.
const Certificate = `-----BEGIN CERTIFICATE-----
MIIBODCB3qADAgECAgEHMAoGCCqGSM49BAMCMBcxFTATBgNVBAMTDGhvc3QuZXhh
bXBsZTAeFw0yMzExMTQyMjEzMjBaFw0zMzA1MTgwMzMzMjBaMBcxFTATBgNVBAMT
DGhvc3QuZXhhbXBsZTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABJa7sgwEFScg
auPD1KQbCeLQ4DGxuVPpGtugLwFTXuYzq1okIdw+CF1Yx3BTL251vt8C7ZnDNq8x
0THWDaQAJgWjGzAZMBcGA1UdEQQQMA6CDGhvc3QuZXhhbXBsZTAKBggqhkjOPQQD
AgNJADBGAiEAjRxWP03JvAfaOxNYrc+JOb8ZfXBXu40TWSTmr+1ALKACIQCaQOBC
m1VuqusEk8BMzp7MLfT2HSCHb9XkhjFCJXppFg==
-----END CERTIFICATE-----
`
