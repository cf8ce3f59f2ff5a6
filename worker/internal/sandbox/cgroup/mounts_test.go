package cgroup

import (
	"strings"
	"testing"
)

func TestLocate(t *testing.T) {
	const hybrid = `30 23 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:10 - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/memory rw,nosuid shared:11 - cgroup cgroup rw,memory
`
	const hybridOwn = "5:memory:/user.slice\n4:cpu,cpuacct:/\n1:name=systemd:/user.slice/a.scope\n0::/user.slice/a.scope\n"
	for _, c := range []struct {
		name, own, mounts, controller string
		want, wrong                   string
	}{
		{"v2", "0::/system.slice/w.service\n", "24 23 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "", "/sys/fs/cgroup/system.slice/w.service", ""},
		{"v2 in a namespace", "0::/\n", "24 23 0:22 / /sys/fs/cgroup ro - cgroup2 cgroup ro\n", "", "/sys/fs/cgroup", ""},
		{"v2 outside of the namespace", "0::/../other\n", "24 23 0:22 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "", "", "not within"},
		{"v1", hybridOwn, hybrid, "memory", "/sys/fs/cgroup/memory/user.slice", ""},
		{"v1 of several controllers", hybridOwn, hybrid, "cpuacct", "/sys/fs/cgroup/cpu,cpuacct", ""},
		{"v2 beside v1", hybridOwn, hybrid, "", "/sys/fs/cgroup/unified/user.slice/a.scope", ""},
		{"no such controller", hybridOwn, hybrid, "pids", "", "the kernel has none"},
		{"not mounted", "8:pids:/\n", hybrid, "pids", "", "not mounted"},
		{"part of a v1 hierarchy", "5:memory:/docker/abc/x\n", "33 30 0:29 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n", "memory", "/sys/fs/cgroup/memory/x", ""},
		{"another part", "5:memory:/docker/abcd\n", "33 30 0:29 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n", "memory", "", "not within"},
		{"mounted over", "0::/\n", "24 23 0:22 / /one rw - cgroup2 cgroup2 rw\n25 23 0:22 / /two rw - cgroup2 cgroup2 rw\n", "", "/two", ""},
		{"mounted twice", "5:memory:/a\n", "33 30 0:29 /a /one rw - cgroup cgroup rw,memory\n34 30 0:29 /b /two rw - cgroup cgroup rw,memory\n", "memory", "/one", ""},
		{"name with a blank", "0::/\n", `24 23 0:22 / /my\040groups rw - cgroup2 cgroup2 rw` + "\n", "", "/my groups", ""},
		{"path with a colon", "0::/a:b\n", "24 23 0:22 / /c rw - cgroup2 cgroup2 rw\n", "", "/c/a:b", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, err := parseOwn([]byte(c.own))
			if err != nil {
				t.Fatal(err)
			}
			dir, _, err := locate(o, parseMounts([]byte(c.mounts)), c.controller)
			if dir != c.want || (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
				t.Errorf("got %q, %v; want %q, %q", dir, err, c.want, c.wrong)
			}
		})
	}
	if _, err := parseOwn([]byte("nonsense\n")); err == nil {
		t.Error("nonsense is taken")
	}
}
