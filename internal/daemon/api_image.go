package daemon

import (
	"net/http"

	"github.com/bangervm/banger/api"
)

func (s *server) listImages(w http.ResponseWriter, r *http.Request) error {
	images, err := s.images.List(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list(images))
}

func (s *server) showImage(w http.ResponseWriter, r *http.Request) error {
	image, err := s.images.Show(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, image)
}

func (s *server) pullImage(w http.ResponseWriter, r *http.Request) error {
	req, err := decodeBody[api.PullImage](w, r)
	if err == nil && req.Name == "" {
		err = api.Errorf(api.KindInvalid, "cannot pull image: no name given").WithHint("banger image catalog")
	}
	if err != nil {
		return err
	}
	return writeOperation(w)(s.images.Pull(r.Context(), req))
}

func (s *server) imageCatalog(w http.ResponseWriter, r *http.Request) error {
	entries, err := s.images.Catalog(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list(entries))
}
