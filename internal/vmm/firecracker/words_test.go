package firecracker

import (
	"strings"
	"testing"
)

// What Firecracker says of requests is left out of its log, all else is kept, also
// lines longer than are looked at.
func TestLogWithoutRequests(t *testing.T) {
	t.Parallel()
	const head = "2026-11-27T21:00:00.000000000 [t:fc_api] "
	long := strings.Repeat("x", 3*maxLine)
	kept := []string{
		head + "Running Firecracker v1.12.1",
		head + "Received Error. Status code: 400 Bad Request. Message: no",
		head + "it said: The API server received a blow",
		"The API server received a line that is not the log's",
		head + long,
		"",
		head + "the last line has no end",
	}
	said := []string{
		kept[0],
		head + `The API server received a Put request on "/drives/disk0" with body "{}".`,
		head + "The request was executed successfully. Status code: 204 No Content.",
		head + "The API server received a Put request on " + long,
		kept[1], kept[2],
		head + "'get vm' API request took 40 us.",
		head + "'pause vm' VMM action took 40 us.",
		kept[3], kept[4], kept[5], kept[6],
	}
	var got strings.Builder
	copyLog(&got, strings.NewReader(strings.Join(said, "\n")))
	if want := strings.Join(kept, "\n"); got.String() != want {
		t.Errorf("got\n%.2000s\nwant\n%.2000s", got.String(), want)
	}
}

func FuzzLog(f *testing.F) {
	f.Add("2026-11-27T21:00:00 [t:main] The API server received a Put\nx\n")
	f.Fuzz(func(t *testing.T, s string) {
		var got strings.Builder
		copyLog(&got, strings.NewReader(s))
		if got.Len() > len(s) || !strings.Contains(s, "T") && got.String() != s {
			t.Errorf("%q gives %q", s, got.String())
		}
	})
}
