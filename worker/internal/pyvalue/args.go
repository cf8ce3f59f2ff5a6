package pyvalue

import (
	"encoding/binary"
	"strings"
)

// Args are the arguments that an input text gives: by keyword or by position,
// never both.
type Args struct {
	// Keywords are in the order in which their names came first.
	Keywords []Keyword
	// Positional has at most one value.
	Positional []Value
}

// Keyword is one name=value of an input text.
type Keyword struct {
	Name  string
	Value Value
}

// ParseArgs reads an input text. Three forms are plain enough to be read here:
//
//   - `name=literal, name=literal…`: arguments by keyword. Names are ASCII
//     identifiers and no keywords of Python's; blanks and line ends may stand
//     around names, `=` and `,`, and inside of brackets; a literal has no comma
//     outside of brackets. Of equal names the last value counts.
//   - a text that is one literal as a whole: one positional argument, which is
//     a tuple if there are commas outside of brackets.
//   - an empty text: no arguments.
//
// For any other text ok is false, and Python is to decide as the documented
// service does: by finding every match of
//
//	(\w+)\s*=\s*(.+?)(?=,\s*\w+\s*=|$)
//
// and reading each value with ast.literal_eval, leaving out those that fail;
// failing all that, by reading the whole text with literal_eval.
//
// What ParseArgs reads is what that procedure makes of the text, with two
// deliberate exceptions, both of which the procedure gets wrong: an `=` in
// quotes, brackets or a comment in brackets makes no argument, and a line end
// inside a value or before a comma does not lose the argument.
func ParseArgs(text string) (args Args, ok bool) {
	p := parser{text: text}
	defer p.release()
	if !p.readable() {
		return Args{}, false
	}
	p.spaces()
	if p.pos == len(text) {
		return Args{}, true
	}
	if kws, ok := p.keywords(); ok {
		return Args{Keywords: kws}, true
	}
	// As literal_eval is given it: without blanks and line ends around it.
	q := parser{text: strings.Trim(text, " \t\n\v\f\r")}
	defer q.release()
	v, ok := q.whole()
	if !ok || q.remark { // a comment might hold what counts as an argument
		return Args{}, false
	}
	return Args{Positional: []Value{v}}, true
}

// spaces skips blanks and line ends.
func (p *parser) spaces() {
	for p.pos < len(p.text) {
		switch p.text[p.pos] {
		case ' ', '\t', '\f', '\n', '\r':
			p.pos++
		default:
			return
		}
	}
}

// maxKeywords is how many pairs are read here, since each name is looked up
// among those before it. No function that is written by hand takes more.
const maxKeywords = 500

// keywords reads name=literal pairs up to the end of the text.
func (p *parser) keywords() (kws []Keyword, ok bool) {
	for range maxKeywords {
		start := p.pos
		for isWord(p.peek(p.pos)) {
			p.pos++
		}
		name := p.text[start:p.pos]
		p.spaces()
		if p.peek(p.pos) != '=' || !isName(name) {
			return nil, p.fail("expected name=literal")
		}
		p.pos++
		p.spaces()
		v, _, ok := p.expr()
		if !ok {
			return nil, false
		}
		if kws == nil {
			kws = make([]Keyword, 0, 4)
		}
		kws = setKeyword(kws, name, v)
		p.spaces()
		if p.pos == len(p.text) {
			return kws, true
		}
		if p.peek(p.pos) != ',' {
			return nil, p.fail("expected a comma")
		}
		p.pos++
		p.spaces()
	}
	return nil, p.fail("too many arguments")
}

func setKeyword(kws []Keyword, name string, v Value) []Keyword {
	for i := range kws {
		if kws[i].Name == name {
			kws[i].Value = v
			return kws
		}
	}
	return append(kws, Keyword{name, v})
}

// isName reports whether s, made of word characters, is an ASCII identifier.
func isName(s string) bool {
	if s == "" || s[0] <= '9' {
		return false
	}
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	switch s {
	case "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue",
		"def", "del", "elif", "else", "except", "finally", "for", "from", "global", "if", "import", "in",
		"is", "lambda", "nonlocal", "not", "or", "pass", "raise", "return", "try", "while", "with", "yield":
		return false
	}
	return true
}

// AppendMarshal appends the arguments as marshal data: a dict of the keywords
// if there are any, else a tuple of the positional ones.
func (a Args) AppendMarshal(dst []byte) []byte {
	if len(a.Keywords) > 0 {
		dst = append(dst, '{')
		for _, kw := range a.Keywords {
			dst = appendMarshalText(dst, 'u', kw.Name)
			dst = AppendMarshal(dst, kw.Value)
		}
		return append(dst, '0')
	}
	dst = append(dst, '(')
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(a.Positional)))
	for _, v := range a.Positional {
		dst = AppendMarshal(dst, v)
	}
	return dst
}
