package lab

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Runtime is the program that runs the containers of a node, by way of runc.
type Runtime string

const (
	Containerd Runtime = "containerd"
	CRIO       Runtime = "crio"
)

// engine is how a runtime is run.
type engine struct {
	binaries []string // of scripts/lab.sh
	argv     []string // argv[0] is one of binaries
	files    map[string][]byte
	socket   string
	load     func(context.Context, *Node, string) error // takes the images of an archive on the node
}

var (
	//go:embed config/containerd.toml
	containerdConfig []byte
	//go:embed config/crio.toml
	crioConfig []byte
	//go:embed config/runc.sh
	runcScript []byte
)

var engines = map[Runtime]*engine{
	Containerd: {
		binaries: []string{"containerd", "containerd-shim-runc-v2", "ctr"},
		argv:     []string{"containerd", "--config=/etc/containerd/lab.toml"},
		files:    map[string][]byte{"/etc/containerd/lab.toml": containerdConfig},
		socket:   "/run/containerd/containerd.sock",
		load: func(ctx context.Context, n *Node, archive string) error {
			_, err := n.Ctr(ctx, "image", "import", archive)
			return err
		},
	},
	CRIO: {
		binaries: []string{"crio", "pinns"},
		argv:     []string{"crio", "--config=/etc/crio/lab.toml", "--config-dir=/etc/crio/none"},
		files: map[string][]byte{
			"/etc/crio/lab.toml":    crioConfig,
			"/etc/crio/runc":        runcScript,
			"/etc/crio/policy.json": []byte(`{"default": [{"type": "insecureAcceptAnything"}]}`),
		},
		socket: "/run/crio/crio.sock",
		load:   copyImages,
	},
}

// LoadImages has the runtime know the images of an archive of the machine. That is an OCI image
// layout, each image with its name in an annotation.
func (n *Node) LoadImages(ctx context.Context, outside string) error {
	inside := "/tmp/" + path.Base(outside)
	if err := n.Install(outside, inside, 0o644); err != nil {
		return err
	}
	if err := n.of.load(ctx, n, inside); err != nil {
		return fmt.Errorf("load %s: %w", outside, err)
	}
	return os.Remove(n.Path(inside))
}

// copyImages copies images to the storage that CRI-O looks into.
func copyImages(ctx context.Context, n *Node, archive string) error {
	text, err := n.Run(ctx, "tar", "-xOf", archive, "index.json")
	if err != nil {
		return err
	}
	var index struct{ Manifests []descriptor }
	if err := json.Unmarshal([]byte(text), &index); err != nil {
		return fmt.Errorf("read index: %w", err)
	}
	for _, image := range index.Manifests {
		// The directories are those of the configuration.
		_, err := n.Run(ctx, "skopeo", "--insecure-policy", "copy", "--quiet",
			"oci-archive:"+archive+":"+image.Annotations[imageRef], "containers-storage:"+
				"[overlay@/var/lib/containers/storage+/run/containers/storage]"+image.Annotations[imageName])
		if err != nil {
			return err
		}
	}
	return nil
}

// Images returns the names of the images that the runtime knows.
func (n *Node) Images(ctx context.Context) (names []string, err error) {
	err = n.dialCRI(func(conn *grpc.ClientConn) error {
		list, err := runtimev1.NewImageServiceClient(conn).ListImages(ctx, &runtimev1.ListImagesRequest{})
		for _, image := range list.GetImages() {
			names = append(names, image.GetRepoTags()...)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	return names, nil
}

// cri calls the node's runtime, as the kubelet does.
func (n *Node) cri(call func(runtimev1.RuntimeServiceClient) error) error {
	return n.dialCRI(func(conn *grpc.ClientConn) error {
		return call(runtimev1.NewRuntimeServiceClient(conn))
	})
}

func (n *Node) dialCRI(call func(*grpc.ClientConn) error) (err error) {
	conn, err := grpc.NewClient("passthrough:///"+n.Path(n.of.socket),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		grpc.WithContextDialer(func(ctx context.Context, path string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	return call(conn)
}

// answers returns an error unless the runtime serves the kubelet.
func (n *Node) answers(ctx context.Context) error {
	return n.cri(func(runtime runtimev1.RuntimeServiceClient) error {
		_, err := runtime.Version(ctx, &runtimev1.VersionRequest{})
		return err
	})
}

// NetworkReady returns an error unless the runtime says that pods can have their network; the error
// is what it says.
func (n *Node) NetworkReady(ctx context.Context) error {
	return n.cri(func(runtime runtimev1.RuntimeServiceClient) error {
		answer, err := runtime.Status(ctx, &runtimev1.StatusRequest{})
		for _, c := range answer.GetStatus().GetConditions() {
			if c.GetType() == runtimev1.NetworkReady && !c.GetStatus() {
				err = errors.New(c.GetMessage())
			}
		}
		return err
	})
}

// ForgetSandbox has CRI-O, which must not run, forget a sandbox when it starts again: it drops one
// that it cannot read, and sends no DEL. What runs in the sandbox is killed. netns is the name of
// its network namespace.
func (n *Node) ForgetSandbox(ctx context.Context, id, netns string) error {
	const script = `rm /var/lib/containers/storage/overlay-containers/$1/userdata/config.json
		ip netns pids $2 | xargs -r kill -KILL`
	if _, err := n.Run(ctx, "sh", "-euc", script, "forget", id, netns); err != nil {
		return fmt.Errorf("have sandbox %s forgotten: %w", id, err)
	}
	return nil
}
