package daemon

import (
	"net/http"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/version"
)

func (s *server) version(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, api.Version{Version: s.info.Version, Build: s.info.Build, Go: s.info.Go})
}

func (s *server) openAPI(w http.ResponseWriter, _ *http.Request) error {
	return writeBody(w, http.StatusOK, "application/json", document())
}

func (s *server) status(w http.ResponseWriter, r *http.Request) error {
	return writeJSON(w, http.StatusOK, s.account(r))
}

// account counts VMs and operations as far as they can be counted yet.
func (s *server) account(r *http.Request) api.Daemon {
	d := api.Daemon{
		PID: s.pid, Version: s.info.Version, Build: s.info.Build, Socket: s.layout.DaemonSocket(),
		StateDir: s.layout.State, StartedAt: s.started.UTC(),
	}
	if !s.isReady() {
		return d
	}
	if vms, err := s.vms.List(r.Context(), nil); err == nil {
		d.VMs = len(vms)
	}
	d.Operations = s.operations.Running()
	return d
}

// stopDaemon answers first: leaving waits for the requests under way.
func (s *server) stopDaemon(w http.ResponseWriter, r *http.Request) error {
	defer s.stop()
	return writeJSON(w, http.StatusAccepted, s.account(r))
}

func (s *server) checkHost(w http.ResponseWriter, r *http.Request) error {
	return writeJSON(w, http.StatusOK, list(s.doctor(r.Context(), r.Header.Get(version.HeaderBuild))))
}

func (s *server) configValues(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, list(s.config()))
}
