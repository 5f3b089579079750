package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/agentcage/agentcage/internal/audit"
	"github.com/agentcage/agentcage/internal/inspect"
)

type nullSink struct{}

func (nullSink) Put(audit.Record) error { return nil }

// benchServer answers /N with N bytes and takes any body.
var benchServer = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	n, _ := strconv.Atoi(r.URL.Path[1:])
	w.Header().Set("Content-Length", strconv.Itoa(n))
	for n > 0 {
		k := min(n, len(zeros))
		w.Write(zeros[:k])
		n -= k
	}
})

var zeros [64 << 10]byte

func benchWorld(b *testing.B) *world {
	return newWorld(b, only(good), benchServer, func(o *Options) { o.Audit = nullSink{} }, func(o *Options) {})
}

func (w *world) benchClient() *http.Transport {
	rt := w.viaProxy()
	rt.MaxIdleConnsPerHost = 64
	rt.TLSClientConfig.NextProtos = []string{"http/1.1"}
	return rt
}

func once(b *testing.B, rt http.RoundTripper, method, path string, body []byte) {
	req, _ := http.NewRequest(method, "https://"+good+path, bytes.NewReader(body))
	res, err := rt.RoundTrip(req)
	if err != nil {
		b.Error(err)
		return
	}
	io.Copy(io.Discard, res.Body)
	res.Body.Close()
	if res.StatusCode != 200 {
		b.Error(res.Status)
	}
}

func BenchmarkGet(b *testing.B) {
	w := benchWorld(b)
	rt := w.benchClient()
	warm(b, rt)
	defer cpuPerOp(b)()
	b.SetParallelism(8)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			once(b, rt, "GET", "/100", nil)
		}
	})
}

func BenchmarkPost10k(b *testing.B) {
	w := benchWorld(b)
	rt := w.benchClient()
	body := make([]byte, 10_000)
	warm(b, rt)
	defer cpuPerOp(b)()
	b.SetParallelism(8)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			once(b, rt, "POST", "/100", body)
		}
	})
}

func BenchmarkNewConnection(b *testing.B) {
	w := benchWorld(b)
	defer cpuPerOp(b)()
	b.SetParallelism(4)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		rt := w.benchClient()
		rt.DisableKeepAlives = true
		for pb.Next() {
			once(b, rt, "GET", "/100", nil)
		}
	})
}

func BenchmarkDownload100MB(b *testing.B) {
	w := benchWorld(b)
	rt := w.benchClient()
	warm(b, rt)
	defer cpuPerOp(b)()
	b.SetBytes(100_000_000)
	for b.Loop() {
		once(b, rt, "GET", "/100000000", nil)
	}
}

// BenchmarkTunnelHandshake is CONNECT, TLS and one request.
func BenchmarkTunnelHandshake(b *testing.B) {
	w := benchWorld(b)
	cache := tls.NewLRUClientSessionCache(16)
	for _, resumed := range []bool{false, true} {
		b.Run("resumed="+strconv.FormatBool(resumed), func(b *testing.B) {
			for b.Loop() {
				c, err := w.connect(good + ":443")
				if err != nil {
					b.Fatal(err)
				}
				conf := &tls.Config{ServerName: good, RootCAs: pool(w.cage)}
				if resumed {
					conf.ClientSessionCache = cache
				}
				tc := tls.Client(c, conf)
				if err := tc.HandshakeContext(context.Background()); err != nil {
					b.Fatal(err)
				}
				once1(b, tc)
				tc.Close()
			}
		})
	}
}

func once1(b *testing.B, c io.ReadWriter) {
	io.WriteString(c, "GET /1 HTTP/1.1\r\nHost: "+good+"\r\n\r\n")
	if _, err := c.Read(make([]byte, 4096)); err != nil {
		b.Fatal(err)
	}
}

// cpuPerOp reports processor time, which other load on the machine changes less
// than it does wall time.
func cpuPerOp(b *testing.B) func() {
	var before, after syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	return func() {
		syscall.Getrusage(syscall.RUSAGE_SELF, &after)
		used := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
		b.ReportMetric(float64(used)/float64(b.N), "cpu-ns/op")
	}
}

// warm opens the connections that a benchmark keeps.
func warm(b *testing.B, rt http.RoundTripper) {
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 20 {
				once(b, rt, "GET", "/100", nil)
			}
		})
	}
	wg.Wait()
	b.ResetTimer()
}

// BenchmarkPostRead is what it costs to have the policy asked about content,
// without what an inspector does.
func BenchmarkPostRead(b *testing.B) {
	w := newWorld(b, allowingReader{only(good)}, benchServer, func(o *Options) { o.Audit = nullSink{} })
	rt := w.benchClient()
	warm(b, rt)
	for _, size := range []int{10_000, 1 << 20} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			body := make([]byte, size)
			defer cpuPerOp(b)()
			b.SetParallelism(8)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					once(b, rt, "POST", "/100", body)
				}
			})
		})
	}
}

type allowingReader struct{ policyFunc }

func (allowingReader) Reads(*inspect.Request) inspect.Reads {
	return inspect.Reads{Request: true, Messages: true}
}

func (allowingReader) DecideContent(context.Context, *inspect.Content) inspect.Verdict {
	return allowed()
}
