package decode

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// fold turns what looks like ASCII into ASCII: compatibility forms (NFKD of
// UAX #15: full width, mathematical letters, ligatures), letters of other
// scripts of the same shape, and tags. Marks are dropped, and so is what cannot
// be seen.
//
// Only stretches of ASCII that come out of it are kept: what no fold makes
// ASCII separates them, so that a text in another script gives nothing.
func (d *decoder) fold(p int) {
	src := d.layers[p].Data
	if d.high == len(src) {
		return
	}
	f, table := folder{src: src}, folds()
	for i := d.high; i < len(src); {
		if !f.active {
			if i = nextChar(src, i); i == len(src) {
				break
			}
		}
		size, s, ok := 1, "", false
		if mayFold[src[i]] && (f.active || inText(src, i)) {
			var r rune
			if r, size = utf8.DecodeRune(src[i:]); size > 1 {
				s, ok = foldRune(table, r)
			}
		}
		if ok {
			f.replace(i, size, s)
		} else if f.active {
			f.end(i)
		}
		i += size
		if f.active {
			i = nextHigh(src, i)
		}
	}
	if f.active {
		f.end(len(src))
	}
	d.add(Layer{Kind: Folded, Parent: p, Data: f.out, Start: f.start, End: f.stop})
}

// nextChar returns where the next character beyond ASCII begins in UTF-8, or
// len(b).
func nextChar(b []byte, i int) int {
	for ; i+9 <= len(b); i += 8 {
		x, y := binary.LittleEndian.Uint64(b[i:]), binary.LittleEndian.Uint64(b[i+1:])
		if m := x & (x << 1) & y & ^(y << 1) & highs; m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
	}
	for ; i < len(b); i++ {
		if b[i] >= 0xc0 {
			return i
		}
	}
	return i
}

// folder collects the stretches.
type folder struct {
	src         []byte
	out         []byte
	start, stop int // in the source, of all stretches
	pos         int // up to where the source was looked at
	open        int // where in out the stretch at hand begins
	active      bool
}

func (f *folder) replace(i, size int, s string) {
	if f.active {
		f.context(i)
	}
	if !f.active {
		f.begin(i)
	}
	f.out = append(f.out, s...)
	f.pos = i + size
}

// context writes ASCII up to i, if a stretch goes on there.
func (f *folder) context(i int) {
	if i-f.pos > 2*tightContext {
		f.finish(forward(f.src, f.pos, i, tightContext))
		return
	}
	f.out = append(f.out, f.src[f.pos:i]...)
	f.pos = i
}

func (f *folder) begin(i int) {
	from := backward(f.src, f.pos, i, tightContext)
	for n := i; n > from; n-- {
		if f.src[n-1] >= utf8.RuneSelf {
			from = n
		}
	}
	if f.out == nil {
		f.out = make([]byte, 0, min(len(f.src)-from, 4<<10))
	}
	if len(f.out) > 0 {
		f.out = append(f.out, '\n')
	} else {
		f.start = from
	}
	f.active, f.open = true, len(f.out)
	f.out = append(f.out, f.src[from:i]...)
}

// end ends a stretch at i, where something stands that separates.
func (f *folder) end(i int) {
	f.context(i)
	if f.active {
		f.finish(i)
	}
}

// finish keeps a stretch if it is long enough to be anything.
func (f *folder) finish(end int) {
	f.out = append(f.out, f.src[f.pos:end]...)
	if len(f.out)-f.open >= minFragment {
		f.stop = end
	} else {
		f.out = f.out[:max(f.open-1, 0)]
	}
	f.active, f.pos = false, end
}

// mayFold says of the first byte of a character that it may fold to ASCII. Han
// and Hangul, whose texts are long, do not.
var mayFold = func() (t [256]bool) {
	for b := 0xc2; b <= 0xf4; b++ {
		t[b] = b <= 0xe3 || b == 0xea || b >= 0xef
	}
	return t
}()

const (
	notFolded = "\xff" // in folds: looks like no ASCII
	firstKana = 0x3041
	lastKana  = 0x30ff
)

// folds is foldRune of all characters that texts are full of.
var folds = sync.OnceValue(func() []string {
	t := make([]string, firstKana)
	for r := range t {
		s, ok := foldSlowly(rune(r))
		if !ok {
			s = notFolded
		}
		t[r] = s
	}
	return t
})

// foldRune returns the ASCII that a character looks like, which is nothing for
// one that cannot be seen. ok is false for one that looks like no ASCII.
func foldRune(table []string, r rune) (s string, ok bool) {
	switch {
	case int(r) < len(table):
		s = table[r]
		return s, s != notFolded
	case r <= lastKana:
		return "", false
	}
	return foldSlowly(r)
}

