package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// own says in which group of each hierarchy a process is, as
// /proc/<pid>/cgroup has it.
type own struct {
	v2 string            // "" without
	v1 map[string]string // by controller
}

func parseOwn(data []byte) (own, error) {
	o := own{v1: map[string]string{}}
	for line := range bytes.Lines(data) {
		// id:controllers:path; of v2 the id is 0 and there are no controllers
		f := strings.SplitN(strings.TrimSuffix(string(line), "\n"), ":", 3)
		if len(f) != 3 {
			return own{}, fmt.Errorf("unexpected line %q", line)
		}
		if f[0] == "0" && f[1] == "" {
			o.v2 = f[2]
			continue
		}
		for c := range strings.SplitSeq(f[1], ",") {
			o.v1[c] = f[2]
		}
	}
	return o, nil
}

// mount is a mounted hierarchy, or part of one.
type mount struct {
	point, root string
	v2          bool
	controllers []string // of v1
}

// parseMounts finds the cgroup file systems in /proc/<pid>/mountinfo, those
// mounted last first.
func parseMounts(data []byte) []mount {
	var mounts []mount
	for line := range bytes.Lines(data) {
		// id parent dev root point options [tags] - type source superoptions
		before, after, _ := strings.Cut(string(line), " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if len(f) < 6 || len(g) < 3 || g[0] != "cgroup" && g[0] != "cgroup2" {
			continue
		}
		mounts = append(mounts, mount{
			point: unescape(f[4]), root: unescape(f[3]), v2: g[0] == "cgroup2",
			controllers: strings.Split(g[2], ","),
		})
	}
	slices.Reverse(mounts)
	return mounts
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	var b strings.Builder
	for ; s != ""; s = s[1:] {
		if s[0] == '\\' && len(s) >= 4 {
			if c, err := strconv.ParseUint(s[1:4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				s = s[3:]
				continue
			}
		}
		b.WriteByte(s[0])
	}
	return b.String()
}

// dir returns the directory of a group, given as its path in the hierarchy.
func (m mount) dir(path string) (string, error) {
	// A namespace shows what is outside of it as /..
	rel, err := filepath.Rel(m.root, path)
	if err != nil || strings.HasPrefix(path, "/..") || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", fmt.Errorf("own group %s is not within what is mounted on %s (%s)", path, m.point, m.root)
	}
	return filepath.Join(m.point, rel), nil
}

// locate returns the directory of the own group, of v2 or of a v1 controller,
// and where its hierarchy is mounted.
func locate(o own, mounts []mount, controller string) (dir, top string, err error) {
	path, ok := o.v2, o.v2 != ""
	if controller != "" {
		path, ok = o.v1[controller]
	}
	if !ok {
		return "", "", errors.New("the kernel has none")
	}
	err = errors.New("not mounted")
	for _, m := range mounts {
		if m.v2 != (controller == "") || !m.v2 && !slices.Contains(m.controllers, controller) {
			continue
		}
		if dir, err = m.dir(path); err == nil {
			return dir, m.point, nil
		}
	}
	return "", "", err
}

// words are the words of a file, such as cgroup.controllers.
func words(name string) ([]string, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return strings.Fields(string(data)), nil
}
