package operation

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/store"
)

// childFolder is set for a child that plays the daemon that is killed.
const childFolder = "BANGER_TEST_OPERATION_CHILD"

// TestMain also is that child.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childFolder); dir != "" {
		if err := child(dir, os.Getenv(childFolder+"_HOLD")); err != nil {
			fmt.Println("child:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// files is an operation whose steps make the files A, B and C in dir. With hold
// "X" step X makes its file, says so on stdout and waits for the end; with "-X" it
// is the undo of X, after C failed.
func files(dir, hold string, onCrash OnCrash) Kind {
	return Kind{Name: "files", OnCrash: onCrash, Steps: func(*Op) ([]Step, error) {
		var steps []Step
		for _, n := range []string{"A", "B", "C"} {
			path := filepath.Join(dir, n)
			stay := func() {
				fmt.Println("holding")
				select {}
			}
			steps = append(steps, Step{Name: n,
				Do: func(_ context.Context, op *Op) error {
					if err := op.Set("path of "+n, path); err != nil {
						return err
					}
					if err := os.WriteFile(path, nil, 0o600); err != nil {
						return err
					}
					if hold == n {
						stay()
					}
					if n == "C" && strings.HasPrefix(hold, "-") {
						return errDo
					}
					return nil
				},
				Undo: func(_ context.Context, op *Op) error {
					var noted string
					if !op.Get("path of "+n, &noted) {
						return nil // it never began
					}
					if err := os.Remove(noted); err != nil && !errors.Is(err, os.ErrNotExist) {
						return err
					}
					if hold == "-"+n {
						stay()
					}
					return nil
				}})
		}
		return steps, nil
	}}
}

func child(dir, hold string) error {
	ctx := context.Background()
	db, err := store.Open(ctx, filepath.Join(dir, "banger.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	r := New(db, nil, time.Now, slog.New(slog.DiscardHandler))
	r.Register(files(dir, hold, Resume))
	op, err := r.Begin(ctx, "files", "", nil)
	if err != nil {
		return err
	}
	_, err = r.Wait(ctx, op.ID())
	return err
}

// TestKillDashNine kills a process in the middle of each step and each undo, and
// recovers what it left in this one.
func TestKillDashNine(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		hold    string
		onCrash OnCrash
		left    string
		status  api.OperationStatus
	}{
		{"A", Resume, "ABC", api.OperationSucceeded},
		{"B", Resume, "ABC", api.OperationSucceeded},
		{"C", Resume, "ABC", api.OperationSucceeded},
		{"A", Undo, "", api.OperationInterrupted},
		{"B", Undo, "", api.OperationInterrupted},
		{"C", Undo, "", api.OperationInterrupted},
		{"B", Fail, "AB", api.OperationInterrupted},
		{"-C", Resume, "", api.OperationFailed},
		{"-B", Undo, "", api.OperationFailed},
		{"-A", Resume, "", api.OperationFailed},
	} {
		t.Run(tc.hold+" "+string(tc.onCrash), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			killWhileHolding(t, dir, tc.hold)

			db, err := store.Open(t.Context(), filepath.Join(dir, "banger.db"), slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = db.Close() }()
			r := New(db, nil, time.Now, slog.New(slog.DiscardHandler))
			r.Register(files(dir, "", tc.onCrash))
			if err := r.Recover(t.Context()); err != nil {
				t.Fatal(err)
			}
			list, err := r.List(t.Context(), Filter{})
			if err != nil || len(list) != 1 {
				t.Fatal(list, err)
			}
			o := wait(t, r, list[0].ID)
			if err := r.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			left := ""
			for _, n := range []string{"A", "B", "C"} {
				if _, err := os.Stat(filepath.Join(dir, n)); err == nil {
					left += n
				}
			}
			if o.Status != tc.status || left != tc.left {
				t.Errorf("%s (%v) with files %q, want %s with %q", o.Status, o.Error, left, tc.status, tc.left)
			}
		})
	}
}

func killWhileHolding(t *testing.T, dir, hold string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe)
	cmd.Env = append(os.Environ(), childFolder+"="+dir, childFolder+"_HOLD="+hold)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "holding\n" {
		t.Errorf("the child said %q, %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the child ended well")
	}
}
