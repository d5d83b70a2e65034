// Package layout names every folder, file and socket banger owns, with what it
// holds and whether a clone copies it. It finds the folders, creates them and
// checks that they are ours; it reads and writes nothing else. Start at Layout.
package layout
