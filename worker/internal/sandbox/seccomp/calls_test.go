package seccomp

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// constants parses a file of golang.org/x/sys/unix and returns its constants
// whose name begins with prefix, in lower case, without the prefix.
func constants(t *testing.T, file, prefix string) map[string]uint64 {
	t.Helper()
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "golang.org/x/sys/unix").Output()
	if err != nil {
		t.Skipf("the sources of golang.org/x/sys/unix can't be found: go list: %v", err)
	}
	tree, err := parser.ParseFile(token.NewFileSet(), filepath.Join(strings.TrimSpace(string(dir)), file), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]uint64{}
	ast.Inspect(tree, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		name, ok := strings.CutPrefix(spec.Names[0].Name, prefix)
		if literal, isLiteral := spec.Values[0].(*ast.BasicLit); ok && isLiteral {
			if v, err := strconv.ParseUint(literal.Value, 0, 64); err == nil {
				found[strings.ToLower(name)] = v
			}
		}
		return true
	})
	if len(found) < 40 {
		t.Fatalf("%s: only %d constants begin with %s: the test has to follow the file's new form", file, len(found), prefix)
	}
	return found
}

// TestCallsAreComplete fails when golang.org/x/sys/unix knows a call that
// calls.go doesn't.
func TestCallsAreComplete(t *testing.T) {
	for arch, machine := range architectures {
		t.Run(arch, func(t *testing.T) {
			want := constants(t, "zsysnum_linux_"+arch+".go", "SYS_")
			for name, number := range want {
				if number >= uint64(len(machine.calls)) || machine.calls[number] != name {
					t.Errorf("%s, number %d, is missing: put it into calls.go and decide on it in classes.go", name, number)
				}
			}
			for number, name := range machine.calls {
				if got, ok := want[name]; name != "" && (!ok || got != uint64(number)) {
					t.Errorf("%s, number %d, is not in golang.org/x/sys/unix", name, number)
				}
			}
		})
	}
}

// TestEveryCallIsClassified fails when a call has no verdict or two, and when a
// verdict is on a name that is no call.
func TestEveryCallIsClassified(t *testing.T) {
	for _, p := range policies {
		seen := map[string]int{}
		for _, c := range p.classes() {
			for name := range strings.FieldsSeq(c.calls) {
				seen[name]++
			}
		}
		exists := map[string]bool{}
		for arch, machine := range architectures {
			for number, name := range machine.calls {
				if exists[name] = true; name != "" && seen[name] != 1 {
					t.Errorf("%+v: %s (%s, number %d) is in %d classes, want 1", p, name, arch, number, seen[name])
				}
			}
		}
		for name := range seen {
			if !exists[name] {
				t.Errorf("%+v: no architecture has %s", p, name)
			}
		}
		for name := range strings.FieldsSeq(often) {
			if !exists[name] {
				t.Errorf("often: no architecture has %s", name)
			}
		}
	}
}

// TestOptionsOfPrctlAreComplete fails when golang.org/x/sys/unix knows an
// option that the table takes for one of a newer kernel.
func TestOptionsOfPrctlAreComplete(t *testing.T) {
	// Arguments of options, not options, are told by their prefix.
	values := strings.Fields("CAP_AMBIENT_ CFI_ ENDIAN_ FPEMU_ FP_EXC_ FP_MODE_ FUTEX_HASH_ MCE_KILL_ MDWE_ MTE_ PAC_AP PMLEN_ PPC_DEXCR_ " +
		"RISCV_V_VSTATE_ RISCV_CTX_ RISCV_SCOPE_ RSEQ_SLICE_EXT SCHED_CORE_ SET_MM_ SET_VMA_ SHADOW_STACK_ SME_VL_ SPEC_ SVE_VL_ SYS_DISPATCH_ " +
		"TAGGED_ADDR_ TASK_PERF_ THP_ TIMER_CREATE_RESTORE_IDS_ TIMING_ TSC_ UNALIGN_ SME_SET_VL_ONEXEC SVE_SET_VL_ONEXEC")
	// Yama's option is left out on purpose: nothing here may trace.
	apart := map[uint64]string{unix.PR_SET_VMA: "set_vma", unix.PR_GET_AUXV: "get_auxv", 0x59616d61: "set_ptracer"}
	newest := uint64(0)
constants:
	for name, value := range constants(t, "zerrors_linux.go", "PR_") {
		for _, v := range values {
			if strings.HasPrefix(name, strings.ToLower(v)) {
				continue constants
			}
		}
		if apart[value] == name {
			continue
		}
		if newest = max(newest, value); value > newestOption {
			t.Errorf("option %s, %d, is newer than the newest of the table, %d: decide on it", name, value, newestOption)
		}
	}
	if newest != newestOption {
		t.Errorf("the newest option is %d, the table says %d", newest, newestOption)
	}
}
