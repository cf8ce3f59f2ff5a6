package redteam

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// Result is what an attack came to.
type Result string

// The results.
const (
	Held       Result = "held"
	GotThrough Result = "got through"
	NotHere    Result = "not applicable here"
	// Broken: the attack did not do what the table says, and proves nothing.
	Broken Result = "broken"
)

// Outcome is what came of one attack.
type Outcome struct {
	Attack string `json:"attack"`
	Family Family `json:"family"`
	Does   string `json:"does"`
	Result Result `json:"result"`
	// Seen is what got through; Why the reason for what is neither.
	Seen []string `json:"seen,omitempty"`
	Why  string   `json:"why,omitempty"`
	// Unmarked are the integrity marks that its results should have carried.
	Unmarked []string `json:"unmarked,omitempty"`
	// TookMillis is the attack's time, NextMillis that of the next submissions.
	TookMillis int64 `json:"took_ms"`
	NextMillis int64 `json:"next_ms"`
}

// Score is the outcome of a campaign.
type Score struct {
	Environment string    `json:"environment"`
	Isolation   string    `json:"isolation"`
	Attacks     int       `json:"attacks"`
	Through     int       `json:"got_through"`
	NotHere     int       `json:"not_applicable"`
	Unmarked    int       `json:"unmarked"`
	Outcomes    []Outcome `json:"outcomes"`
}

// NewScore adds outcomes up. Those that did not apply are no attacks.
func NewScore(environment, isolation string, outcomes []Outcome) Score {
	s := Score{Environment: environment, Isolation: isolation, Outcomes: outcomes}
	for _, o := range outcomes {
		switch o.Result {
		case NotHere:
			s.NotHere++
			continue
		case GotThrough:
			s.Through++
		}
		s.Attacks++
		if len(o.Unmarked) > 0 {
			s.Unmarked++
		}
	}
	return s
}

// String is the score in a line.
func (s Score) String() string {
	line := fmt.Sprintf("red team: %d attacks in environment %s, %d got through", s.Attacks, s.Environment, s.Through)
	if s.NotHere > 0 {
		line += fmt.Sprintf(", %d not applicable", s.NotHere)
	}
	return line
}

// Table writes the outcomes by family.
func (s Score) Table(w io.Writer) {
	fmt.Fprintf(w, "isolation: %s\n", s.Isolation)
	for _, family := range []Family{Forge, Escape} {
		n, through := 0, 0
		for _, o := range s.Outcomes {
			if o.Family == family && o.Result != NotHere {
				n++
				if o.Result == GotThrough {
					through++
				}
			}
		}
		fmt.Fprintf(w, "%s: %d attacks, %d got through\n", family, n, through)
		for _, o := range s.Outcomes {
			if o.Family != family {
				continue
			}
			fmt.Fprintf(w, "  %-19s  %-34s %6d ms, then %5d ms  %s\n", o.Result, o.Attack, o.TookMillis, o.NextMillis, o.Does)
			for _, seen := range o.Seen {
				fmt.Fprintf(w, "      %s\n", seen)
			}
			if o.Why != "" {
				fmt.Fprintf(w, "      %s\n", o.Why)
			}
			if len(o.Unmarked) > 0 {
				fmt.Fprintf(w, "      without the mark %s\n", strings.Join(o.Unmarked, ", "))
			}
		}
	}
}

// Save writes the score as JSON.
func (s Score) Save(path string) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encode score: %w", err)
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}
