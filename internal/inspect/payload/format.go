package payload

import "bytes"

// format is a type of data that its bytes prove.
type format struct {
	typ   string
	media bool // it cannot be looked into further
	magic func(data []byte) bool
	// parse walks over the structure, has x look at what is in it, and
	// returns where it ends. What is behind that is judged by itself.
	parse func(x *examiner, data []byte) (end int, ok bool)
}

// formats are the types that are known. A table of functions that use it
// cannot be initialized directly.
var formats []format

func init() {
	formats = []format{
		{"image/png", true, begins("\x89PNG\r\n\x1a\n"), png},
		{"image/jpeg", true, begins("\xff\xd8\xff"), jpeg},
		{"image/gif", true, begins("GIF8"), gif},
		{"image/webp", true, riffOf("WEBP"), riff("VP8 ", "VP8L", "VP8X", "ANIM", "ANMF", "ALPH", "ICCP", "EXIF", "XMP ")},
		{"audio/wav", true, riffOf("WAVE"), riff("fmt ", "data", "fact", "LIST", "bext", "cue ", "id3 ", "JUNK", "smpl", "inst")},
		{"image/bmp", true, begins("BM"), bmp},
		{"image/heif", true, boxesOf("heic", "heix", "mif1", "msf1", "avif", "avis"), boxes("meta", 4, "hdlr", "iloc", "iinf", "iprp")},
		{"video/mp4", true, boxesOf(""), boxes("moov", 0, "mvhd", "trak")},
		{"audio/mpeg", true, isMPEG, mpeg},
		{"font/woff2", true, begins("wOF2"), woff(48, true)},
		{"font/woff", true, begins("wOFF"), woff(44, false)},
		{"font/type1", true, begins("%!"), type1},
		{"application/pdf", false, begins("%PDF-"), pdf},
		{"application/gzip", false, begins("\x1f\x8b\x08"), gunzip},
		{"application/zlib", false, isZlib, unzlib},
		{"application/zip", false, begins("PK\x03\x04"), unzip},
		{"application/x-tar", false, isTar, untar},
		{"application/x-git-pack", false, isPack, pack},
		{"application/x-cargo-publish", false, isCrate, crate},
	}
}

func begins(prefix string) func([]byte) bool {
	return func(data []byte) bool { return bytes.HasPrefix(data, []byte(prefix)) }
}

func formatOf(data []byte) *format {
	for i := range formats {
		if formats[i].magic(data) {
			return &formats[i]
		}
	}
	return nil
}

// magics are types that are recognized by their first bytes alone. That is
// enough to say what a body is not, and never to explain it.
var magics = []struct{ prefix, typ string }{
	{"\x7fELF", "application/x-elf"},
	{"MZ\x90\x00", "application/x-pe"},
	{"\xcf\xfa\xed\xfe", "application/x-mach-o"},
	{"\x00asm", "application/wasm"},
	{"SQLite format 3\x00", "application/vnd.sqlite3"},
	{"\x28\xb5\x2f\xfd", "application/zstd"},
	{"BZh", "application/x-bzip2"},
	{"\xfd7zXZ\x00", "application/x-xz"},
	{"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"},
	{"Rar!\x1a\x07", "application/vnd.rar"},
	{"OggS", "audio/ogg"},
	{"fLaC", "audio/flac"},
	{"ID3", "audio/mpeg"},
	{"\x1a\x45\xdf\xa3", "video/webm"},
	{"II*\x00", "image/tiff"},
	{"MM\x00*", "image/tiff"},
	{"\x00\x00\x01\x00", "image/x-icon"},
	{"PAR1", "application/vnd.apache.parquet"},
	{"\xca\xfe\xba\xbe", "application/java-vm"},
	{"age-encryption.org/", "application/x-age"},
	{"Salted__", "application/x-openssl-salted"},
	{"-----BEGIN PGP MESSAGE", "application/pgp-encrypted"},
}

// Sniff returns the type that the first bytes of data speak of, "" for none.
func Sniff(data []byte) string {
	if f := formatOf(data); f != nil && f.typ != "application/zlib" && f.typ != "audio/mpeg" {
		return f.typ
	}
	for _, m := range magics {
		if bytes.HasPrefix(data, []byte(m.prefix)) {
			return m.typ
		}
	}
	return ""
}
