package daemon

import (
	"net/http"
	"net/url"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/catalog"
	"github.com/bangervm/banger/internal/config"
	"github.com/bangervm/banger/internal/signature"
)

type catalogQuery struct {
	Refresh bool `query:"refresh" doc:"ask the configured catalogs for what is new"`
}

func (s *server) listCatalogs(w http.ResponseWriter, _ *http.Request) error {
	return writeJSON(w, http.StatusOK, list(s.catalogs.Catalogs()))
}

// places are the configured catalogs.
func places(configured []config.Catalog) ([]catalog.Place, error) {
	var all []catalog.Place
	for _, c := range configured {
		p := catalog.Place{Name: c.Name, At: c.Location}
		if c.PublicKey != "" {
			key, err := signature.ParseKey(c.PublicKey)
			if err != nil {
				return nil, api.Errorf(api.KindInvalid, "cannot use the catalog %s: %w", c.Name, err)
			}
			p.Key = &key
		}
		all = append(all, p)
	}
	return all, nil
}

// plainHosts are those that the configuration says have no TLS.
func plainHosts(c config.Config) func(host string) bool {
	hosts := map[string]bool{}
	for host, r := range c.Registries {
		hosts[host] = r.PlainHTTP
	}
	for _, cat := range c.Catalogs {
		if u, err := url.Parse(cat.Location); err == nil && cat.PlainHTTP {
			hosts[u.Host] = true
		}
	}
	return func(host string) bool { return hosts[host] }
}

// httpCatalogs shows the catalogs as the API has them.
type httpCatalogs struct{ set *catalog.Set }

func (c httpCatalogs) Catalogs() []api.Catalog {
	var all []api.Catalog
	for _, s := range c.set.States() {
		all = append(all, api.Catalog{Name: s.Name, Location: s.At, Key: s.Key, Entries: s.Entries, FetchedAt: s.FetchedAt, Error: api.AsError(s.Err)})
	}
	return all
}
