package daemon

import (
	"context"
	"net/http"
	"time"

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

func (s *server) importImage(w http.ResponseWriter, r *http.Request) error {
	req, err := decodeBody[api.ImportImage](w, r)
	if err != nil {
		return err
	}
	return writeOperation(w)(s.images.Import(r.Context(), req))
}

type importQuery struct {
	Name      string `query:"name" doc:"the name it gets"`
	Reference string `query:"reference" doc:"which image of the archive, where it holds several"`
	Kernel    string `query:"kernel" doc:"that it boots; else the default"`
	WorkSeed  string `query:"work_seed" doc:"folder or archive on the daemon's host that new homes are filled from"`
	Replace   bool   `query:"replace" doc:"the name may pass from another image"`
}

// importStream reads an archive of any size, as slowly as it comes.
func (s *server) importStream(w http.ResponseWriter, r *http.Request) error {
	q, err := decodeQuery[importQuery](r)
	if err != nil {
		return err
	}
	ctx, done := s.following(r)
	defer done()
	stop := context.AfterFunc(ctx, func() { _ = http.NewResponseController(w).SetReadDeadline(time.Now()) })
	defer stop()
	op, err := s.images.ImportStream(ctx, api.ImportImage{
		Name: q.Name, Reference: q.Reference, Kernel: q.Kernel, WorkSeed: q.WorkSeed, Replace: q.Replace,
	}, r.Body)
	return writeOperation(w)(op, causeOf(ctx, err))
}

func (s *server) registerImage(w http.ResponseWriter, r *http.Request) error {
	req, err := decodeBody[api.RegisterImage](w, r)
	if err != nil {
		return err
	}
	return writeOperation(w)(s.images.Register(r.Context(), req))
}

func (s *server) promoteImage(w http.ResponseWriter, r *http.Request) error {
	req, err := decodeBody[api.PromoteImage](w, r)
	if err != nil {
		return err
	}
	return writeOperation(w)(s.images.Promote(r.Context(), r.PathValue("name"), req))
}

func (s *server) deleteImage(w http.ResponseWriter, r *http.Request) error {
	res, err := s.images.Delete(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, res)
}

func (s *server) pruneImages(w http.ResponseWriter, r *http.Request) error {
	req, err := decodeBody[api.PruneImages](w, r)
	if err != nil {
		return err
	}
	pruned, err := s.images.Prune(r.Context(), req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, pruned)
}

func (s *server) bundleImage(w http.ResponseWriter, r *http.Request) error {
	req, err := decodeBody[api.BundleImage](w, r)
	if err != nil {
		return err
	}
	return writeOperation(w)(s.images.Bundle(r.Context(), r.PathValue("name"), req))
}

func (s *server) imageCatalog(w http.ResponseWriter, r *http.Request) error {
	q, err := decodeQuery[catalogQuery](r)
	if err != nil {
		return err
	}
	entries, err := s.images.Catalog(r.Context(), q.Refresh)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list(entries))
}
