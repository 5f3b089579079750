// Package image makes the container image of the gateway's own program: the
// static binary and nothing else. It is built without a registry, a base image
// or a builder, and the same binary always gives the same bytes.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

const (
	// Repository is the name of all images, without their tag. No registry
	// is asked for what is in localhost.
	Repository = "localhost/agentcage"
	// Program is where the binary is in the image.
	Program = "/agentcage"
	// User is who it runs as: nobody in particular, without a name.
	User = "65532:65532"

	maxBinary = 1 << 30
)

// Image is an image that has not been written yet. It keeps the binary in
// memory, so that a program that is replaced meanwhile does not mix.
type Image struct {
	// Ref is the name to load and run it by. Its tag comes from the content:
	// another program never runs under the same name (rules.md 109).
	Ref string
	// ID is what podman calls it, in hex: whoever finds an image of this name
	// and another ID has found somebody else's.
	ID string

	config []byte
	layer  []byte
	diff   string
}

// FromFile makes an image of a program for Linux on an architecture, which is
// named as in GOARCH. A program for another one is refused, and so is one that
// needs shared libraries, which the image does not have.
func FromFile(path, arch string) (*Image, error) {
	binary, err := read(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the program for the image: %w", err)
	}
	if err := check(binary, arch); err != nil {
		return nil, fmt.Errorf("cannot make an image of %s: %w", path, err)
	}
	return build(binary, arch)
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxBinary+1))
	if err == nil && len(b) > maxBinary {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxBinary)
	}
	return b, err
}

// machines are the architectures that releases are made for.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

const hint = "give the agentcage binary for linux/%s, which comes with the release"

func check(binary []byte, arch string) error {
	want, ok := machines[arch]
	if !ok {
		return fmt.Errorf("there are no containers for %q", arch)
	}
	f, err := elf.NewFile(bytes.NewReader(binary))
	if err != nil {
		return fmt.Errorf("it is no program for Linux: "+hint, arch)
	}
	if f.Machine != want || f.Class != elf.ELFCLASS64 || f.Data != elf.ELFDATA2LSB {
		return fmt.Errorf("it is a program for %v: "+hint, f.Machine, arch)
	}
	if f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return fmt.Errorf("it is no program but a file of %v: "+hint, f.Type, arch)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("it needs shared libraries: build it with CGO_ENABLED=0")
		}
	}
	return nil
}

// The parts of an image's config that podman reads (OCI image-spec, config.md).
type (
	imageConfig struct {
		Created      string    `json:"created"`
		Architecture string    `json:"architecture"`
		OS           string    `json:"os"`
		Config       runConfig `json:"config"`
		RootFS       rootFS    `json:"rootfs"`
		History      []history `json:"history"`
	}
	runConfig struct {
		User       string   `json:"User"`
		Entrypoint []string `json:"Entrypoint"`
		WorkingDir string   `json:"WorkingDir"`
	}
	rootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	}
	history struct {
		Created   string `json:"created"`
		CreatedBy string `json:"created_by"`
	}
	// archived is the only entry of manifest.json (`docker save`).
	archived struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
)

// epoch is the age of everything in the image.
var epoch = time.Unix(0, 0).UTC()

func build(binary []byte, arch string) (*Image, error) {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := add(w, Program[1:], 0o555, binary); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	i := &Image{layer: layer.Bytes(), diff: digest(layer.Bytes())}
	created := epoch.Format(time.RFC3339)
	var err error
	i.config, err = json.Marshal(imageConfig{
		Created: created, Architecture: arch, OS: "linux",
		Config:  runConfig{User: User, Entrypoint: []string{Program}, WorkingDir: "/"},
		RootFS:  rootFS{Type: "layers", DiffIDs: []string{"sha256:" + i.diff}},
		History: []history{{Created: created, CreatedBy: "agentcage"}},
	})
	if err != nil {
		return nil, err
	}
	i.ID = digest(i.config)
	const tag = 24 // hex digits: enough that no two are alike, short enough to read
	i.Ref = Repository + ":" + i.ID[:tag]
	return i, nil
}

// Write writes the image as an archive that `podman load` reads.
func (i *Image) Write(to io.Writer) error {
	manifest, err := json.Marshal([]archived{{Config: i.ID + ".json", RepoTags: []string{i.Ref}, Layers: []string{i.diff + ".tar"}}})
	if err != nil {
		return err
	}
	w := tar.NewWriter(to)
	for _, part := range []struct {
		name string
		data []byte
	}{{i.diff + ".tar", i.layer}, {i.ID + ".json", i.config}, {"manifest.json", manifest}} {
		if err := add(w, part.name, 0o444, part.data); err != nil {
			return fmt.Errorf("cannot write the image: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("cannot write the image: %w", err)
	}
	return nil
}

func add(w *tar.Writer, name string, mode int64, data []byte) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data)), ModTime: epoch, Format: tar.FormatUSTAR}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
