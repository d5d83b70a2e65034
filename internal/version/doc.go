// Package version says which banger this binary is: its version for people and
// its build for machines. CLI and daemon compare builds to notice that one of
// them was replaced. It imports no other room. Start at Current.
package version
