// Package release fetches a release of Firecracker when somebody asks for it,
// checks its digest and installs it where the driver looks. Nothing here happens
// by itself. Start at Manager.Fetch.
package release
