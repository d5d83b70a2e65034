package kernel

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// maxConfig bounds a kernel's configuration, in bytes.
const maxConfig = 4 << 20

// config is what a kernel was built with: y, m, or a value, by option without
// its CONFIG_.
type config map[string]string

// parseConfig reads lines of CONFIG_X=value; all others are comments.
func parseConfig(r io.Reader) (config, error) {
	c := config{}
	sc := bufio.NewScanner(io.LimitReader(r, maxConfig))
	sc.Buffer(nil, 64<<10)
	for sc.Scan() {
		k, v, ok := strings.Cut(sc.Text(), "=")
		if name, is := strings.CutPrefix(k, "CONFIG_"); ok && is {
			c[name] = v
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("kernel configuration: %w", err)
	}
	if len(c) == 0 {
		return nil, fmt.Errorf("kernel configuration: it sets nothing")
	}
	return c, nil
}

// The configuration that a kernel may carry (IKCONFIG, kernel/configs.c) lies
// between these, compressed.
const configStart = "IKCFG_ST"

// parseEmbedded reads a configuration out of a kernel, from behind configStart.
func parseEmbedded(r io.Reader) (config, error) {
	z, err := gzip.NewReader(bufio.NewReader(r))
	if err != nil {
		return nil, fmt.Errorf("kernel configuration: %w", err)
	}
	z.Multistream(false)
	b, err := io.ReadAll(io.LimitReader(z, maxConfig))
	if err != nil {
		return nil, fmt.Errorf("kernel configuration: %w", err)
	}
	return parseConfig(bytes.NewReader(b))
}
