package ui

import (
	"fmt"
	"strings"
	"time"
)

// Bytes is a size for people, binary: 512M, 1.5G.
func Bytes(n int64) string {
	if n < 0 {
		return "-"
	}
	units := []string{"B", "K", "M", "G", "T", "P"}
	f, i := float64(n), 0
	for f >= 1023.5 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	s := fmt.Sprintf("%.1f", f)
	if f >= 100 || i == 0 {
		s = fmt.Sprintf("%.0f", f)
	}
	return strings.TrimSuffix(s, ".0") + units[i]
}

// Ago is how long before now t was, in one unit: 5s, 12m, 3h, 4d.
func Ago(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return Short(now.Sub(t))
}

// Short is a duration in one unit.
func Short(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// Elapsed is how long something took: 0.4s, 12s, 2m05s.
func Elapsed(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.0fs", d.Seconds())
	}
	d = d.Round(time.Second)
	return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
}
