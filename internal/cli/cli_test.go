package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
)

// TestRefusals: what is wrong is refused before anything is done, with the
// right code, the cause and the next step.
func TestRefusals(t *testing.T) {
	t.Parallel()
	tests := []struct {
		args string // words, separated by spaces
		code int
		want string // in stderr
	}{
		{"vm lst", 2, `unknown command "lst" for "banger vm"` + "\nhint: banger vm list"},
		{"nonsense", 2, "hint: banger --help"},
		{"vm list extra", 2, `unexpected argument "extra"`},
		{"vm show", 2, "too few arguments"},
		{"vm create --bogus", 2, "unknown flag: --bogus\nhint: banger vm create --help"},
		{"vm create web", 2, "hint: banger vm create --image web"},
		{"vm run debian-bookworm", 2, "hint: banger vm run --image debian-bookworm"},
		{"vm run debian-bookworm -- ls", 125, "error (invalid):"},
		{"vm run ./src", 8, "not in this version"},
		{"vm run ~/src", 8, "not in this version"},
		{"vm run .", 8, "not in this version"},
		{"run /src -- make", 125, "error (unsupported):"},
		{"vm create -p 80:80", 8, "cannot use --publish"},
		{"vm create --nat", 8, "cannot use --nat"},
		{"vm create --ttl 5m", 8, "cannot use --ttl"},
		{"vm create --auto-stop 5m", 8, "cannot use --auto-stop"},
		{"vm create -v /a:/b", 8, "hint: banger vm cp SRC VM:DST"},
		{"vm run --branch x", 8, "cannot use --branch"},
		{"vm create --network bridge", 8, "cannot use network bridge"},
		{"vm create --network lan", 2, "want user or none"},
		{"vm create --driver xen", 2, "want auto, firecracker or qemu"},
		{"vm create --accel hvf", 2, "want auto, kvm or tcg"},
		{"vm create --pull sometimes", 2, "want missing, always or never"},
		{"vm create --memory 4", 2, "did you mean 4G?\nhint: banger vm create --memory 4G"},
		{"vm create --memory -1G", 2, "negative"},
		{"vm create -m 0", 2, "zero"},
		{"vm create --disk-size 8", 2, "hint: banger vm create --disk-size 8G"},
		{"vm create --disk 0G", 2, "zero"},
		{"vm create --vcpu 0", 2, "want 1 or more"},
		{"vm create --cpus -2", 2, "want 1 or more"},
		{"vm create --vcpu many", 2, "flag: want a whole number\nhint: "},
		{"vm logs web --tail 99999999999999999999", 2, "flag: the number is too large\nhint: "},
		{"vm create --no-start=maybe", 2, "flag: want true or false\nhint: "},
		{"vm create --timeout -5s", 2, "negative"},
		{"vm create --name=", 2, "cannot use --name"},
		{"vm create --request-id=", 2, "request-id"},
		{"vm create --label =x", 2, "want KEY=VALUE"},
		{"vm create -e =x", 2, "want KEY=VALUE"},
		{"vm create --env-file /nonexistent", 2, "cannot read environment file"},
		{"vm create --format {{.name", 2, "cannot use --format"},
		{"vm create --format x --json", 2, "together"},
		{"vm exec", 125, "error (invalid): banger vm exec: too few arguments"},
		{"vm exec web", 125, "hint: banger vm shell web"},
		{"vm exec --bogus web true", 125, "unknown flag"},
		{"vm exec web --bogus true", 125, "unknown flag"},
		{"vm exec -t -T web true", 125, "-t and -T"},
		{"vm exec --json -t web true", 125, "-t and --json"},
		{"vm exec --max-output 4x web true", 125, "64K"},
		{"vm exec nope true", 125, "error (not-found): no vm \"nope\"\nhint: banger vm list"},
		{"vm shell web --bogus", 125, "unknown flag"},
		{"vm run --json", 2, "give a command"},
		{"vm run --format x -- ls", 125, "cannot use --format"},
		{"vm run -d --rm -- ls", 8, "--rm with -d"},
		{"vm set web", 2, "nothing to change"},
		{"vm set web --pull always", 2, "cannot use --pull without --image"},
		{"vm set web --image=", 2, "cannot use an empty --image"},
		{"vm create --init systemd", 2, "agent"},
		{"vm set web --ttl 5m", 8, "cannot use --ttl"},
		{"vm wait web --for ready", 2, "running, stopped or exit"},
		{"vm logs web --since yesterday", 2, "want a time"},
		{"vm delete web", 2, "give --yes, or set BANGER_YES=1\nhint: banger vm delete --dry-run web"},
		{"vm prune", 2, "--yes"},
		{"vm show nope", 3, "hint: banger vm list"},
		{"vm create --name web", 4, "hint: banger vm show web"},
		{"--progress loud vm list", 2, "auto, plain, json or none"},
		{"completion powershell", 2, "bash, zsh or fish"},
		{"doctor --fix", 8, "not in this version"},
		{"doctor", 1, ""},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			got := newWorld(t).call(strings.Fields(tt.args)...)
			if got.Code != tt.code || !strings.Contains(got.Err, tt.want) {
				t.Errorf("got %+v\nwant code %d and %q", got, tt.code, tt.want)
			}
			if tt.code != 1 && got.Out != "" {
				t.Errorf("stdout has %q", got.Out)
			}
		})
	}
}