func foldSlowly(r rune) (s string, ok bool) {
	if invisible(r) {
		return "", true
	}
	if s, ok := lookAlike[r]; ok {
		return s, true
	}
	if r > 0xe0000 && r <= 0xe007f { // tags: an ASCII character that is not shown
		if r < 0xe0020 || r == 0xe007f {
			return "", true
		}
		return string(r - 0xe0000), true
	}
	var buf [utf8.UTFMax]byte
	n := utf8.EncodeRune(buf[:], r)
	apart := norm.NFKD.Properties(buf[:n]).Decomposition()
	if len(apart) == 0 {
		return "", false
	}
	out := make([]byte, 0, len(apart))
	for _, c := range string(apart) {
		if c < utf8.RuneSelf {
			out = append(out, byte(c))
		} else if like, ok := lookAlike[c]; ok {
			out = append(out, like...)
		} else if !invisible(c) {
			return "", false
		}
	}
	return string(out), true
}

// invisible are characters that take no room: zero-width and directional ones,
// variation selectors, fillers, and marks that are put on others.
func invisible(r rune) bool {
	switch {
	case r == 0xad, r == 0x034f, r == 0x061c, r == 0x115f, r == 0x1160, r == 0x17b4, r == 0x17b5,
		r >= 0x180b && r <= 0x180f, r >= 0x200b && r <= 0x200f, r >= 0x202a && r <= 0x202e,
		r >= 0x2060 && r <= 0x206f, r == 0x3164, r >= 0xfe00 && r <= 0xfe0f, r == 0xfeff, r == 0xffa0,
		r >= 0xfff9 && r <= 0xfffb, r >= 0x1d173 && r <= 0x1d17a, r >= 0xe0100 && r <= 0xe01ef:
		return true
	}
	return unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Me, r)
}

// lookAlike has the letters of other scripts that look like ASCII in most
// fonts, and the signs that stand for a hyphen, a dot or a quote.
var lookAlike = func() map[rune]string {
	t := map[rune]string{}
	for _, like := range [...]struct{ ascii, others string }{
		{"a", "аαɑ"}, {"b", "ƅɓƀЬь"}, {"c", "сϲᴄƈ"}, {"d", "ԁɗđɖ"}, {"e", "еєҽɛε"}, {"f", "ƒſ"},
		{"g", "ɡɠցǥ"}, {"h", "һհħɦ"}, {"i", "іɩıιɪι"}, {"j", "јϳʝ"}, {"k", "κкƙᴋ"}, {"l", "ӏłǀ|"},
		{"m", "мᴍɱ"}, {"n", "ոпɴɲŋη"}, {"o", "оοσօᴏøө०"}, {"p", "рρƥ"}, {"q", "ԛգ"}, {"r", "гᴦɾɼ"},
		{"s", "ѕꜱʂ"}, {"t", "тτŧƭᴛ"}, {"u", "υսᴜʋц"}, {"v", "νѵᴠ"}, {"w", "ԝωաᴡѡ"}, {"x", "хχ"},
		{"y", "уγүʏƴ"}, {"z", "ᴢʐƶȥ"},
		{"A", "АΑᎪꓮᗅ"}, {"B", "ВΒᏴꓐʙв"}, {"C", "СϹᏟꓚ"}, {"D", "ᎠꓓĐᴅ"}, {"E", "ЕΕᎬꓰᴇЄ"}, {"F", "ꓝϜ"},
		{"G", "ԌᏀꓖɢ"}, {"H", "НΗᎻꓧʜн"}, {"I", "ІΙӀꓲ"}, {"J", "ЈᎫꓙᴊ"}, {"K", "КΚᏦꓗ"}, {"L", "ᏞꓡʟŁ"},
		{"M", "МΜᎷꓟϺ"}, {"N", "ΝꓠɴͷИ"}, {"O", "ОΟՕꓳØ"}, {"P", "РΡᏢꓑᴘ"}, {"Q", "Ԛ"}, {"R", "ᎡᏒꓣʀ"},
		{"S", "ЅՏᏚꓢ"}, {"T", "ТΤᎢꓔŦ"}, {"U", "ՍꓴԱ"}, {"V", "ᏙꓦѴ"}, {"W", "ԜᎳꓪ"}, {"X", "ХΧꓫ"},
		{"Y", "ΥҮУꓬϒ"}, {"Z", "ΖᏃꓜ"},
		{"0", "٠۰०০੦"}, {"1", "١۱१"}, {"2", "٢۲२ƧϨ"}, {"3", "٣۳३ЗзƷʒӠ"}, {"4", "٤۴४Ꮞ"}, {"5", "٥۵५Ƽ"},
		{"6", "٦۶६бᏮ"}, {"7", "٧۷७"}, {"8", "٨۸८Ȣȣ"}, {"9", "٩۹९"},
		{"-", "‐‑‒–—―−⁃﹣˗－"}, {".", "․·∙⋅。٫ꓸ"}, {",", "‚٬ꓹ"}, {":", "：∶꞉﹕˸։"}, {"/", "∕⁄⧸⟋╱"},
		{"\\", "∖⧵﹨"}, {"_", "ˍ＿"}, {"*", "∗⁎٭"}, {"=", "꓿═＝"}, {"+", "᛭➕"}, {"'", "‘’‛′ʼʹꞌ"}, {"\"", "“”„‟″"},
		{" ", "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"},
	} {
		for _, r := range like.others {
			if r >= utf8.RuneSelf {
				t[r] = like.ascii
			}
		}
	}
	return t
}()
