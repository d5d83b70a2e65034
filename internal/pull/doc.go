// Package pull gets named things that are not here yet: it joins those who want
// the same one, makes it in a staging folder as an operation of the daemon, and
// publishes it as one atom. It knows neither images nor kernels; a noun hands in
// how to find, make and record its things. Start at Puller.
package pull
