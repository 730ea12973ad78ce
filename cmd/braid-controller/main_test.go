package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/braid-cni/braid/e2e/lab"
	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	"github.com/braid-cni/braid/pkg/kube"
)

// works is in the log of the instance that works.
const works = `"block of a lost node freed"`

// asController makes the test binary braid-controller.
const asController = "BRAID_TEST_AS_CONTROLLER"

var cluster = lab.NewShared(lab.NewAPI)

func TestMain(m *testing.M) {
	if os.Getenv(asController) != "" {
		main()
	}
	code := cluster.Main(m)
	if err := admissionCluster.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// instance is a process that is braid-controller.
type instance struct {
	*exec.Cmd
	log *os.File
}

func start(t *testing.T, args ...string) *instance {
	t.Helper()
	return startBinary(t, os.Args[0], args...)
}

func startBinary(t *testing.T, binary string, args ...string) *instance {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env, cmd.Stderr, cmd.Stdout = append(os.Environ(), asController+"=1"), log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill() //nolint:errcheck // it may have ended
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("log of %d:\n%s", cmd.Process.Pid, text)
		}
	})
	return &instance{cmd, log}
}

func (i *instance) says(t *testing.T, text string) bool {
	t.Helper()
	log, err := os.ReadFile(i.log.Name())
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(log, []byte(text))
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("in vain: ", what)
		}
	}
}

// lose makes a block of a node that does not exist, and returns the instance that frees it. An
// instance says so a moment after the block is gone.
func lose(t *testing.T, api *kube.API, cidr string, instances ...*instance) (by *instance) {
	t.Helper()
	name := "s-" + strings.NewReplacer(".", "-", "/", "-").Replace(cidr)
	_, err := api.CreateBlock(t.Context(),
		&v1alpha1.IPBlock{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.IPBlockSpec{
			Space: "s", CIDR: cidr, Owner: &v1alpha1.Node{NodeName: "gone", NodeUID: "u"},
		}})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "block "+name+" is freed", func() bool {
		_, err := api.Block(t.Context(), name)
		return apierrors.IsNotFound(err)
	})
	eventually(t, "one says that it has freed "+name, func() bool {
		at := slices.IndexFunc(instances, func(i *instance) bool {
			return i.says(t, works+" block="+name)
		})
		if at >= 0 {
			by = instances[at]
		}
		return at >= 0
	})
	return by
}

// Of two instances one works. The other takes over at once from one that was stopped, and after a
// while from one that was killed. Both may do no more than conf/rbac/controller.yaml allows.
func TestTwoInstances(t *testing.T) {
	server := cluster.Get(t)
	for _, path := range []string{"crd/ipblocks.yaml", "rbac/controller.yaml"} {
		manifests, err := os.ReadFile("../../conf/" + path)
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Apply(t.Context(), string(manifests)); err != nil {
			t.Fatal(err)
		}
	}
	config, err := server.Kubeconfig("system:serviceaccount:kube-system:braid-controller")
	if err != nil {
		t.Fatal(err)
	}
	admin, err := server.Kubeconfig(lab.UserAdmin)
	if err != nil {
		t.Fatal(err)
	}
	api, err := kube.NewAPI(kube.APIOptions{Kubeconfig: admin})
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	flags := []string{"--kubeconfig", config, "--interval", "100ms", "--grace", "1ms"}
	first := start(t, flags...)
	lose(t, api, "10.0.0.0/28", first)
	second, third := start(t, flags...), start(t, flags...)
	for _, i := range []*instance{second, third} {
		eventually(t, "another hears of the first", func() bool { return i.says(t, "there is a leader") })
	}
	lose(t, api, "10.0.0.16/28", first)
	if second.says(t, works) || third.says(t, works) {
		t.Error("two work")
	}
	if err := first.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := first.Wait(); err != nil || first.says(t, "pass failed") {
		t.Errorf("the first ends with %v, or a pass failed", err)
	}
	leader, last := lose(t, api, "10.0.0.32/28", second, third), third
	if leader == third {
		last = second
	}
	if last.says(t, works) {
		t.Error("two work after the first has ended")
	}
	if err := leader.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	lose(t, api, "10.0.0.48/28", last)
}

// The Deployment's arguments are those of this program.
func TestDeployedArguments(t *testing.T) {
	data, err := os.ReadFile("../../conf/deploy/controller.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var d appsv1.Deployment
	if err := yaml.UnmarshalStrict(data, &d); err != nil {
		t.Fatal(err)
	}
	o, err := parse(d.Spec.Template.Spec.Containers[0].Args, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	if o.namespace != d.Namespace || !o.adopt || !o.admission.enabled || o.admission.config == "" {
		t.Errorf("options %+v", o)
	}
}

func TestCommandLine(t *testing.T) {
	for args, want := range map[string]struct {
		code int
		says string
	}{
		"--version":                      {0, "braid-controller devel"},
		"--help":                         {0, "node.kubernetes.io/out-of-service"},
		"--interval 0s":                  {2, `"0s" for flag -interval`},
		"--grace -1s":                    {2, `"-1s" for flag -grace`},
		"--interval soon":                {2, `"soon" for flag -interval`},
		"--log-level loud":               {2, `"loud" for flag -log-level`},
		"--colour":                       {2, "-colour"},
		"now":                            {2, `"now"`},
		"--kubeconfig /nowhere/config":   {1, "/nowhere/config"},
		"--namespace x --kubeconfig /no": {1, "lease x/braid-controller"},
	} {
		var out bytes.Buffer
		code := run(strings.Fields(args), &out, &out)
		if code != want.code || !strings.Contains(out.String(), want.says) {
			t.Errorf("%s: %d, %s", args, code, &out)
		}
	}
}

// Without an API server it waits for one.
func TestNoServer(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config")
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c",`+
		`"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],`+
		`"clusters":[{"name":"c","cluster":{"server":%q}}],"users":[{"name":"u","user":{"token":"t"}}]}`,
		"http://127.0.0.1:9")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	i := start(t, "--kubeconfig", config)
	eventually(t, "it says what is wrong", func() bool { return i.says(t, "127.0.0.1:9") })
	if err := i.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := i.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
}
