// Package fetch gets files from web servers: over TLS, resumed after a break,
// given up when nothing comes, bounded. It knows neither what the files are nor
// whether to trust them; registries have a client of their own. Start at Client.
package fetch
