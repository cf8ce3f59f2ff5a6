package landlock

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDescribe(t *testing.T) {
	p := Policy{
		ReadExecute:    []string{"/usr", "/lib32"},
		ReadOnly:       []string{"/etc"},
		ReadWrite:      []string{"/srv/sessions"},
		ReadWriteFiles: []string{"/dev/null"},
		Optional:       []string{"/lib32"},
		MinABI:         1,
	}
	const paths = " read+execute /usr /lib32?; read /etc; all /srv/sessions; read+write files /dev/null; all other files refused"
	cases := []struct {
		name   string
		policy Policy
		abi    int
		want   string
	}{
		{"newest", p, 10, "landlock ABI 10:" + paths + ", truncate refused, TCP refused, device ioctl refused, signals to outside refused, abstract sockets to outside refused, unix sockets to outside refused, UDP refused"},
		{"of Linux 6.18", p, 7, "landlock ABI 7:" + paths + ", truncate refused, TCP refused, device ioctl refused, signals to outside refused, abstract sockets to outside refused; not covered: unix sockets (ABI 9), UDP (ABI 10)"},
		{"of Linux 6.1", p, 2, "landlock ABI 2:" + paths + "; not covered: truncate (ABI 3), TCP (ABI 4), device ioctl (ABI 5), signals (ABI 6), abstract sockets (ABI 6), unix sockets (ABI 9), UDP (ABI 10)"},
		{"first", p, 1, "landlock ABI 1:" + paths + ", every rename between directories refused; not covered: truncate (ABI 3), TCP (ABI 4), device ioctl (ABI 5), signals (ABI 6), abstract sockets (ABI 6), unix sockets (ABI 9), UDP (ABI 10)"},
		{"too old", Policy{}, 5, "landlock: not in force: the kernel has ABI 5, the policy needs 6"},
		{"nothing allowed", Policy{}, 6, "landlock ABI 6: all other files refused, truncate refused, TCP refused, device ioctl refused, signals to outside refused, abstract sockets to outside refused; not covered: unix sockets (ABI 9), UDP (ABI 10)"},
	}
	for _, c := range cases {
		if got := c.policy.describe(c.abi); got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, got, c.want)
		}
	}
	if abi, err := ABI(); err == nil {
		if got := p.String(); got != p.describe(abi) {
			t.Errorf("String is %s", got)
		}
	}
}

// TestBest holds the table against the numbers of the kernel's header.
func TestBest(t *testing.T) {
	cases := []struct {
		abi  int
		want Access
	}{
		{-1, Access{}},
		{0, Access{}},
		{1, Access{FS: 1<<13 - 1}},
		{2, Access{FS: 1<<14 - 1}},
		{3, Access{FS: 1<<15 - 1}},
		{4, Access{FS: 1<<15 - 1, Net: 3}},
		{5, Access{FS: 1<<16 - 1, Net: 3}},
		{6, Access{FS: 1<<16 - 1, Net: 3, Scoped: 3}},
		{7, Access{FS: 1<<16 - 1, Net: 3, Scoped: 3}},
		{8, Access{FS: 1<<16 - 1, Net: 3, Scoped: 3}},
		{9, Access{FS: 1<<17 - 1, Net: 3, Scoped: 3}},
		{10, Access{FS: 1<<17 - 1, Net: 15, Scoped: 3}},
		{99, Access{FS: 1<<17 - 1, Net: 15, Scoped: 3}},
	}
	for _, c := range cases {
		if got := Best(c.abi); got != c.want {
			t.Errorf("ABI %d: %x, want %x", c.abi, got, c.want)
		}
	}
}

// TestKernelTakesEachVersion makes a ruleset of each version that the kernel
// knows, and sees it refuse the next one's.
func TestKernelTakesEachVersion(t *testing.T) {
	need(t, 1)
	abi, _ := ABI()
	p := Runtime().Writable(t.TempDir())
	for v := 1; v <= Newest; v++ {
		h, err := p.hold("", Best(v))
		if err != nil {
			t.Fatal(err)
		}
		fd, err := h.Ruleset()
		switch {
		case err == nil:
			unix.Close(fd)
			if v > abi && Best(v) != Best(abi) {
				t.Errorf("ABI %d: taken by a kernel with %d", v, abi)
			}
		case v <= abi:
			t.Errorf("ABI %d: %v", v, err)
		}
		h.Close()
	}
}

