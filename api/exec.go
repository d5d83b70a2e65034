package api

// Exec asks for one command in a running VM. Over the WebSocket it is the first
// message, as text; all later messages are binary, see Channel.
type Exec struct {
	Argv    []string `json:"argv"` // empty: the user's login shell
	Env     []string `json:"env,omitempty"`
	Workdir string   `json:"workdir,omitempty"`
	User    string   `json:"user,omitempty"` // name, id, or either with :group
	TTY     bool     `json:"tty,omitempty"`
	Rows    int      `json:"rows,omitempty"`
	Cols    int      `json:"cols,omitempty"`
	// Entrypoint hands the command to the VM's entrypoint, where it has one.
	Entrypoint bool `json:"entrypoint,omitempty"`
	// NoStdin gives the command an empty stdin.
	NoStdin bool `json:"no_stdin,omitempty"`
	// TimeoutMS ends the command (TERM, then KILL) when it runs longer; the
	// end is then of kind timeout.
	TimeoutMS int64 `json:"timeout_ms,omitempty"`
	// Start boots the VM first when it is not running.
	Start bool `json:"start,omitempty"`
	// Detach starts the command and answers at once with Started only.
	Detach bool `json:"detach,omitempty"`
}

// Run is the first message of GET /v1/run: create a VM, run one command in it,
// and let the daemon end the VM as asked. The connection is the lease: when it
// breaks before the command began, nothing is left; when it breaks after, the
// command gets HUP, ten seconds later KILL, and the VM ends as End says.
type Run struct {
	VM   CreateVM `json:"vm"`
	Exec Exec     `json:"exec"`
	// End is what becomes of the VM after the command: keep, stop or remove.
	End string `json:"end"`
}

// What becomes of a VM when the command of a Run ends.
const (
	EndKeep   = "keep"
	EndStop   = "stop"
	EndRemove = "remove"
)

// Channel is the first byte of every binary message of an exec or run
// WebSocket. The rest of the message is the payload.
type Channel byte

// The channels. Stdin and Credit belong together: a sender may have no more
// bytes of stdin under way than the credits it was given.
const (
	ChannelStdin    Channel = 0 // client to daemon; an empty payload is end of file
	ChannelStdout   Channel = 1 // daemon to client
	ChannelStderr   Channel = 2 // daemon to client
	ChannelSignal   Channel = 3 // client to daemon; payload: the name, e.g. INT
	ChannelResize   Channel = 4 // client to daemon; payload: JSON Resize
	ChannelCredit   Channel = 5 // daemon to client; payload: uint32 big endian, bytes
	ChannelStarted  Channel = 6 // daemon to client; payload: JSON Started
	ChannelExit     Channel = 7 // daemon to client, last; payload: JSON Exit
	ChannelProgress Channel = 8 // daemon to client; payload: JSON Operation
)

// MaxPayload is the largest payload of a message that carries stdin, stdout or
// stderr, in bytes.
const MaxPayload = 128 << 10

// StdinWindow is how many bytes of stdin a client may send before credits come.
const StdinWindow = 1 << 20

// Resize is a new size of the client's terminal.
type Resize struct {
	Rows int `json:"rows"`
	Cols int `json:"cols"`
}

// Started says that the command runs.
type Started struct {
	VM  string `json:"vm"`  // id
	PID int    `json:"pid"` // in the guest
}

// Exit is how a command ended. When banger itself failed, Error is set and the
// code means nothing.
type Exit struct {
	Code     int    `json:"code"`             // 128+N when a signal ended it; 126 and 127 as a shell means them
	Signal   string `json:"signal,omitempty"` // e.g. KILL
	TimedOut bool   `json:"timed_out,omitempty"`
	// Message says why the command could not be run: codes 126 and 127.
	Message string `json:"message,omitempty"`
	// VM says what became of the VM: running, stopped or removed. Empty for exec.
	VM    string `json:"vm,omitempty"`
	Name  string `json:"name,omitempty"`
	Error *Error `json:"error,omitempty"`
}

// ExecResult is what `vm exec --json` prints.
type ExecResult struct {
	ExitCode   int    `json:"exit_code"`
	Signal     string `json:"signal"`
	Stdout     string `json:"stdout"`
	Stderr     string `json:"stderr"`
	Truncated  bool   `json:"truncated"`
	DurationMS int64  `json:"duration_ms"`
}
