// Package pull keeps named things and gets those that are not here yet: it looks
// at what a source means now, makes a thing once for all who want the same, in a
// staging folder, and publishes it as one atom; and it deletes them. It knows
// neither images nor kernels; a noun hands in how to plan, make, check, record and
// show its things. Start at Puller; the steps of a job are in steps.go.
package pull
