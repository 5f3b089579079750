package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// What secrets cost: with a hundred rules, against the same gateway without.
const (
	secretGets   = "get_with_100_secrets_ratio"
	secretEvents = "event_with_100_secrets_added_ms"
	secretMem    = "rss_large_download_with_100_secrets_MB"
	redactText   = "redact_text_MB_per_second"
	redactGzip   = "redact_gzip_MB_per_second"
)

const secretRules = 100

// secretsConfig has a rule for the upstream and many for other hosts. Their
// values are in the environment of the gateway.
func secretsConfig() (string, error) {
	var b strings.Builder
	b.WriteString("secret_injection:\n")
	for i := range secretRules {
		name, host := fmt.Sprintf("BENCH_SECRET_%d", i), serverName
		if i > 0 {
			host = fmt.Sprintf("h%d.example", i)
		}
		if err := os.Setenv(name, fmt.Sprintf("bench-value-%032d", i*7919)); err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "  - {env: %s, source: 'env:%[1]s', inject_to: [%s], placeholder: 'agentcage:secret:%[1]s:%032x'}\n", name, host, i)
	}
	return b.String(), nil
}

// measureSecrets runs the gateway without and with secrets, in turns.
func measureSecrets(ctx context.Context, l *lab, binary string, s settings, res *result) error {
	if _, err := os.Stat(binary); err != nil {
		return nil
	}
	more, err := secretsConfig()
	if err != nil {
		return err
	}
	var clients [2]client
	var with *child
	for i, config := range []string{"", more} {
		p, err := l.startOurs(ctx, binary, config)
		if err != nil {
			return fmt.Errorf("cannot start with %d secrets: %w", i*secretRules, err)
		}
		defer p.stop()
		clients[i], with = client{proxy: p.addr, lab: l}, p
	}
	for round := range s.Rounds {
		progress("secrets, round %d of %d", round+1, s.Rounds)
		var rates, first [2]float64
		for i, cl := range clients {
			t, err := cl.kept(16, 2*s.Slice, cl.get("/small", ""), http.MethodGet)
			if err != nil {
				return wrap("small GETs", err)
			}
			late, err := cl.events(12)
			if err != nil {
				return wrap("events", err)
			}
			rates[i], first[i] = t.rate, late[0]
		}
		res.add(ours, secretGets, rates[1]/rates[0])
		res.add(ours, secretEvents, first[1]-first[0])
	}
	var failed error
	res.add(ours, secretMem, watch(with.cmd.Process.Pid, func() { _, failed = clients[1].download(s.Large) }))
	if failed != nil {
		return wrap("large download", failed)
	}
	return measureRedaction(ctx, res)
}

// speed finds what `go test -bench` prints of one benchmark.
var speed = regexp.MustCompile(`(?m)^BenchmarkRedact(?:Compressed)?/(\w+)\S*\s.*?([\d.]+) MB/s-core`)

// measureRedaction measures the redactor by itself, on one core: through a
// gateway, TLS on both sides would be measured.
func measureRedaction(ctx context.Context, res *result) error {
	progress("redaction on one core")
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkRedact(Compressed)?$", "-cpu", "1", "./internal/inject")
	out, err := cmd.CombinedOutput()
	if err != nil {
		progress("redaction is left out: %v: %s", err, out)
		return nil
	}
	metrics := map[string]string{"text": redactText, "gzip": redactGzip}
	for _, m := range speed.FindAllStringSubmatch(string(out), -1) {
		v, err := strconv.ParseFloat(m[2], 64)
		if metric := metrics[m[1]]; err == nil && metric != "" {
			res.add(ours, metric, v)
		}
	}
	return nil
}
