// Package pull keeps named things and gets those that are not here yet: it joins
// those who want the same one, makes it in a staging folder as an operation of
// the daemon, and publishes it as one atom. It knows neither images nor kernels;
// a noun hands in how to make, check, record and show its things. Start at Puller.
package pull
