package daemon

import (
	"net/http"

	"github.com/bangervm/banger/api"
)

func (s *server) fetchFirecracker(w http.ResponseWriter, r *http.Request) error {
	req, err := decodeBody[api.FetchFirecracker](w, r)
	if err != nil {
		return err
	}
	return writeOperation(w)(s.system.Fetch(r.Context(), req))
}
