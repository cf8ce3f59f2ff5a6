package sandbox

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// countTasks counts the threads of a user, as RLIMIT_NPROC does.
func countTasks(uid int) (int, error) {
	statuses, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		return 0, err
	}
	total := 0
	for _, name := range statuses {
		data, err := os.ReadFile(name)
		if err != nil {
			continue // it ended
		}
		var owner, threads int
		for sc := bufio.NewScanner(bytes.NewReader(data)); sc.Scan(); {
			fmt.Sscanf(sc.Text(), "Uid:\t%d", &owner)
			fmt.Sscanf(sc.Text(), "Threads:\t%d", &threads)
		}
		if owner == uid {
			total += threads
		}
	}
	return total, nil
}
