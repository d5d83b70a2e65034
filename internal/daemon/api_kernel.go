package daemon

import (
	"net/http"

	"github.com/bangervm/banger/api"
)

func (s *server) listKernels(w http.ResponseWriter, r *http.Request) error {
	kernels, err := s.kernels.List(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list(kernels))
}

func (s *server) showKernel(w http.ResponseWriter, r *http.Request) error {
	kernel, err := s.kernels.Show(r.Context(), r.PathValue("name"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, kernel)
}

func (s *server) pullKernel(w http.ResponseWriter, r *http.Request) error {
	req, err := decodeBody[api.Pull](w, r)
	if err == nil && req.Name == "" {
		err = api.Errorf(api.KindInvalid, "cannot pull kernel: no name given").WithHint("banger kernel catalog")
	}
	if err != nil {
		return err
	}
	return writeOperation(w)(s.kernels.Pull(r.Context(), req))
}

func (s *server) kernelCatalog(w http.ResponseWriter, r *http.Request) error {
	q, err := decodeQuery[catalogQuery](r)
	if err != nil {
		return err
	}
	entries, err := s.kernels.Catalog(r.Context(), q.Refresh)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list(entries))
}

func (s *server) importKernel(w http.ResponseWriter, r *http.Request) error {
	req, err := decodeBody[api.ImportKernel](w, r)
	if err != nil {
		return err
	}
	return writeOperation(w)(s.kernels.Import(r.Context(), req))
}

type deleteKernelQuery struct {
	DryRun bool `query:"dry_run" doc:"say what would go, or why it would not; delete nothing"`
}

func (s *server) deleteKernel(w http.ResponseWriter, r *http.Request) error {
	q, err := decodeQuery[deleteKernelQuery](r)
	if err != nil {
		return err
	}
	res, err := s.kernels.Delete(r.Context(), r.PathValue("name"), q.DryRun)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, res)
}
