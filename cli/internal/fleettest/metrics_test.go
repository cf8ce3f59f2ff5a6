package fleettest

import (
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// Every metric of a fleet that has done something has a sound name and help.
func TestMetricsAreSound(t *testing.T) {
	f := newFleet(t, 1, 1)
	id := "metrics"
	for _, req := range []struct {
		path string
		body map[string]any
	}{
		{"/write_file", map[string]any{"id": id, "rel_path": "a", "content": "x"}},
		{"/run", map[string]any{"id": id, "cmd": "true"}},
		{"/evaluate_code", map[string]any{"id": "none", "code": "f = abs", "entry_point": "f", "io_cases": []any{map[string]string{"input": "-1", "output": "1"}}}},
	} {
		if status, answer, err := post(f.client, f.urls[0]+req.path, req.body); status != 200 {
			t.Fatalf("%s: %d %s %v", req.path, status, answer, err)
		}
	}
	names := map[string]bool{}
	for _, r := range f.registries {
		problems, err := testutil.GatherAndLint(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, fam := range families {
			names[fam.GetName()] = true
			if !strings.HasPrefix(fam.GetName(), "gradefleet_") {
				t.Errorf("%s doesn't begin with gradefleet_", fam.GetName())
			}
			for _, m := range fam.GetMetric() {
				for _, l := range m.GetLabel() {
					if !boundedLabels.MatchString(l.GetName()) {
						t.Errorf("%s has a label %s, which may take any number of values", fam.GetName(), l.GetName())
					}
				}
			}
		}
	}
	for _, want := range []string{
		"gradefleet_integrity_marks_total", "gradefleet_isolation_info", "gradefleet_isolation_layer",
		"gradefleet_http_requests_total", "gradefleet_http_request_seconds", "gradefleet_queue_depth", "gradefleet_jobs_waiting", "gradefleet_backlog_turns_total", "gradefleet_backlog_feeder", "gradefleet_queue_wait_seconds",
		"gradefleet_jobs_ended_total", "gradefleet_worker_jobs_total", "gradefleet_cases_total", "gradefleet_execution_seconds", "gradefleet_slots",
		"gradefleet_slots_busy", "gradefleet_fork_server_restarts_total", "gradefleet_sessions", "gradefleet_session_bytes", "gradefleet_workers_live",
		"gradefleet_redeliveries_total", "gradefleet_session_quota_bytes", "gradefleet_session_largest_bytes", "gradefleet_data_free_bytes", "gradefleet_data_size_bytes",
		"gradefleet_session_failovers_total", "gradefleet_stored_bytes_total", "gradefleet_store_seconds", "gradefleet_journal_load_seconds",
		"gradefleet_session_restore_seconds", "gradefleet_session_restored_bytes_total", "gradefleet_session_scan_seconds",
		"gradefleet_collected_blobs_total", "gradefleet_expired_sessions_total",
	} {
		if !names[want] {
			t.Errorf("no metric %s", want)
		}
	}
}

var boundedLabels = regexp.MustCompile(`^(kind|outcome|status|route|method|queue|build|caller|mark|level|layer)$`)