func TestErrorAsJSON(t *testing.T) {
	t.Parallel()
	for _, args := range []string{"vm show --json nope", "--json vm create --name web", "vm list --json --bogus", "vm exec --json nope true"} {
		w := newWorld(t)
		got := w.call(strings.Fields(args)...)
		var reply api.ErrorReply
		if err := json.Unmarshal([]byte(got.Err), &reply); err != nil || reply.Error.Message == "" || strings.Count(got.Err, "\n") != 1 {
			t.Errorf("%s: stderr %q: %v", args, got.Err, err)
		}
	}
	w := newWorld(t)
	w.env["BANGER_ERROR_FORMAT"] = "json"
	if got := w.call("vm", "show", "nope"); !strings.HasPrefix(got.Err, `{"error":{"kind":"not-found"`) {
		t.Errorf("stderr %q", got.Err)
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	tests := []struct {
		args, out, err string
		code           int
	}{
		{args: "vm list -q", out: "aaaaaaaaaaaaaaaa\nbbbbbbbbbbbbbbbb\n"},
		{args: "vm ls -q --filter status=stopped", out: "bbbbbbbbbbbbbbbb\n"},
		{args: "ps -q", out: "aaaaaaaaaaaaaaaa\n"},
		{args: "vm list --format {{.name}}={{.vcpus}}", out: "web=2\ndb=1\n"},
		{args: "vm list --filter status=paused --json", out: "[]\n"},
		{args: "image list --json", out: "[]\n"},
		{args: "vm inspect --format {{.memory_bytes}} web", out: "2147483648\n"},
		{args: "vm start web", out: "web\n", err: "vm web is running already\n"},
		{args: "vm start db -q", out: "bbbbbbbbbbbbbbbb\n"},
		{args: "vm start web nope db", out: "web\ndb\n", err: "error: no vm \"nope\"\nhint: banger vm list\n", code: 3},
		{args: "vm rm --yes web", out: "web\n"},
		{args: "vm delete --force gone", out: "gone\n"},
		{args: "vm delete --dry-run db", out: "db\n", err: "would delete vm db (stopped) with its disks of 8G and 8G\n"},
		{args: "vm delete --dry-run web", err: "error: cannot delete vm \"web\" while it is running\nhint: banger vm stop web\n", code: 5},
		{args: "vm delete --dry-run --force web", out: "web\n", err: "would delete vm web (running) with its disks of 8G and 8G\n"},
		{args: "vm list -q --filter status=stopped,name=db", out: "bbbbbbbbbbbbbbbb\n"},
		{args: "help nope", err: "error: cannot help with \"nope\": no such command\nhint: banger --help\n", code: 2},
		{args: "__complete vm run --pull=", out: "missing\nalways\nnever\n:4\n", err: "Completion ended with directive: ShellCompDirectiveNoFileComp\n"},
		{args: "__complete vm create --name=", out: ":4\n", err: "Completion ended with directive: ShellCompDirectiveNoFileComp\n"},
		{args: "vm delete --dry-run we", err: "error: cannot delete vm \"we\": it must be named exactly\n  web\n", code: 3},
		{args: "vm prune --yes", out: "db\n", err: "will delete vm db\n"},
		{args: "vm prune --dry-run", out: "db\n"},
		{args: "vm set web --memory 4G", out: "web\n", err: "vm web: memory from the next start on (banger vm restart web)\n"},
		{args: "vm create --name new", out: "new\n"},
		{args: "vm create --name new -q", out: "cccccccccccccccc\n"},
		{args: "run --name new -d -- sleep 5", out: "cccccccccccccccc\n"},
		{args: "vm exec -d web sleep 5", out: "42\n"},
		{args: "daemon status --format {{.build}}", out: "b\n"},
		{args: "doctor --json --progress none", code: 1, out: `[
  {
    "name": "daemon",
    "status": "pass",
`},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			t.Parallel()
			got := newWorld(t).call(strings.Fields(tt.args)...)
			if strings.HasPrefix(tt.args, "doctor") && strings.HasPrefix(got.Out, tt.out) {
				got.Out = tt.out
			}
			if diff := cmp.Diff(result{tt.code, tt.out, tt.err}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestResultsAsJSON(t *testing.T) {
	t.Parallel()
	got := newWorld(t).call("vm", "start", "--json", "db", "nope", "web")
	var results []api.Result
	if err := json.Unmarshal([]byte(got.Out), &results); err != nil || got.Code != 3 || got.Err != "" {
		t.Fatalf("%+v: %v", got, err)
	}
	type line struct {
		Ref         string
		OK, Changed bool
	}
	var lines []line
	for _, r := range results {
		lines = append(lines, line{r.Ref, r.OK, r.Changed})
	}
	if diff := cmp.Diff([]line{{"db", true, true}, {"nope", false, false}, {"web", true, false}}, lines); diff != "" {
		t.Error(diff)
	}
}

func TestCreateRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.env["OURS"] = "here"
	file := filepath.Join(w.root, "env")
	if err := os.WriteFile(file, []byte("# no\n\nA=1\n OURS\r\nMISSING\nQ=\"x y\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := w.call("vm", "create", "--name", "new", "--image", "i", "--pull", "never", "--kernel", "k", "--cpus", "3", "-m", "1.5G", "--disk", "10G",
		"--system-overlay-size", "2GiB", "--network", "none", "--driver", "qemu", "--accel", "tcg", "--init", "agent", "--root-disk", "overlay",
		"--label", "a=b", "--label", "c", "-e", "A=2", "-e", "OURS", "--env-file", file, "-w", "/srv", "-u", "me:us", "--entrypoint", "/init x", "--no-start", "--request-id", "r1")
	if got.Code != 0 {
		t.Fatalf("%+v", got)
	}
	want := api.CreateVM{
		Name: "new", Image: "i", Pull: "never", Kernel: "k", VCPUs: 3, MemoryBytes: 3 << 29, DiskBytes: 10 << 30, SystemOverlayBytes: 2 << 30,
		RootDisk: "overlay", Network: "none", Driver: "qemu", Accelerator: "tcg", Init: "agent", Labels: map[string]string{"a": "b", "c": ""},
		Env: []string{"A=1", "OURS=here", `Q="x y"`, "A=2", "OURS=here"}, Workdir: "/srv", User: "me:us", Entrypoint: []string{"/init x"}, NoStart: true, RequestID: "r1",
	}
	if diff := cmp.Diff(want, w.fake.created); diff != "" {
		t.Error(diff)
	}
}

// TestExecWords: the first word after VM and its flags begins CMD, and goes
// through untouched.
func TestExecWords(t *testing.T) {
	t.Parallel()
	tests := []struct {
		args []string
		want api.Exec
	}{
		{[]string{"web", "ls", "-l", "--json"}, api.Exec{Argv: []string{"ls", "-l", "--json"}}},
		{[]string{"web", "--", "-x", "--"}, api.Exec{Argv: []string{"-x", "--"}}},
		{[]string{"--", "web", "-n", "b"}, api.Exec{Argv: []string{"-n", "b"}}},
		{[]string{"-n", "web", "-w", "/srv", "-e", "A=1", "a", "-e", "B=2"}, api.Exec{Argv: []string{"a", "-e", "B=2"}, Workdir: "/srv", Env: []string{"A=1"}, NoStdin: true}},
		{[]string{"web", "-u", "me", "--start", "--timeout", "2", "-i", "--", "a b", "", "$HOME"}, api.Exec{Argv: []string{"a b", "", "$HOME"}, User: "me", Start: true, TimeoutMS: 2000}},
		{[]string{"-t", "web", "sh"}, api.Exec{Argv: []string{"sh"}, TTY: true, Rows: 24, Cols: 80, Env: []string{"TERM=xterm"}}},
		{[]string{"-T", "web", "sh"}, api.Exec{Argv: []string{"sh"}}},
	}
	for _, tt := range tests {
		w := newWorld(t)
		got := w.call(append([]string{"exec"}, tt.args...)...)
		if diff := cmp.Diff(tt.want, w.fake.exec); diff != "" || got.Code != 0 {
			t.Errorf("%q: %+v\n%s", tt.args, got, diff)
		}
	}
}

func TestRunRequest(t *testing.T) {
	t.Parallel()
	tests := []struct {
		args, end, note string
	}{
		{"", api.EndKeep, "vm new keeps running"},
		{"--rm", api.EndRemove, ""},
		{"-- true", api.EndStop, "vm new is stopped and kept"},
		{"--rm -- true", api.EndRemove, ""},
		{"-q -- true", api.EndStop, ""},
		{"--", api.EndKeep, "vm new keeps running"},
	}
	for _, tt := range tests {
		w := newWorld(t)
		got := w.call(append([]string{"vm", "run"}, strings.Fields(tt.args)...)...)
		if got.Code != 0 || w.fake.run.End != tt.end || w.fake.run.VM.AutoRemove != (tt.end == api.EndRemove) || !strings.HasPrefix(got.Err, tt.note) || tt.note == "" && got.Err != "" {
			t.Errorf("%s: %+v, request %+v", tt.args, got, w.fake.run)
		}
	}
}

func TestStreams(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"vm", "exec", "web", "cat"}, {"vm", "run", "--rm", "--", "cat"}} {
		w := newWorld(t)
		w.fake.script.Store(script(cat))
		w.in = strings.Repeat("data\x00\n", 1<<20)
		got := w.call(args...)
		if got.Code != 7 || got.Err != "eof\n" || got.Out != w.in {
			t.Errorf("%v: code %d, stderr %q, %d bytes", args, got.Code, got.Err, len(got.Out))
		}
	}
}

func TestExecAsJSON(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fake.script.Store(script(cat))
	w.in = "0123456789"
	got := w.call("vm", "exec", "--json", "--max-output", "4", "web", "cat")
	var r api.ExecResult
	if err := json.Unmarshal([]byte(got.Out), &r); err != nil || got.Code != 7 || got.Err != "" {
		t.Fatalf("%+v: %v", got, err)
	}
	r.DurationMS = 0
	if diff := cmp.Diff(api.ExecResult{ExitCode: 7, Stdout: "0123", Stderr: "eof\n", Truncated: true}, r); diff != "" {
		t.Error(diff)
	}
}

// TestCommandThatCannotBeRun: as a shell would, and it says why.
func TestCommandThatCannotBeRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fake.script.Store(script(func(*fake, *websocket.Conn, api.Exec) api.Exit {
		return api.Exit{Code: 127, Message: "cannot run nope: not found"}
	}))
	for _, args := range []string{"vm exec web nope", "vm run --rm -- nope"} {
		if got := w.call(strings.Fields(args)...); got.Code != 127 || got.Err != "error: cannot run nope: not found\n" {
			t.Errorf("%s: %+v", args, got)
		}
	}
}

// The machine of a detached command that could not be run is there, and said.
func TestDetachedCommandThatCannotBeRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fake.script.Store(script(func(*fake, *websocket.Conn, api.Exec) api.Exit {
		return api.Exit{Code: 127, Message: "cannot run nope: not found"}
	}))
	got := w.call("vm", "run", "--name", "new", "-d", "--", "nope")
	if got.Code != 127 || got.Out != "" || !strings.Contains(got.Err, "vm new keeps running") || !strings.Contains(got.Err, "cannot run nope") {
		t.Errorf("%+v", got)
	}
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	t.Run("exec", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.fake.script.Store(script(func(*fake, *websocket.Conn, api.Exec) api.Exit { return api.Exit{Code: 143, TimedOut: true} }))
		if got := w.call("vm", "exec", "--timeout", "1s", "web", "sleep"); got.Code != 124 || !strings.Contains(got.Err, "error (timeout)") {
			t.Errorf("%+v", got)
		}
	})
	t.Run("run before the command began", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.fake.slow = true
		if got := w.call("vm", "run", "--timeout", "50ms", "--", "sleep"); got.Code != 124 || !w.fake.cancelled {
			t.Errorf("%+v", got)
		}
	})
	t.Run("create goes on", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.fake.slow = true
		got := w.call("vm", "create", "--timeout", "1s", "--json")
		if got.Code != 124 || w.fake.cancelled || !strings.Contains(got.Err, `"operation_id":"op-new"`) || !strings.Contains(got.Err, "banger operation wait op-new") {
			t.Errorf("%+v", got)
		}
	})
}

func TestNoWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fake.slow = true
	if got := w.call("vm", "create", "--no-wait"); got.Out != "op-new\n" || got.Code != 0 {
		t.Errorf("%+v", got)
	}
}

func TestOtherBuild(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fake.build = "another"
	if got := w.call("vm", "list", "-q"); got.Code != 0 || !strings.Contains(got.Err, "banger daemon restart") {
		t.Errorf("%+v", got)
	}
	w.fake.stop = func() { w.server.Close() }
	if got := w.call("daemon", "stop"); got.Code != 0 || got.Err != "" {
		t.Errorf("%+v", got)
	}
}

func TestHelpHasTheHostsDefaults(t *testing.T) {
	t.Parallel()
	got := newWorld(t).call("vm", "create", "--help")
	for _, want := range []string{"(default 3)", "(default 8G)", "(default debian-bookworm)", "Examples:"} {
		if !strings.Contains(got.Out, want) {
			t.Errorf("no %q in\n%s", want, got.Out)
		}
	}
	for _, hidden := range []string{"--mem ", "--nat", "--cpus", "--publish", "Aliases"} {
		if strings.Contains(got.Out, hidden) {
			t.Errorf("%q is listed", hidden)
		}
	}
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if got := emptyWorld(t).call("completion", shell); got.Code != 0 || !strings.Contains(got.Out, "banger") {
			t.Errorf("%s: %d %q", shell, got.Code, got.Err)
		}
	}
	got := newWorld(t).call("__complete", "vm", "start", "web", "")
	if words := strings.Fields(got.Out); !slices.Contains(words, "db") || slices.Contains(words, "web") {
		t.Errorf("%+v", got)
	}
	for _, verb := range []string{"start", "stop", "restart", "kill", "delete", "rename", "wait", "show", "set", "logs", "exec", "shell"} {
		if got := newWorld(t).call("__complete", "vm", verb, ""); !slices.ContainsFunc(strings.Fields(got.Out), func(w string) bool { return w == "web" || w == "db" }) {
			t.Errorf("vm %s: %+v", verb, got)
		}
	}
	w := emptyWorld(t)
	if got := w.call("__complete", "vm", "start", ""); got.Code != 0 || !strings.HasPrefix(got.Out, ":4") {
		t.Errorf("%+v", got)
	}
	if entries, _ := os.ReadDir(w.root); len(entries) > 0 {
		t.Errorf("completion made %v", entries)
	}
}

