package image

// KindDebian is the kind of an image built from Debian packages.
const KindDebian = "debian"

// DefaultKernel is the kernel an image boots that names no other.
const DefaultKernel = "debian-bookworm-cloud"

// entry is one image that can be pulled by its bare name. What kinds there are
// is decided by which source is set; more kinds are more fields.
type entry struct {
	name        string
	description string
	kernel      string
	recipe      *Recipe
}

func (e entry) kind() string {
	if e.recipe != nil {
		return KindDebian
	}
	return ""
}

// DefaultName is the image for whoever names none.
const DefaultName = "debian-bookworm"

// embedded is the catalog that comes with banger.
func embedded() []entry {
	recipe := bookworm()
	return []entry{{
		name: DefaultName, description: "Debian 12 with a developer's tools, built on this host from the signed archive",
		kernel: DefaultKernel, recipe: &recipe,
	}}
}

// DefaultRecipe is what DefaultName is built from; the benchmark gives it to
// mmdebstrap alone.
func DefaultRecipe() Recipe { return bookworm() }
