package proctree

import "testing"

func TestDeletedFiles(t *testing.T) {
	const open = `
def file(name, size):
    fd = os.open(dir + "/" + name, os.O_RDWR | os.O_CREAT)
    for _ in range(size >> 20): os.write(fd, bytes(1 << 20))
    return fd
def unlinked(name, size):
    fd = file(name, size)
    os.unlink(dir + "/" + name)
    return fd
`
	for _, c := range []struct {
		name, work string
		mib, files int
	}{
		{"open", `unlinked("a", 8 << 20)`, 8, 1},
		{"two", `unlinked("a", 8 << 20); unlinked("b", 4 << 20)`, 12, 2},
		{"empty", `unlinked("a", 0)`, 0, 1},
		{"without ever a name", `os.open(dir, os.O_TMPFILE | os.O_RDWR)`, 0, 1},
		{"opened twice and inherited", `fd = unlinked("a", 8 << 20); os.dup(fd); child(stay)`, 8, 1},
		{"has a name", `file("a", 8 << 20)`, 0, 0},
		{"has another name", `file("a", 8 << 20); os.rename(dir + "/a", dir + "/b")`, 0, 0},
		{"a pipe, a socket, a directory", `os.pipe(); os.mkdir(dir + "/d"); os.open(dir + "/d", os.O_RDONLY); os.rmdir(dir + "/d")`, 0, 0},
		{"mapped and closed", `m = maps(unlinked("a", 8 << 20)); keep.append(m)`, 8, 1},
		{"mapped, two with holes", `keep.append(maps(unlinked("a", 8 << 20))); keep.append(maps(unlinked("b", 4 << 20)))`, 12, 2},
		{"in a thread's own table", `threading.Thread(target=lambda: (libc.unshare(0x400), unlinked("a", 8 << 20), say("opened"), signal.pause())).start()`, 8, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := plant(t, open+`
keep = []
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
def maps(fd):
    "Map the first page, once to read and once to write, and close."
    for prot in (1, 3):
        if libc.mmap(None, 4096, prot, 1, fd, 0) in (None, 2**64 - 1): raise OSError("mmap")
    os.close(fd)
def work():
    `+c.work+`
    say("ready")
    stay()
child(work)
stay()
`)
			tr.hears(1)
			if c.name == "in a thread's own table" {
				tr.hears(1)
			}
			size, files, err := DeletedFiles(tr.pid)
			// A file system may need a few blocks more than the content.
			if err != nil || files != c.files || size>>20 != int64(c.mib) {
				t.Errorf("got %d bytes, %d files, %v; want %d MiB, %d files", size, files, err, c.mib, c.files)
			}
		})
	}
	t.Run("without the first thread", func(t *testing.T) {
		tr := plant(t, headless)
		waitForHeadless(t, tr)
		if size, files, err := DeletedFiles(tr.pid); err != nil || files != 1 || size>>20 != 8 {
			t.Errorf("got %d bytes, %d files, %v; want 8 MiB, 1 file", size, files, err)
		}
	})
}
