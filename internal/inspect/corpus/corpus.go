// Package corpus reads the labelled corpus: requests that leak something and
// requests that honest clients send, by which the inspectors are measured. It
// is for tests.
//
// A case is written as the request is, and what is binary, large or random in
// it is made by a recipe, so that a case can be read and reviewed. See
// README.md beside the files.
package corpus

import (
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/agentcage/agentcage/internal/hostname"
	"github.com/agentcage/agentcage/internal/inspect"
)

// Case is one labelled piece of traffic: a request, or several that belong
// together.
type Case struct {
	Name     string
	Category string // name of the file
	Leak     bool
	Expect   []string // inspector, and rule if it is known, that should find it
	At       string   // file and line
	Steps    []Step
}

// Step is one request of a case, with what is to be looked at in it: the head
// with its body, or the head and then a message or a trailer.
type Step struct {
	Request  *inspect.Request
	Contents []*inspect.Content
}

// Load reads leaks/*.txt and honest/*.txt of a directory. An error says where.
func Load(dir fs.FS) ([]Case, error) {
	k := &kitchen{files: dir}
	if err := k.readSamples("samples.txt"); err != nil {
		return nil, err
	}
	var cases []Case
	for _, kind := range []string{"leaks", "honest"} {
		files, err := fs.Glob(dir, kind+"/*.txt")
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			data, err := fs.ReadFile(dir, file)
			if err != nil {
				return nil, err
			}
			more, err := k.parse(file, string(data))
			if err != nil {
				return nil, err
			}
			cases = append(cases, more...)
		}
	}
	return cases, unique(cases)
}

func unique(cases []Case) error {
	seen := make(map[string]string)
	for _, c := range cases {
		key := c.Category + "/" + c.Name
		if at, twice := seen[key]; twice {
			return fmt.Errorf("%s: the case %q is at %s too", c.At, key, at)
		}
		seen[key] = c.At
	}
	return nil
}

// parse reads the cases of a file. Each begins with a line "=== NAME".
func (k *kitchen) parse(file, text string) ([]Case, error) {
	var cases []Case
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); {
		name, begins := strings.CutPrefix(lines[i], "=== ")
		if !begins {
			if s := strings.TrimSpace(lines[i]); s != "" && s[0] != '#' {
				return nil, fmt.Errorf("%s:%d: it belongs to no case", file, i+1)
			}
			i++
			continue
		}
		start := i
		for i++; i < len(lines) && !strings.HasPrefix(lines[i], "=== "); i++ {
		}
		raw := rawCase{at: fmt.Sprintf("%s:%d", file, start+1), name: name}
		raw.read(lines[start+1:i], k.samples)
		for _, one := range raw.expand() {
			c, err := k.make(one)
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", one.at, one.name, err)
			}
			c.Leak = strings.HasPrefix(file, "leaks/")
			c.Category = strings.TrimSuffix(path.Base(file), ".txt")
			cases = append(cases, c)
		}
	}
	return cases, nil
}

// rawCase is a case as it is written.
type rawCase struct {
	at, name string
	vars     []variable
	options  map[string]string
	steps    []string
}

type variable struct {
	name   string
	values []string
}

// read takes the options of a case, which begin with "@", and cuts the rest into
// steps at lines "---". "@for NAME: A | B" makes a case of each value, and "every
// secret" stands for all samples.
func (r *rawCase) read(lines []string, samples map[string]sample) {
	r.options = make(map[string]string)
	for len(lines) > 0 && strings.HasPrefix(lines[0], "@") {
		word, value, _ := strings.Cut(lines[0][1:], " ")
		if word == "for" {
			name, list, _ := strings.Cut(value, ":")
			values := splitTrim(list, " | ")
			if strings.TrimSpace(list) == "every secret" {
				values = slices.Sorted(maps.Keys(samples))
			}
			r.vars = append(r.vars, variable{strings.TrimSpace(name), values})
		} else {
			r.options[word] = value
		}
		lines = lines[1:]
	}
	for step := range strings.SplitSeq(strings.TrimRight(strings.Join(lines, "\n"), "\n"), "\n---\n") {
		r.steps = append(r.steps, step)
	}
}

func splitTrim(s, sep string) []string {
	parts := strings.Split(s, sep)
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}

