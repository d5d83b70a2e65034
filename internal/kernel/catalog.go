package kernel

// entry is one kernel that can be pulled by its name. What kinds there are is
// decided by which source is set; more kinds are more fields.
type entry struct {
	name        string
	description string
	recipe      *Recipe
}

func (e entry) kind() string {
	if e.recipe != nil {
		return "debian"
	}
	return ""
}

// DefaultName is the kernel for whoever names none.
const DefaultName = "debian-bookworm-cloud"

// embedded is the catalog that comes with banger.
func embedded() []entry {
	return []entry{{
		name: DefaultName, description: "Debian 12's signed kernel for cloud machines",
		recipe: &Recipe{Suite: "bookworm", Package: "linux-image-cloud-amd64", TreeBytes: 400 << 20, KernelBytes: 300 << 20},
	}}
}
