package procs

import (
	"bufio"
	"fmt"
	"net"
	"reflect"
	"testing"
	"time"
)

// echo answers each line with itself.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for s := bufio.NewScanner(c); s.Scan(); {
					fmt.Fprintln(c, s.Text())
				}
			}()
		}
	}()
	return l.Addr().String()
}

type caller struct {
	net.Conn
	lines *bufio.Reader
}

func call(t *testing.T, l *Link) caller {
	t.Helper()
	c, err := net.Dial("tcp", l.addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return caller{c, bufio.NewReader(c)}
}

// says sends a line and reports whether it came back within a time.
func (c caller) says(line string, within time.Duration) bool {
	fmt.Fprintln(c, line)
	return c.hears(line, within)
}

func (c caller) hears(line string, within time.Duration) bool {
	c.SetReadDeadline(time.Now().Add(within))
	got, err := c.lines.ReadString('\n')
	return err == nil && got == line+"\n"
}

const (
	soon = time.Minute
	// never is long enough to see that nothing comes.
	never = 50 * time.Millisecond
)

func TestLink(t *testing.T) {
	l, err := newLink(echo(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	c := call(t, l)
	if !c.says("one", soon) {
		t.Fatal("nothing comes through")
	}
	l.freeze()
	if c.says("two", never) {
		t.Error("something comes through a frozen link")
	}
	l.heal(false)
	if !c.hears("two", soon) {
		t.Error("what waited on a frozen link was not delivered")
	}
	l.freeze()
	fmt.Fprintln(c, "three")
	l.heal(true)
	if c.hears("three", soon) {
		t.Error("what waited was delivered, though its connection was to be lost")
	}
	c = call(t, l)
	if !c.says("four", soon) {
		t.Fatal("a healed link carries nothing")
	}
	l.sever()
	if c.says("five", soon) || call(t, l).says("six", soon) {
		t.Error("something comes through a severed link")
	}
	l.heal(false)
	if !call(t, l).says("seven", soon) {
		t.Error("a mended link carries nothing")
	}
}

func TestParseCounters(t *testing.T) {
	got := parse([]byte("# HELP a_total x\na_total{kind=\"run\"} 2\na_total{kind=\"e v\"} 1.5\na_total_more 9\nb 4\n"), []string{"a_total", "b", "c"})
	if want := map[string]float64{"a_total": 3.5, "b": 4}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
