package keeper

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	memoryEvery = 10 * time.Second
	// busyBytes allocated since the last look mean that the keeper works.
	busyBytes = 4 << 20
	// worthBytes is what the heap must hold for nothing to bother.
	worthBytes = 1 << 20
)

// giveMemoryBack returns what traffic left in the heap to the host once the
// traffic is over. A hundred keepers are idle most of the time.
func giveMemoryBack(ctx context.Context) {
	t := time.NewTimer(2 * time.Second) // the first time soon after the start
	defer t.Stop()
	samples := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/gc/heap/live:bytes"},
	}
	var before uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		t.Reset(memoryEvery)
		metrics.Read(samples)
		allocated := samples[0].Value.Uint64()
		idle := samples[1].Value.Uint64() + samples[2].Value.Uint64()
		if objects, live := samples[3].Value.Uint64(), samples[4].Value.Uint64(); objects > live {
			idle += objects - live
		}
		if allocated-before < busyBytes && idle > worthBytes {
			debug.FreeOSMemory()
			metrics.Read(samples)
			allocated = samples[0].Value.Uint64()
		}
		before = allocated
	}
}
