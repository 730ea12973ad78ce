// Command braidctl shows what Braid knows. As kubectl-braid in the PATH it is `kubectl braid`.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/braid-cni/braid/cmd/internal/node"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/kube"
	"github.com/braid-cni/braid/pkg/kube/manifests"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// buildVersion is set by the linker.
var buildVersion = "devel"

// The exit codes: as those of diff and grep.
const (
	exitOK = iota
	exitFound
	exitFailed
)

// timeout bounds one request with its retries.
const timeout = 30 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := run(ctx, os.Args, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// command is one of braidctl's.
type command struct {
	name, summary, text string
	// operands is what the command takes besides flags, as its usage names it; empty for nothing.
	operands string
	// setUp adds the flags and returns what runs after they are parsed.
	setUp func(*flag.FlagSet) func(ctx context.Context, out io.Writer) (found bool, err error)
}

func commands() []command {
	return []command{
		statusCommand(), nodesCommand(), lintCommand(), planCommand(), policyCommand(), gkeCheckCommand(),
		gkeRenderCommand(), listCommand(), tendCommand(), auditCommand(), owedCommand(),
		uninstallCommand(),
	}
}

// run returns the command. Whatever it prints, no object reaches the terminal raw.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	stdout, stderr = strictjson.PrintableWriter(stdout), strictjson.PrintableWriter(stderr)
	me := filepath.Base(args[0])
	if me == "kubectl-braid" {
		me = "kubectl braid"
	}
	args = args[1:]
	if len(args) == 1 && args[0] == "--version" {
		fmt.Fprintln(stdout, me, buildVersion)
		return exitOK
	}
	if c, rest := commandOf(args); c != nil {
		return c.run(ctx, me, rest, stdout, stderr)
	}
	text := usageOf(me)
	if len(args) > 0 && slices.Contains([]string{"help", "-h", "-help", "--help"}, args[len(args)-1]) {
		io.WriteString(stdout, text) //nolint:errcheck // nobody to tell
		return exitOK
	}
	if len(args) > 0 {
		text = fmt.Sprintf("%s: %q is no command\n\n%s", me, strings.Join(args, " "), text)
	}
	io.WriteString(stderr, text) //nolint:errcheck // nobody to tell
	return exitFailed
}

// commandOf returns the command that arguments begin with, and the rest of them; nil for none.
func commandOf(args []string) (*command, []string) {
	for _, c := range commands() {
		words := strings.Fields(c.name)
		if len(args) >= len(words) && strings.Join(args[:len(words)], " ") == c.name {
			return &c, args[len(words):]
		}
	}
	return nil, nil
}

// usageOf lists the commands of the program, which is called me.
func usageOf(me string) string {
	text := "usage: " + me + " COMMAND [flags]\n\n"
	for _, c := range commands() {
		text += fmt.Sprintf("  %-14s %s\n", c.name, c.summary)
	}
	return text + "\n" + me + " COMMAND --help tells more; --version prints the version.\n"
}

// run does the command, and returns the code that the program exits with.
func (c *command) run(ctx context.Context, me string, args []string, stdout, stderr io.Writer) int {
	f := flag.NewFlagSet(me+" "+c.name, flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprintf(f.Output(), "usage: %s [flags]\n\n%s\n\n",
			strings.TrimSpace(me+" "+c.name+" "+c.operands), c.text)
		f.PrintDefaults()
	}
	do := c.setUp(f)
	if err := parse(f, args); errors.Is(err, flag.ErrHelp) {
		return exitOK
	} else if err != nil {
		return exitFailed
	}
	found, err := false, error(nil)
	if f.NArg() > 0 && c.operands == "" {
		err = fmt.Errorf("argument %q is unknown", f.Arg(0))
	} else {
		found, err = do(ctx, stdout)
	}
	switch {
	case err != nil:
		for _, one := range failure.Each(err) {
			fmt.Fprintf(stderr, "%s %s: %s\n", me, c.name, strictjson.Printable(one.Error()))
		}
		return exitFailed
	case found:
		return exitFound
	}
	return exitOK
}

// parse parses flags before, between and after operands, which are f.Args then.
func parse(f *flag.FlagSet, args []string) error {
	var operands []string
	for {
		if err := f.Parse(args); err != nil {
			return err
		}
		if f.NArg() == 0 {
			break
		}
		operands, args = append(operands, f.Arg(0)), f.Args()[1:]
	}
	return f.Parse(append([]string{"--"}, operands...))
}

// kubeconfigFlag returns the flag by which a command finds the API server.
func kubeconfigFlag(f *flag.FlagSet) *string {
	return f.String("kubeconfig", "",
		"kubeconfig `file`; by default $KUBECONFIG, else ~/.kube/config, else the service account of "+
			"the pod")
}

// openAPI finds the API server as kubectl does. Nothing is asked yet.
func openAPI(kubeconfig string) (*kube.API, error) {
	return kube.NewAPI(kube.APIOptions{
		Kubeconfig: cmp.Or(kubeconfig, kube.DefaultKubeconfig()), Version: buildVersion, Timeout: timeout,
	})
}

// sourceFlags returns the flags of a command that can do with a directory of manifests, which open
// prefers to an API server.
func sourceFlags(f *flag.FlagSet) (open func() (node.Source, error)) {
	kubeconfig := kubeconfigFlag(f)
	directory := f.String("manifests", "", "`directory` of manifests in place of an API server")
	return func() (node.Source, error) {
		if *directory == "" {
			return openAPI(*kubeconfig)
		}
		dir, err := filepath.Abs(*directory)
		if err != nil {
			return nil, err
		}
		return manifests.New(dir)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
