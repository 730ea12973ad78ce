package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	"github.com/braid-cni/braid/pkg/install/platform"
)

// The arguments and the environment of the DaemonSet are this program's, and what it reads in its
// container is mounted there.
func TestDeployedArguments(t *testing.T) {
	data, err := os.ReadFile("../../conf/deploy/agent.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var d appsv1.DaemonSet
	for documents := utilyaml.NewYAMLOrJSONDecoder(strings.NewReader(string(data)),
		4096); d.Kind != "DaemonSet"; {
		d = appsv1.DaemonSet{}
		if err := documents.Decode(&d); err != nil {
			t.Fatal(err)
		}
	}
	pod := d.Spec.Template.Spec
	c := pod.Containers[0]
	for _, e := range c.Env {
		t.Setenv(e.Name, e.Name)
	}
	o, err := parse(c.Args, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	if o.nodeName != "NODE_NAME" || o.ownNamespace != "POD_NAMESPACE" || o.pod != "POD_NAME" ||
		o.podUID != "POD_UID" {
		t.Errorf("environment: %+v", o)
	}
	if o.namespace != d.Namespace || o.account != "braid-cni" || o.place.Profile != "" {
		t.Errorf("options: %+v", o)
	}
	for _, path := range []string{o.token, o.runDir, o.config} {
		if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
			return path == m.MountPath || strings.HasPrefix(path, m.MountPath+"/")
		}) {
			t.Errorf("nothing is mounted at %s", path)
		}
	}
}

// The profiles of the Helm chart are those that this program knows.
func TestDeployedProfiles(t *testing.T) {
	for _, name := range platform.Names() {
		data, err := os.ReadFile("../../conf/helm/braid/profiles/" + name + ".yaml")
		if err != nil || !strings.Contains(string(data), "\nprofile: "+name+"\n") {
			t.Errorf("profile %s: %v", name, err)
		}
	}
	files, err := os.ReadDir("../../conf/helm/braid/profiles")
	if err != nil || len(files) != len(platform.Names()) {
		t.Errorf("%d profiles, %v, want %d", len(files), err, len(platform.Names()))
	}
}
