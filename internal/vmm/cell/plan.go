package cell

// Plan is what a cell is to hold.
type Plan struct {
	// Program is the host's path of the program, which is linked statically where
	// there are Binds; Args begin with its name.
	Program string   `json:"program"`
	Args    []string `json:"args"`
	// Binds are all it sees of the host's files, with the program; none means
	// that it sees what we see.
	Binds []Bind `json:"binds,omitempty"`
	// Store is an existing folder that the cell's root is mounted on, in its own
	// mount namespace only.
	Store string `json:"store,omitempty"`
	// UID is the user and group of the host that the program becomes, one that is
	// nobody else's: for us as root, with Binds. 0 means that it stays who we are,
	// as the only user of a user namespace.
	UID int  `json:"uid,omitempty"`
	Tap *Tap `json:"tap,omitempty"`
	// Files are descriptors that it inherits though it does not know of them:
	// their locks are held as long as it lives.
	Files int `json:"files"`
	// Spaces are user namespaces that follow them, and stay behind; set by Open.
	Spaces int    `json:"spaces,omitempty"`
	Limits Limits `json:"limits"`
}

// Bind is a file or a folder of the host in the cell. With Plan.UID a device is
// made anew there, and is that user's.
type Bind struct {
	From     string `json:"from"`
	To       string `json:"to"`
	Writable bool   `json:"writable,omitempty"`
	Device   bool   `json:"device,omitempty"`
	// Lent is which of Plan.Spaces lends it to Plan.UID, from 1; set by Open.
	Lent int `json:"lent,omitempty"`
}

// Tap is the network device in the cell that the VMM opens by its name.
type Tap struct {
	Name string `json:"name"`
	MTU  int    `json:"mtu"`
}

// Limits of the program; 0 leaves one as it is.
type Limits struct {
	AddressSpace uint64 `json:"address_space,omitempty"` // bytes
	Files        uint64 `json:"files,omitempty"`
	Processes    uint64 `json:"processes,omitempty"` // and threads
}

// programPath is where the program lies in a cell with files of its own.
const programPath = "/vmm"
