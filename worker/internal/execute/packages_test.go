package execute

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestLargePackage(t *testing.T) {
	has := []string{"numpy", "pandas"}
	tests := []struct{ code, want string }{
		{"import numpy as np", "numpy"},
		{"x = 1\n    from numpy.linalg import norm", "numpy"},
		{"import os, numpy", "numpy"},
		{"import scipy.stats", "numpy"},
		{"import numpy\nimport pandas as pd", "pandas"},
		{"from pandas import DataFrame", "pandas"},
		{"# like numpy\nx = 'import numpy'", ""},
		{"import numpyro", ""},
		{"import os # not numpy", ""},
		{"from mine import numpy_like", ""},
		{"", ""},
	}
	for _, tt := range tests {
		if got := largePackage(tt.code, has); got != tt.want {
			t.Errorf("%q wants %q, want %q", tt.code, got, tt.want)
		}
		if got := largePackage(tt.code, nil); got != "" {
			t.Errorf("%q wants %q of an interpreter that has nothing", tt.code, got)
		}
	}
}

func TestLargePackagesAreLoadedAhead(t *testing.T) {
	s, at := newSlot(t)
	if !slices.Contains(s.cfg.Python.Has, "numpy") {
		t.Skip("the interpreter has no numpy")
	}
	const first = "import sys\nahead = 'numpy' in sys.modules\n"
	tests := []struct{ code, want string }{
		{first + "def f(x):\n    return ahead", "False"},
		{first + "import numpy\ndef f(x):\n    return ahead and int(numpy.arange(x + 1).sum()) == 1", "True"},
		{first + "def f(x):\n    return ahead", "False"},
	}
	for _, tt := range tests {
		if a := evaluate(t, s, at, tt.code, nil, "x=1", tt.want); !a.Passed {
			t.Errorf("%q: %+v", tt.code, a)
		}
		s.Ready()
	}
	large := s.more["numpy"]
	if large == nil {
		t.Fatal("no fork server with numpy")
	}
	// It is lost, as any, with what a job did to it.
	unix.Kill(large.server.Pid(), unix.SIGKILL)
	if a := evaluate(t, s, at, "import numpy\ndef f(x): return x", nil, "x=1", "1"); !a.Passed {
		t.Errorf("after the loss: %+v", a)
	}
	large.used = time.Now().Add(-2 * engineIdle)
	evaluate(t, s, at, "def f(x): return x", nil, "x=1", "1")
	s.Ready()
	if len(s.more) != 0 {
		t.Error("the fork server with numpy is kept unused")
	}
}

// Numbers at random must differ from job to job, although all come from one
// process.
func TestRandomNumbersDiffer(t *testing.T) {
	s, at := newSlot(t)
	codes := []string{"import random\ndef f(x): return random.random()", "import tempfile, random\ndef f(x): return random.choice(range(10**12))"}
	if slices.Contains(s.cfg.Python.Has, "numpy") {
		codes = append(codes, "import numpy as np\ndef f(x): return float(np.random.rand())", "import numpy as np\ndef f(x): return float(np.random.default_rng().random())")
	}
	for _, code := range codes {
		seen := map[string]bool{}
		for range 3 {
			a := evaluate(t, s, at, code, nil, "x=1", "0")
			seen[fmt.Sprint(a.Cases[0].Got)] = true
		}
		if len(seen) != 3 {
			t.Errorf("%q gave %v", code, seen)
		}
	}
}
