package cli

import (
	"time"

	"github.com/bangervm/banger/internal/config"
)

// sizeFlag is a size in bytes, read by parse.
type sizeFlag struct {
	bytes *int64
	text  string
	parse func(string) (int64, error)
}

func memoryFlag(bytes *int64) *sizeFlag { return &sizeFlag{bytes: bytes, parse: config.ParseMemory} }
func diskFlag(bytes *int64) *sizeFlag   { return &sizeFlag{bytes: bytes, parse: config.ParseDisk} }

func (f *sizeFlag) Set(s string) error {
	n, err := f.parse(s)
	if err != nil {
		return err
	}
	*f.bytes, f.text = n, s
	return nil
}
func (f *sizeFlag) String() string { return f.text }
func (f *sizeFlag) Type() string   { return "SIZE" }

// durationFlag is a duration; a bare number is seconds.
type durationFlag struct {
	d    *time.Duration
	text string
}

func (f *durationFlag) Set(s string) error {
	d, err := config.ParseDuration(s)
	if err != nil {
		return err
	}
	*f.d, f.text = d, s
	return nil
}
func (f *durationFlag) String() string { return f.text }
func (f *durationFlag) Type() string   { return "DURATION" }
