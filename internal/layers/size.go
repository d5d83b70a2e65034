package layers

import (
	"bufio"
	"context"
	"io"
)

// Unpacked counts the bytes of all layers, uncompressed, by reading them: nothing
// else tells. It reads no further than limit; on an error it gives what it counted.
func Unpacked(ctx context.Context, layers []Layer, limit int64) (int64, error) {
	var total int64
	for _, l := range layers {
		n, err := l.unpacked(ctx, limit-total)
		total += n
		if err != nil || total >= limit {
			return total, err
		}
	}
	return total, nil
}

func (l Layer) unpacked(ctx context.Context, limit int64) (int64, error) {
	rc, err := l.Open()
	if err != nil {
		return 0, err
	}
	defer func() { _ = rc.Close() }()
	r, done, err := decompressor(bufio.NewReaderSize(rc, 1<<20))
	if err != nil {
		return 0, err
	}
	defer done()
	var total int64
	for total < limit {
		if ctx.Err() != nil {
			return total, context.Cause(ctx)
		}
		n, err := io.CopyN(io.Discard, r, min(64<<20, limit-total))
		total += n
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
	return total, nil
}
