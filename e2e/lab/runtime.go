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

// cri calls the node's runtime, as the kubelet does.
func (n *Node) cri(call func(runtimev1.RuntimeServiceClient) error) (err error) {
	conn, err := grpc.NewClient("passthrough:///"+n.Path(n.of.socket),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		grpc.WithContextDialer(func(ctx context.Context, path string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	return call(runtimev1.NewRuntimeServiceClient(conn))
}

// answers returns an error unless the runtime serves the kubelet.
func (n *Node) answers(ctx context.Context) error {
	return n.cri(func(runtime runtimev1.RuntimeServiceClient) error {
		_, err := runtime.Version(ctx, &runtimev1.VersionRequest{})
		return err
	})
}
