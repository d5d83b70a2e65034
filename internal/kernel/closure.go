package kernel

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
)

// graph says which modules each module needs, by name.
type graph map[string][]string

// maxSteps bounds the way through what one module needs: it is gone for each of
// them, and a package says what it likes.
const maxSteps = 4096

// closure lists the wanted modules and everything they need, each after what it
// needs: the order to load them. A module the kernel has built in is skipped;
// one that is nowhere is an error that names all such.
func (g graph) closure(wanted []string, builtin map[string]bool) ([]string, error) {
	var order, missing []string
	const (
		visiting = 1
		done     = 2
	)
	state := map[string]int{}
	type frame struct {
		name string
		next int
	}
	for _, root := range wanted {
		stack := []frame{{name: moduleName(root)}}
		for steps := 0; len(stack) > 0; steps++ {
			if steps > maxSteps {
				return nil, fmt.Errorf("kernel has a module %.64s that needs too many others", root)
			}
			top := &stack[len(stack)-1]
			deps, known := g[top.name]
			if state[top.name] == 0 {
				switch {
				case known:
					state[top.name] = visiting
				case builtin[top.name]:
					state[top.name] = done
				default:
					state[top.name] = done
					missing = append(missing, top.name)
				}
			}
			if state[top.name] == done || top.next == len(deps) {
				if state[top.name] == visiting {
					state[top.name] = done
					order = append(order, top.name)
				}
				stack = stack[:len(stack)-1]
				continue
			}
			dep := deps[top.next]
			top.next++
			// A circle cannot be loaded in any order; the first to be met goes last.
			if state[dep] == 0 {
				stack = append(stack, frame{name: dep})
			}
		}
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return nil, fmt.Errorf("kernel lacks the modules %s", strings.Join(missing, ", "))
	}
	return order, nil
}

// maxLine bounds a line of a module list, in bytes.
const maxLine = 1 << 20

// parseDep reads modules.dep: "kernel/a.ko: kernel/b.ko kernel/c.ko". It gives
// the graph and the path of each module by name.
func parseDep(r io.Reader) (graph, map[string]string, error) {
	g, paths := graph{}, map[string]string{}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, maxLine)
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		path, rest, ok := strings.Cut(line, ":")
		if !ok || moduleName(path) == "" {
			return nil, nil, fmt.Errorf("modules.dep: line %q", line[:min(len(line), 80)])
		}
		name := moduleName(path)
		paths[name] = path
		g[name] = nil
		for _, d := range strings.Fields(rest) {
			g[name] = append(g[name], moduleName(d))
		}
	}
	if err := sc.Err(); err != nil {
		return nil, nil, fmt.Errorf("modules.dep: %w", err)
	}
	return g, paths, nil
}

// parseBuiltin reads modules.builtin: one path a line.
func parseBuiltin(r io.Reader) (map[string]bool, error) {
	names := map[string]bool{}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, maxLine)
	for sc.Scan() {
		if line := strings.TrimSpace(sc.Text()); line != "" {
			names[moduleName(line)] = true
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("modules.builtin: %w", err)
	}
	return names, nil
}
