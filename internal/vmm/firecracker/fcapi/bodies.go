package fcapi

// MachineConfig is the body of PUT /machine-config.
type MachineConfig struct {
	VCPUs     int   `json:"vcpu_count"`
	MemoryMiB int64 `json:"mem_size_mib"`
	SMT       bool  `json:"smt"`
}

// BootSource is the body of PUT /boot-source.
type BootSource struct {
	Kernel   string `json:"kernel_image_path"`
	Initrd   string `json:"initrd_path,omitempty"`
	BootArgs string `json:"boot_args"`
}

// Drive is the body of PUT /drives/ID.
type Drive struct {
	ID       string `json:"drive_id"`
	Path     string `json:"path_on_host"`
	Root     bool   `json:"is_root_device"`
	ReadOnly bool   `json:"is_read_only"`
	Cache    string `json:"cache_type"` // Writeback: what the guest flushes is flushed; Unsafe: it is not
	// RateLimiter holds for reads and writes together; nil is none.
	RateLimiter *RateLimiter `json:"rate_limiter,omitempty"`
}

// RateLimiter bounds bytes and operations; nil is no bound.
type RateLimiter struct {
	Bandwidth *TokenBucket `json:"bandwidth,omitempty"`
	Ops       *TokenBucket `json:"ops,omitempty"`
}

// TokenBucket holds so many bytes or operations, and is full again after the time.
type TokenBucket struct {
	Size     int64 `json:"size"`
	RefillMS int64 `json:"refill_time"`
}

// DriveUpdate is the body of PATCH /drives/ID: the file is opened anew.
type DriveUpdate struct {
	ID   string `json:"drive_id"`
	Path string `json:"path_on_host"`
}

// NetworkInterface is the body of PUT /network-interfaces/ID.
type NetworkInterface struct {
	ID  string `json:"iface_id"`
	Tap string `json:"host_dev_name"`
	MAC string `json:"guest_mac,omitempty"`
	MTU int    `json:"mtu,omitempty"` // since 1.16
}

// Vsock is the body of PUT /vsock.
type Vsock struct {
	CID    int    `json:"guest_cid"`
	Socket string `json:"uds_path"`
}

// Balloon is the body of PUT /balloon.
type Balloon struct {
	AmountMiB    int64 `json:"amount_mib"`
	DeflateOnOOM bool  `json:"deflate_on_oom"`
	StatsEvery   int   `json:"stats_polling_interval_s"`      // 0: never
	Reporting    bool  `json:"free_page_reporting,omitempty"` // since 1.14: freed memory goes back by itself
}

// Entropy is the body of PUT /entropy.
type Entropy struct{}

// Metrics is the body of PUT /metrics.
type Metrics struct {
	Path string `json:"metrics_path"`
}

// Action is the body of PUT /actions.
type Action struct {
	Type string `json:"action_type"`
}

// The actions.
const (
	InstanceStart  = "InstanceStart"
	SendCtrlAltDel = "SendCtrlAltDel"
)

// VM is the body of PATCH /vm.
type VM struct {
	State string `json:"state"`
}

// The states.
const (
	Paused  = "Paused"
	Resumed = "Resumed"
)