// TestEveryCommandIsDocumented: each has a purpose and an example.
func TestEveryCommandIsDocumented(t *testing.T) {
	t.Parallel()
	root := NewCommand()
	for _, noun := range root.Commands() {
		for _, c := range append(noun.Commands(), noun) {
			if c.Short == "" || c.Example == "" {
				t.Errorf("%s has no purpose or no example", c.CommandPath())
			}
		}
	}
}

// Nothing is lost by a prune of operations, so it asks nobody, and takes the
// word of those who give it anyway.
func TestOperationPruneAsksNobody(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{}, {"--yes"}, {"-y"}} {
		w := newWorld(t)
		w.fake.HandleFunc("POST /v1/operations/prune", func(rw http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(rw, `[{"id":"op-1","status":"succeeded"}]`)
		})
		if got := w.call(append([]string{"operation", "prune"}, args...)...); got.Code != 0 || got.Out != "op-1\n" {
			t.Errorf("%v: %+v", args, got)
		}
	}
}

func TestSplitFilters(t *testing.T) {
	t.Parallel()
	for in, want := range map[string][]string{
		"status=running":                {"status=running"},
		"label=a=b,status=running":      {"label=a=b", "status=running"},
		"label=a=x,y,label=c":           {"label=a=x,y", "label=c"},
		"status=stopped,status=running": {"status=stopped", "status=running"},
		"foo":                           {"foo"},
	} {
		if diff := cmp.Diff(want, splitFilters([]string{in})); diff != "" {
			t.Errorf("%s: %s", in, diff)
		}
	}
	if got := splitFilters(nil); got != nil {
		t.Errorf("%q", got)
	}
}
