// Package oci gets container images: from registries into a cache of blobs, and
// out of archives (docker save, OCI layouts, plain root file systems). What it
// gives is an Image, a configuration and layers that can be read as often as
// wanted; what becomes of them is the caller's. It knows no noun, and unpacks no
// layer. Registries and archives are hostile: whatever is read of them is bounded,
// and every byte handed out has been checked against its digest.
//
// Start at Client.Fetch and OpenArchive, then Blobs, the cache, and flight, which
// gets one blob through broken connections.
package oci
