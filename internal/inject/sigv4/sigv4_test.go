package sigv4

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// suite are the credentials and the time of AWS's published test suite for
// version 4; the signatures below are those that it lists.
var (
	suite     = Credentials{ID: "AKIDEXAMPLE", Secret: []byte("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")}
	suiteTime = time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)
	token     = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267"
)

const fakeID = "agentcage:secret:AWS_ACCESS_KEY_ID:0123456789abcdef0123456789abcdef"

// request makes a request that its path and query are sent of as written.
func request(method, target string, header http.Header) *http.Request {
	path, query, _ := strings.Cut(target, "?")
	u := &url.URL{Scheme: "https", Host: "example.amazonaws.com", Opaque: path, RawQuery: query}
	if strings.HasPrefix(path, "//") {
		u.Opaque, u.Path = "", path // net/http would take it for an authority
	}
	return &http.Request{Method: method, Host: "example.amazonaws.com", Header: header, URL: u}
}

func signedHeader(list string) string {
	return algorithm + " Credential=" + fakeID + "/20150830/us-east-1/service/aws4_request, SignedHeaders=" + list + ", Signature=00"
}

func TestPublishedVectors(t *testing.T) {
	long := Credentials{ID: suite.ID, Secret: suite.Secret, Token: []byte(token)}
	tests := []struct {
		name, method, target, signed string
		header                       http.Header
		body                         string
		creds                        Credentials
		want                         string
	}{
		{"vanilla", "GET", "/", "host;x-amz-date", nil, "", suite, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
		{"space", "GET", "/example space/", "host;x-amz-date", nil, "", suite, "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741"},
		{"query order", "GET", "/?Param-3=Value3&Param=Value2&%E1%88%B4=Value1", "host;x-amz-date", nil, "", suite, "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac"},
		{"utf-8 path", "GET", "/\u1234", "host;x-amz-date", nil, "", suite, "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"},
		{"utf-8 query", "GET", "/?\u1234=bar", "host;x-amz-date", nil, "", suite, "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"},
		{"dot segment", "GET", "/./", "host;x-amz-date", nil, "", suite, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
		{"slashes", "GET", "//example//", "host;x-amz-date", nil, "", suite, "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84"},
		{"unreserved", "GET", "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", "host;x-amz-date", nil, "", suite, "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"},
		{"header trimmed", "GET", "/", "my-header2;my-header1;host;x-amz-date", http.Header{"My-Header1": {" value1"}, "My-Header2": {` "a   b   c"`}}, "", suite, "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},
		{"header twice", "GET", "/", "host;my-header1;x-amz-date", http.Header{"My-Header1": {"value2", "value2", "value1"}}, "", suite, "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea"},
		{"session token", "GET", "/", "host;x-amz-date", nil, "", long, "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8"},
		{"token of the agent's", "GET", "/", "host;x-amz-date;x-amz-security-token", http.Header{"X-Amz-Security-Token": {"placeholder"}}, "", suite, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
		{"header that was not sent", "GET", "/", "connection;host;x-amz-date", nil, "", suite, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
		{"form", "POST", "/", "content-length;content-type;host;x-amz-content-sha256;x-amz-date", http.Header{
			"Content-Type": {"application/x-www-form-urlencoded"}, hashField: {strings.Repeat("0", 64)},
		}, "Param1=value1", suite, "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b"},
	}
	for _, tt := range tests {
		h := tt.header
		if h == nil {
			h = http.Header{}
		}
		h["Authorization"] = []string{signedHeader(tt.signed)}
		r := request(tt.method, tt.target, h)
		r.ContentLength = int64(len(tt.body))
		c, err := Read(r)
		if err != nil || c == nil || c.ID != fakeID {
			t.Errorf("%s: claim %+v, %v", tt.name, c, err)
			continue
		}
		if _, err := Sign(r, c, tt.creds, []byte(tt.body), suiteTime); err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		got := h.Get("Authorization")
		if !strings.HasSuffix(got, "Signature="+tt.want) {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
		if !strings.Contains(got, "Credential=AKIDEXAMPLE/20150830/us-east-1/service/") || strings.Contains(got, fakeID) {
			t.Errorf("%s: %s", tt.name, got)
		}
	}
}

// s3 are the credentials and the time of the examples in the S3 reference.
var (
	s3     = Credentials{ID: "AKIAIOSFODNN7EXAMPLE", Secret: []byte("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")}
	s3Time = time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)
)

func s3Request(method, host, target, signed string, header http.Header) *http.Request {
	header["Authorization"] = []string{algorithm + " Credential=AKIAPLACEHOLDER/20130524/us-east-1/s3/aws4_request,SignedHeaders=" + signed + ",Signature=1"}
	r := request(method, target, header)
	r.Host = host
	return r
}

func TestS3Examples(t *testing.T) {
	get := s3Request("GET", "examplebucket.s3.amazonaws.com", "/test.txt", "host;range;x-amz-content-sha256;x-amz-date", http.Header{
		"Range": {"bytes=0-9"}, hashField: {emptyPayload},
	})
	c, err := Read(get)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Sign(get, c, s3, nil, s3Time); err != nil || !strings.HasSuffix(get.Header.Get("Authorization"), "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41") {
		t.Errorf("get: %v, %v", get.Header, err)
	}

	link := request("GET", "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=X%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20200101T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=00", http.Header{})
	link.Host = "examplebucket.s3.amazonaws.com"
	if c, err = Read(link); err != nil {
		t.Fatal(err)
	}
	if _, err := Sign(link, c, s3, nil, s3Time); err != nil || !strings.HasSuffix(link.URL.RawQuery, "X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404") {
		t.Errorf("link: %s, %v", link.URL.RawQuery, err)
	}
}

func chunked(hash string, trailer string) (*http.Request, string) {
	old := strings.Repeat("0", 64)
	body := "10000" + signatureMark + old + "\r\n" + strings.Repeat("a", 65536) + "\r\n" +
		"400" + signatureMark + old + "\r\n" + strings.Repeat("a", 1024) + "\r\n" +
		"0" + signatureMark + old + "\r\n"
	signed := "content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class"
	h := http.Header{
		"Content-Encoding": {"aws-chunked"}, hashField: {hash}, "X-Amz-Decoded-Content-Length": {"66560"}, "X-Amz-Storage-Class": {"REDUCED_REDUNDANCY"},
	}
	if trailer == "" {
		signed = strings.Replace(signed, "host;", "content-length;host;", 1)
	} else {
		h["X-Amz-Trailer"] = []string{"x-amz-checksum-crc32c"}
		signed += ";x-amz-trailer"
		body += trailer + "\r\n" + trailerMark + old + "\r\n"
	}
	body += "\r\n"
	r := s3Request("PUT", "s3.amazonaws.com", "/examplebucket/chunkObject.txt", signed, h)
	r.ContentLength = 66824
	return r, body
}

// TestChunkedExamples are the two worked examples of the S3 reference, for
// chunks and for chunks with a trailer.
func TestChunkedExamples(t *testing.T) {
	tests := []struct {
		name, hash, trailer string
		want                []string
	}{
		{"chunks", streamSigned, "", []string{
			"4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
			"10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n",
			"400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n",
			"0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n",
		}},
		{"trailer", streamTrailer, "x-amz-checksum-crc32c:sOO8/Q==", []string{
			"106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
			"10000;chunk-signature=b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2\r\n",
			"400;chunk-signature=1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7\r\n",
			"0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\n",
			"x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n",
		}},
	}
	for _, tt := range tests {
		r, body := chunked(tt.hash, tt.trailer)
		c, err := Read(r)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Sign(r, c, s3, nil, s3Time)
		if err != nil {
			t.Fatal(err)
		}
		out, err := io.ReadAll(s.Chunks(iotest.HalfReader(strings.NewReader(body))))
		if err != nil || len(out) != len(body) {
			t.Fatalf("%s: %d of %d bytes, %v", tt.name, len(out), len(body), err)
		}
		text := r.Header.Get("Authorization") + string(out)
		for _, w := range tt.want {
			if !strings.Contains(text, w) {
				t.Errorf("%s: %s is missing in %s", tt.name, w, strings.ReplaceAll(text, strings.Repeat("a", 1024), "…"))
			}
		}
		if !s.Signed() {
			t.Errorf("%s: the body is signed", tt.name)
		}
	}
}

// TestBrokenChunks: a body that cannot be signed never looks whole.
func TestBrokenChunks(t *testing.T) {
	old := strings.Repeat("0", 64)
	last := "0" + signatureMark + old + "\r\n\r\n"
	bodies := map[string]string{
		"empty":              "",
		"no last chunk":      "1" + signatureMark + old + "\r\na\r\n",
		"no signature":       "1\r\na\r\n" + last,
		"short signature":    "1" + signatureMark + "00\r\na\r\n" + last,
		"size is no number":  "g" + signatureMark + old + "\r\na\r\n" + last,
		"negative size":      "-1" + signatureMark + old + "\r\na\r\n" + last,
		"huge":               "ffffffff" + signatureMark + old + "\r\na\r\n" + last,
		"longer than it is":  "5" + signatureMark + old + "\r\na\r\n" + last,
		"bare line feed":     "1" + signatureMark + old + "\na\r\n" + last,
		"something behind":   last + "x",
		"trailer not signed": "0" + signatureMark + old + "\r\nx-a:b\r\n\r\n",
		"endless line":       strings.Repeat("1", 1<<20),
	}
	for name, body := range bodies {
		r, _ := chunked(streamSigned, "")
		c, _ := Read(r)
		s, err := Sign(r, c, s3, nil, s3Time)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(s.Chunks(strings.NewReader(body))); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	r, _ := chunked(streamSigned, "")
	c, _ := Read(r)
	s, err := Sign(r, c, s3, nil, s3Time)
	if err != nil {
		t.Fatal(err)
	}
	boom := errors.New("connection reset")
	if _, err := io.ReadAll(s.Chunks(iotest.ErrReader(boom))); !errors.Is(err, boom) {
		t.Errorf("error of the body: %v", err)
	}
	if out, err := io.ReadAll(s.Chunks(strings.NewReader(last))); err != nil || !bytes.HasPrefix(out, []byte("0;")) {
		t.Errorf("positive control: %q, %v", out, err)
	}
}

func TestReadRefuses(t *testing.T) {
	good := signedHeader("host")
	scope := "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=X/20130524/us-east-1/s3/aws4_request&X-Amz-Date=1&X-Amz-SignedHeaders=host"
	tests := map[string]*http.Request{
		"version 4A":       request("GET", "/", http.Header{"Authorization": {"AWS4-ECDSA-P256-SHA256 Credential=a/20130524/s3/aws4_request"}}),
		"both":             request("GET", "/"+scope, http.Header{"Authorization": {good}}),
		"two lines":        request("GET", "/", http.Header{"Authorization": {good, good}}),
		"credential twice": request("GET", "/", http.Header{"Authorization": {good + ", Credential=x"}}),
		"short scope":      request("GET", "/", http.Header{"Authorization": {algorithm + " Credential=a/b/aws4_request, SignedHeaders=host"}}),
		"odd service":      request("GET", "/", http.Header{"Authorization": {algorithm + " Credential=a/20130524/us-east-1/s3\n/aws4_request, SignedHeaders=host"}}),
		"host not signed":  request("GET", "/", http.Header{"Authorization": {signedHeader("x-amz-date")}}),
		"query twice":      request("GET", "/"+scope+"&X-Amz-Credential=y", http.Header{}),
		"query malformed":  request("GET", "/"+scope+"&x=%zz", http.Header{}),
	}
	for name, r := range tests {
		if c, err := Read(r); err == nil {
			t.Errorf("%s: %+v", name, c)
		}
	}
	for _, r := range []*http.Request{request("GET", "/", http.Header{}), request("GET", "/", http.Header{"Authorization": {"Bearer x"}})} {
		if c, err := Read(r); c != nil || err != nil {
			t.Errorf("unsigned: %+v, %v", c, err)
		}
	}
	for _, hash := range []string{"STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", ""} {
		r := request("PUT", "/", http.Header{"Authorization": {good}, hashField: {hash}})
		r.ContentLength = -1
		c, err := Read(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Sign(r, c, suite, nil, suiteTime); err == nil {
			t.Errorf("hash %q of a body that is not known was signed", hash)
		}
	}
}

// FuzzChunks: whatever the agent sends, the reader ends, and what it lets
// through is as long as what came.
func FuzzChunks(f *testing.F) {
	_, body := chunked(streamTrailer, "x-a:b")
	f.Add([]byte(strings.Replace(body, strings.Repeat("a", 65536), "", 1)))
	f.Add([]byte("1;chunk-signature="))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, _ := chunked(streamTrailer, "x-a:b")
		c, _ := Read(r)
		s, err := Sign(r, c, s3, nil, s3Time)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := io.ReadAll(s.Chunks(bytes.NewReader(data))); err == nil && len(out) != len(data) {
			t.Errorf("%d bytes became %d", len(data), len(out))
		}
	})
}
