// Package ui prints: the answer on stdout as table, JSON or template, and
// progress, notes, warnings and errors on stderr. It decides what a terminal
// gets and what a script gets, and knows no command and no daemon. Start at
// Console.
package ui