// expand gives one case for each combination of the values of its variables. A
// value "NAME := TEXT" is called NAME in the name of the case, and where
// "$variable.name" stands.
func (r rawCase) expand() []rawCase {
	if len(r.vars) == 0 {
		return []rawCase{r}
	}
	v := r.vars[0]
	var all []rawCase
	for _, value := range v.values {
		called := value
		if n, text, ok := strings.Cut(value, " := "); ok {
			called, value = n, text
		}
		one := r
		one.vars = r.vars[1:]
		one.name = strings.ReplaceAll(r.name, "$"+v.name, called)
		if one.name == r.name {
			one.name += ", " + called
		}
		in := strings.NewReplacer("$"+v.name+".name", called, "$"+v.name, value)
		one.steps = nil
		for _, text := range r.steps {
			one.steps = append(one.steps, in.Replace(text))
		}
		one.options = make(map[string]string)
		for name, text := range r.options {
			one.options[name] = in.Replace(text)
		}
		all = append(all, one.expand()...)
	}
	return all
}

func (k *kitchen) make(r rawCase) (Case, error) {
	c := Case{Name: r.name, At: r.at, Expect: strings.Fields(r.options["expect"])}
	for name := range r.options {
		if !slices.Contains([]string{"expect", "kind", "wrap", "crlf", "repeat"}, name) {
			return c, fmt.Errorf("there is no option @%s", name)
		}
	}
	for _, text := range r.steps {
		s, err := k.step(r, text)
		if err != nil {
			return c, err
		}
		c.Steps = append(c.Steps, s)
	}
	return c, nil
}

var kinds = map[string]inspect.Kind{
	"": inspect.KindRequest, "request": inspect.KindRequest, "websocket": inspect.KindWebSocket, "grpc": inspect.KindMessage, "trailer": inspect.KindTrailer,
}

// step reads a request as RFC 9112 has it, with the URL in absolute form.
func (k *kitchen) step(r rawCase, text string) (Step, error) {
	head, body, _ := strings.Cut(text, "\n\n")
	lines := strings.Split(strings.TrimSpace(head), "\n")
	method, target, ok := strings.Cut(lines[0], " ")
	if !ok {
		return Step{}, fmt.Errorf("%q is no request line", lines[0])
	}
	target, err := k.fill(r.name, target)
	if err != nil {
		return Step{}, err
	}
	header := make(http.Header)
	for _, line := range lines[1:] {
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return Step{}, fmt.Errorf("%q is no header line", line)
		}
		if name, err = k.fill(r.name, name); err != nil {
			return Step{}, err
		}
		if value, err = k.fill(r.name, strings.TrimSpace(value)); err != nil {
			return Step{}, err
		}
		header.Add(name, value)
	}
	content, err := k.body(r, body)
	if err != nil {
		return Step{}, err
	}
	kind, ok := kinds[r.options["kind"]]
	if !ok {
		return Step{}, fmt.Errorf("there is no kind %q", r.options["kind"])
	}
	return newStep(kind, method, target, header, content)
}

func (k *kitchen) body(r rawCase, text string) ([]byte, error) {
	if _, crlf := r.options["crlf"]; crlf {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	text, err := k.fill(r.name, text)
	if err != nil {
		return nil, err
	}
	return k.transform(r.name, []byte(text), splitTrim(r.options["wrap"], " > "))
}

func newStep(kind inspect.Kind, method, target string, header http.Header, body []byte) (Step, error) {
	u, err := url.Parse(target)
	if err != nil {
		return Step{}, err
	}
	host, port, err := hostname.ParseAuthority(u.Host)
	if err != nil {
		return Step{}, err
	}
	if port == 0 {
		port = map[string]uint16{"https": 443, "http": 80}[u.Scheme]
	}
	r := &inspect.Request{
		Via: inspect.ViaProxy, Method: method, Scheme: u.Scheme, Host: host, Port: port, URL: u,
		Header: header, ContentLength: int64(len(body)),
	}
	r.Path, _ = inspect.DecodePath(u.EscapedPath())
	head := &inspect.Content{
		Request: r, Kind: inspect.KindRequest, Direction: inspect.ToServer, Header: header,
		Type: header.Get("Content-Type"), Encoding: header.Values("Content-Encoding"), Body: body,
	}
	s := Step{Request: r, Contents: []*inspect.Content{head}}
	if kind == inspect.KindRequest {
		return s, nil
	}
	head.Body = nil
	r.ContentLength = -1
	piece := &inspect.Content{Request: r, Kind: kind, Direction: inspect.ToServer, Body: body}
	switch kind {
	case inspect.KindTrailer:
		// What is written as the header is the trailer.
		piece.Header, head.Header, head.Type, head.Encoding = header, make(http.Header), "", nil
		r.Header = head.Header
	case inspect.KindMessage:
		piece.Type = head.Type
	case inspect.KindWebSocket:
		r.ContentLength = 0
	}
	s.Contents = append(s.Contents, piece)
	return s, nil
}