func TestRulesetErrors(t *testing.T) {
	need(t, 1)
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name   string
		policy Policy
		is     error
		says   string
	}{
		{"missing", Policy{ReadOnly: []string{"/no/such"}}, unix.ENOENT, "open /no/such of ReadOnly"},
		{"missing, another is optional", Policy{ReadOnly: []string{"/no/such", "/no/more"}, Optional: []string{"/no/more"}}, unix.ENOENT, "/no/such"},
		{"missing, optional", Policy{ReadOnly: []string{"/no/such"}, Optional: []string{"/no/such"}}, nil, ""},
		{"relative", Policy{ReadExecute: []string{"usr"}}, nil, `ReadExecute has the path "usr": give an absolute path`},
		{"empty", Policy{ReadWrite: []string{""}}, nil, `ReadWrite has the path ""`},
		{"not clean", Policy{ReadOnly: []string{"/usr/../root"}}, nil, `"/usr/../root"`},
		{"optional of no list", Policy{Optional: []string{"/usr"}}, nil, `Optional has the path "/usr", which no other list has`},
		{"version unknown", Policy{MinABI: 11}, nil, "MinABI is 11: give 1 to 10"},
		{"file as tree", Policy{ReadWrite: []string{file}}, unix.ENOTDIR, "put a file in ReadWriteFiles"},
		{"link as tree", Policy{ReadWrite: []string{link}}, unix.ENOTDIR, "links resolved"},
		{"tree as file", Policy{ReadWriteFiles: []string{dir}}, unix.EISDIR, "put it in ReadWrite"},
		{"file to read", Policy{ReadOnly: []string{file}, ReadExecute: []string{file}}, nil, ""},
		{"link to read", Policy{ReadOnly: []string{link}}, nil, ""},
		{"nothing", Policy{}, nil, ""},
	}
	for _, c := range cases {
		if c.policy.MinABI == 0 {
			c.policy.MinABI = 1
		}
		fd, err := c.policy.Ruleset()
		if err == nil {
			unix.Close(fd)
		}
		switch {
		case c.says == "":
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		case err == nil || !strings.Contains(err.Error(), c.says) || c.is != nil && !errors.Is(err, c.is):
			t.Errorf("%s: %v, want %v with %q", c.name, err, c.is, c.says)
		case fd != -1:
			t.Errorf("%s: descriptor %d", c.name, fd)
		}
	}
	// The same rules for directories that come later.
	h := hold(t, Policy{MinABI: 1})
	for _, dir := range []string{"relative", "/no/such", file, link} {
		if fd, err := h.Ruleset(dir); err == nil || fd != -1 {
			t.Errorf("held, %s: %d, %v", dir, fd, err)
		}
	}
}

func TestPolicyAsksForMoreThanTheKernelHas(t *testing.T) {
	need(t, 1)
	abi, _ := ABI()
	if abi >= Newest {
		t.Skip("the kernel has all that can be asked for")
	}
	_, err := Policy{MinABI: abi + 1}.Ruleset()
	if !errors.Is(err, ErrUnavailable) {
		t.Errorf("error %v", err)
	}
}

func TestNoDescriptorsAreLeft(t *testing.T) {
	need(t, 6)
	count := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	before := count()
	good := Runtime().Writable(t.TempDir())
	bad := good.Writable("/no/such")
	for range 20 {
		fd, err := good.Ruleset()
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		if _, err := bad.Ruleset(); err == nil {
			t.Fatal("no error")
		}
		h := hold(t, good)
		if fd, err = h.Ruleset(good.ReadWrite...); err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		if _, err := h.Ruleset("/no/such"); err == nil {
			t.Fatal("no error")
		}
		h.Close()
	}
	if after := count(); after > before+2 {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestRuntime(t *testing.T) {
	top := t.TempDir()
	prefix := filepath.Join(top, "python")
	if err := os.MkdirAll(filepath.Join(prefix, "lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(prefix, filepath.Join(top, "link")); err != nil {
		t.Fatal(err)
	}
	system := Runtime().ReadExecute
	if !slices.Contains(system, "/usr") {
		t.Errorf("system: %v", system)
	}
	cases := []struct {
		name string
		args []string
		more []string
	}{
		{"inside the system", []string{"/usr/bin", "/usr"}, nil},
		{"missing", []string{filepath.Join(top, "none"), filepath.Join(prefix, "lib.zip")}, nil},
		{"a prefix and what is in it", []string{prefix, filepath.Join(prefix, "lib")}, []string{prefix}},
		{"the inner one first", []string{filepath.Join(prefix, "lib"), prefix}, []string{prefix}},
		{"a link", []string{filepath.Join(top, "link", "lib")}, []string{filepath.Join(prefix, "lib")}},
	}
	for _, c := range cases {
		if got, want := Runtime(c.args...).ReadExecute, slices.Concat(system, c.more); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", c.name, got, want)
		}
	}
	// A name that begins like another is not beneath it.
	sibling := prefix + "3"
	if err := os.Mkdir(sibling, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := Runtime(prefix, sibling).ReadExecute; !slices.Contains(got, sibling) {
		t.Errorf("sibling left out: %v", got)
	}
}

// A policy goes from the worker to a launcher as JSON.
func TestPolicyAsJSON(t *testing.T) {
	p := Policy{ReadExecute: []string{"/a"}, ReadOnly: []string{"/b"}, ReadWrite: []string{"/c"}, ReadWriteFiles: []string{"/d"}, Optional: []string{"/a"}, MinABI: 3}
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var got Policy
	if err := json.Unmarshal(data, &got); err != nil || !reflect.DeepEqual(got, p) {
		t.Errorf("%+v, %v from %s", got, err, data)
	}
}

// A copy for a session must not change the policy it comes from.
func TestWritableIsACopy(t *testing.T) {
	p := Runtime().Writable("/a")
	dirs := []string{"/b"}
	q := p.Writable(dirs...)
	dirs[0] = "/c"
	if p.ReadWrite[0] != "/a" || q.ReadWrite[0] != "/b" {
		t.Errorf("%v, %v", p.ReadWrite, q.ReadWrite)
	}
}
