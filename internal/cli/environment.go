package cli

import (
	"bufio"
	"bytes"
	"os"
	"strings"

	"github.com/bangervm/banger/api"
)

// environment gathers what --env-file and -e say, files first, whatever their
// order on the command line. K alone takes the value from our own environment,
// and nothing when it is not there.
func (a *app) environment(files, vars []string) ([]string, error) {
	var out []string
	for _, path := range files {
		lines, err := a.envFile(path)
		if err != nil {
			return nil, err
		}
		out = append(out, lines...)
	}
	for _, v := range vars {
		kv, ok, err := a.envVar(v)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, kv)
		}
	}
	return out, nil
}

// envFile reads lines K=V or K; empty ones and those that begin with # are
// skipped, quotes are kept as they are.
func (a *app) envFile(path string) ([]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, api.Errorf(api.KindInvalid, "cannot read environment file: %w", err)
	}
	var out []string
	sc := bufio.NewScanner(bytes.NewReader(b))
	sc.Buffer(nil, 1<<20)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSuffix(sc.Text(), "\r")
		if trimmed := strings.TrimSpace(line); trimmed == "" || trimmed[0] == '#' {
			continue
		}
		kv, ok, err := a.envVar(strings.TrimLeft(line, " \t"))
		if err != nil {
			return nil, api.Errorf(api.KindInvalid, "cannot read environment file %s, line %d: %w", path, n, err)
		}
		if ok {
			out = append(out, kv)
		}
	}
	if err := sc.Err(); err != nil {
		return nil, api.Errorf(api.KindInvalid, "cannot read environment file %s: %w", path, err)
	}
	return out, nil
}

func (a *app) envVar(v string) (kv string, ok bool, err error) {
	key, _, hasValue := strings.Cut(v, "=")
	if key == "" || strings.ContainsAny(key, " \t") || strings.ContainsRune(v, 0) {
		return "", false, api.Errorf(api.KindInvalid, "cannot use environment variable %q: want KEY=VALUE", v)
	}
	if hasValue {
		return v, true, nil
	}
	if value := a.env.Getenv(key); value != "" {
		return key + "=" + value, true, nil
	}
	return "", false, nil
}

// labels reads K=V, and K alone as an empty value.
func labels(words []string) (map[string]string, error) {
	if len(words) == 0 {
		return nil, nil
	}
	out := make(map[string]string, len(words))
	for _, w := range words {
		k, v, _ := strings.Cut(w, "=")
		if k == "" {
			return nil, api.Errorf(api.KindInvalid, "cannot use label %q: want KEY=VALUE", w)
		}
		out[k] = v
	}
	return out, nil
}
