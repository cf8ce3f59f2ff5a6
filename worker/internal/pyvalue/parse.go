package pyvalue

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxBrackets is how deep brackets may nest in a text. CPython's tokenizer
// gives up at 200; the margin is for releases that stop earlier.
const maxBrackets = 150

// SyntaxError says why a text was refused. CPython may still accept it: what
// is rare, or differs between its releases, is refused as well.
type SyntaxError struct {
	// Offset is where in the text, in bytes.
	Offset int
	Msg    string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("parse literal: byte %d: %s", e.Offset, e.Msg)
}

// Parse reads a Python literal: what CPython 3.11's ast.literal_eval makes of
// text, which for these texts is also what eval makes of it. It never accepts
// what CPython rejects and never gives another value. It refuses, with a
// *SyntaxError, everything that is no literal and some that is:
//
//   - backslash at the end of a line outside of a string, `\N{name}`, octal
//     escapes past \377, `(set)()`, characters outside of ASCII that spell a
//     keyword, and a line of only blanks at the end;
//   - brackets nested more than 150 deep;
//   - floats spelled with more than 1,000 characters, and hexadecimal, octal
//     or binary ints with more than 10,000. (Decimal ints past 4,300 digits
//     CPython refuses too.)
func Parse(text string) (Value, error) {
	p := parser{text: text}
	defer p.release()
	v, ok := p.whole()
	if !ok {
		return Value{}, p.syntaxError()
	}
	return v, nil
}

// parser reads one text. Its methods return ok=false after calling fail.
type parser struct {
	text  string
	pos   int
	depth int // open brackets
	builder
	// remark says that there is a comment outside of brackets.
	remark bool
	// failed is set with the first failure, and where it was is in pos.
	failed string
}

func (p *parser) fail(msg string) bool {
	if p.failed == "" {
		p.failed = msg
	}
	return false
}

func (p *parser) syntaxError() *SyntaxError { return &SyntaxError{Offset: p.pos, Msg: p.failed} }

// peek returns the byte at i, 0 at the end: no text that is parsed has a NUL.
func (p *parser) peek(i int) byte {
	if i < len(p.text) {
		return p.text[i]
	}
	return 0
}

// readable refuses what can't be source text at all.
func (p *parser) readable() bool {
	if strings.IndexByte(p.text, 0) >= 0 {
		return p.fail("a NUL character")
	}
	if !utf8.ValidString(p.text) {
		return p.fail("not UTF-8, or a lone surrogate")
	}
	return true
}

// whole reads the text as literal_eval does: one expression, or several with
// commas, on one line as long as no bracket is open.
func (p *parser) whole() (v Value, ok bool) {
	if !p.readable() {
		return v, false
	}
	p.indent()
	for p.emptyLine() {
	}
	if v, _, ok = p.expr(); !ok {
		return v, false
	}
	if p.peek(p.pos) == ',' {
		mark := p.mark()
		p.push(v)
		for p.peek(p.pos) == ',' {
			p.pos++
			p.blanks()
			if c := p.peek(p.pos); c == 0 || c == '\n' || c == '\r' || c == '#' {
				break
			}
			if v, _, ok = p.expr(); !ok {
				return v, false
			}
			p.push(v)
		}
		v = sequence(KindTuple, p.members(mark))
	}
	if p.peek(p.pos) == '#' {
		p.comment()
	}
	if p.newline() {
		for p.emptyLine() {
		}
		start := p.pos
		if p.indent(); p.peek(p.pos) == '#' {
			p.comment()
		} else {
			p.pos = start
		}
	}
	if p.pos < len(p.text) {
		return v, p.fail("unexpected text after the literal")
	}
	return v, true
}

// emptyLine skips a line with nothing but blanks and a comment, if it is
// ended: blanks at the end of a text are indentation to CPython.
func (p *parser) emptyLine() bool {
	start := p.pos
	if p.indent(); p.peek(p.pos) == '#' {
		p.comment()
	}
	if p.newline() {
		return true
	}
	p.pos = start
	return false
}

// indent skips blanks at the start of a line.
func (p *parser) indent() {
	for c := p.peek(p.pos); c == ' ' || c == '\t'; c = p.peek(p.pos) {
		p.pos++
	}
}

// comment skips to the end of the line.
func (p *parser) comment() {
	if p.depth == 0 {
		p.remark = true
	}
	for c := p.peek(p.pos); c != 0 && c != '\n' && c != '\r'; c = p.peek(p.pos) {
		p.pos++
	}
}

// newline skips one line end; a lone \r is one too.
func (p *parser) newline() bool {
	switch p.peek(p.pos) {
	case '\r':
		p.pos++
		if p.peek(p.pos) == '\n' {
			p.pos++
		}
		return true
	case '\n':
		p.pos++
		return true
	}
	return false
}

// blanks skips what may stand between two tokens.
func (p *parser) blanks() {
	for p.pos < len(p.text) {
		switch p.text[p.pos] {
		case ' ', '\t', '\f':
			p.pos++
		case '\n', '\r':
			if p.depth == 0 {
				return
			}
			p.pos++
		case '#':
			if p.depth == 0 {
				return
			}
			p.comment()
		default:
			return
		}
	}
}
