package pyvalue

import "unsafe"

// form tells what arithmetic an operand may take part in: literal_eval allows
// a sign before a number, and `real + imaginary`, nothing else.
type form uint8

const (
	formOther  form = iota
	formSigned      // an int, float or complex with a sign
	formNumber      // one without
)

// expr reads one expression without commas and the blanks after it.
func (p *parser) expr() (v Value, f form, ok bool) {
	sign := p.peek(p.pos)
	if sign == '-' || sign == '+' {
		p.pos++
		p.blanks()
	}
	if v, f, ok = p.atom(); !ok {
		return v, f, false
	}
	if sign == '-' || sign == '+' {
		if f != formNumber {
			return v, f, p.fail("a sign before what is not a number")
		}
		f = formSigned
		if sign == '-' {
			v = negate(v)
		}
	}
	p.blanks()
	op := p.peek(p.pos)
	if op != '+' && op != '-' {
		return v, f, true
	}
	if f == formOther || v.kind == KindComplex {
		return v, f, p.fail("arithmetic other than real + imaginary")
	}
	p.pos++
	p.blanks()
	w, g, ok := p.atom()
	if !ok {
		return v, f, false
	}
	if g != formNumber || w.kind != KindComplex {
		return v, f, p.fail("arithmetic other than real + imaginary")
	}
	if v, ok = addImaginary(v, op, w); !ok {
		return v, f, p.fail("an int too large for a complex number")
	}
	p.blanks()
	return v, formOther, true
}

// atom reads an expression that no operator is part of, brackets aside.
func (p *parser) atom() (v Value, f form, ok bool) {
	switch c := p.peek(p.pos); c {
	case '[':
		items, ok := p.list(']')
		if !ok {
			return v, formOther, false
		}
		return sequence(KindList, items), formOther, true
	case '(':
		return p.paren()
	case '{':
		v, ok = p.brace()
		return v, formOther, ok
	case '"', '\'':
		v, ok = p.strings()
		return v, formOther, ok
	case '.':
		if p.peek(p.pos+1) == '.' && p.peek(p.pos+2) == '.' {
			p.pos += 3
			return Ellipsis(), formOther, true
		}
		v, ok = p.number()
		return v, formNumber, ok
	case '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		v, ok = p.number()
		return v, formNumber, ok
	default:
		v, ok = p.word()
		return v, formOther, ok
	}
}

// word reads a constant with a name, set(), or a string with a prefix.
func (p *parser) word() (v Value, ok bool) {
	if n, _, _ := p.prefix(); n > 0 {
		return p.strings()
	}
	start := p.pos
	for isWord(p.peek(p.pos)) {
		p.pos++
	}
	switch p.text[start:p.pos] {
	case "None":
		return None(), true
	case "True":
		return Bool(true), true
	case "False":
		return Bool(false), true
	case "set":
		p.blanks()
		if p.peek(p.pos) == '(' && p.open() {
			if p.peek(p.pos) == ')' {
				p.close()
				return Value{kind: KindSet, p: unsafe.Pointer(&emptyTable)}, true
			}
		}
	case "":
		if start == len(p.text) {
			return v, p.fail("the text ends where a literal should be")
		}
	}
	p.pos = start
	return v, p.fail("not a literal")
}

// isWord reports whether c can be in a name or, outside of ASCII, might be.
func isWord(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c >= 0x80
}

// open enters the bracket at pos and skips blanks.
func (p *parser) open() bool {
	if p.depth == maxBrackets {
		return p.fail("brackets nested too deeply")
	}
	p.depth++
	p.pos++
	p.blanks()
	return true
}

// close leaves the bracket at pos.
func (p *parser) close() {
	p.depth--
	p.pos++
}

// members returns the values from mark on, of a bracket that is closed.
func (p *parser) members(mark int) []Value {
	return p.pop(mark, (len(p.text)-p.pos)/4) // a value takes some 4 bytes of text
}

// list reads a bracket of expressions with commas, up to its end.
func (p *parser) list(end byte) (items []Value, ok bool) {
	if !p.open() {
		return nil, false
	}
	mark := p.mark()
	for p.peek(p.pos) != end {
		v, _, ok := p.expr()
		if !ok {
			return nil, false
		}
		p.push(v)
		if !p.comma(end) {
			return nil, false
		}
	}
	p.close()
	return p.members(mark), true
}

// comma skips a comma; there need not be one before end.
func (p *parser) comma(end byte) bool {
	c := p.peek(p.pos)
	if c == ',' {
		p.pos++
		p.blanks()
		return true
	}
	return c == end || p.fail("expected a comma or the end of the bracket")
}

// paren reads a tuple, or an expression in parentheses.
func (p *parser) paren() (v Value, f form, ok bool) {
	if !p.open() {
		return v, f, false
	}
	if p.peek(p.pos) == ')' {
		p.close()
		return sequence(KindTuple, nil), formOther, true
	}
	if v, f, ok = p.expr(); !ok {
		return v, f, false
	}
	if p.peek(p.pos) == ')' {
		p.close()
		return v, f, true
	}
	mark := p.mark()
	p.push(v)
	if !p.comma(0) {
		return v, f, false
	}
	for p.peek(p.pos) != ')' {
		if v, _, ok = p.expr(); !ok {
			return v, f, false
		}
		p.push(v)
		if !p.comma(')') {
			return v, f, false
		}
	}
	p.close()
	return sequence(KindTuple, p.members(mark)), formOther, true
}

// brace reads a set or a dict.
func (p *parser) brace() (v Value, ok bool) {
	if !p.open() {
		return v, false
	}
	mark := p.mark()
	kind := KindDict // as long as it is empty
	for p.peek(p.pos) != '}' {
		if v, _, ok = p.expr(); !ok {
			return v, false
		}
		if p.mark() == mark && p.peek(p.pos) != ':' {
			kind = KindSet
		}
		p.push(v)
		if kind == KindDict {
			if p.peek(p.pos) != ':' {
				return v, p.fail("expected a colon")
			}
			p.pos++
			p.blanks()
			if v, _, ok = p.expr(); !ok {
				return v, false
			}
			p.push(v)
		}
		if !p.comma('}') {
			return v, false
		}
	}
	p.close()
	v, err := collection(kind, p.members(mark))
	if err != nil {
		return v, p.fail("unhashable member of a set or key of a dict")
	}
	return v, true
}
