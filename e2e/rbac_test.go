package e2e_test

import (
	"slices"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// The CustomResourceDefinition is established, with the names and the schema that the specification
// has.
func TestS2CustomResourceDefinition(t *testing.T) {
	w := newWorkspace(t)
	out, err := w.cluster.Kubectl(w.ctx, "get", "crd",
		"network-attachment-definitions.k8s.cni.cncf.io", "--output=jsonpath="+
			`{.status.conditions[?(@.type=="Established")].status} {.status.acceptedNames.kind} `+
			`{.status.acceptedNames.plural} {.spec.scope} {.status.storedVersions[0]}`)
	want := "True NetworkAttachmentDefinition network-attachment-definitions Namespaced v1"
	if err != nil || out != want {
		t.Errorf("the CRD is %q, %v, want %q", out, err, want)
	}
	_, err = w.cluster.Kubectl(w.ctx, "api-resources") // kubectl's own cache may be older than the CRD
	w.must(err)
	out, err = w.cluster.Kubectl(w.ctx, "explain", "nad.spec")
	if err != nil || !strings.Contains(out, "config") {
		t.Errorf("kubectl explain nad.spec: %s, %v", out, err)
	}
	err = w.cluster.Apply(w.ctx, `{"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
		"metadata": {"name": "object", "namespace": "`+w.namespace+`"}, "spec": {"config": {"type": "macvlan"}}}`)
	if err == nil || !strings.Contains(err.Error(), "spec.config") {
		t.Errorf("a config that is no string: %v, want an error that names spec.config", err)
	}
}

// Braid's account may do what it needs and nothing else: its rules beyond those of any account are
// these.
func TestU12NodeAccount(t *testing.T) {
	w := newWorkspace(t)
	nobody := w.rules("system:serviceaccount:"+w.namespace+":default", "system:serviceaccounts")
	var got []string
	for _, rule := range w.rules(account, "system:serviceaccounts") {
		if !slices.Contains(nobody, rule) {
			got = append(got, rule)
		}
	}
	equalLines(t, "what Braid may do beyond any account", got, []string{
		"create events",
		"create ipblocks.ipam.braid-cni.io",
		"delete ipblocks.ipam.braid-cni.io",
		"get ipamclaims.k8s.cni.cncf.io",
		"get ipblocks.ipam.braid-cni.io",
		"get namespaces",
		"get network-attachment-definitions.k8s.cni.cncf.io",
		"get nodes",
		"get pods",
		"get resourceclaims.resource.k8s.io",
		"list ipblocks.ipam.braid-cni.io",
		"list nodes",
		"list resourceslices.resource.k8s.io",
		"patch ipamclaims/status.k8s.cni.cncf.io",
		"patch ipblocks/status.ipam.braid-cni.io",
		"patch pods/status",
		"update ipblocks.ipam.braid-cni.io",
	})
	// As operators ask it, and with the account's own token.
	for question, want := range map[string]string{
		"get pods": "yes", "patch pods --subresource=status": "yes", "create events": "yes",
		"get nad":   "yes",
		"list pods": "no", "update pods": "no", "patch pods": "no", "delete pods": "no",
		"get secrets": "no", "list nad": "no", "create nad": "no",
		"update nodes": "no", "watch nodes": "no", "delete events": "no", "watch ipblocks": "no",
		"patch ipamclaims": "no", "delete ipamclaims": "no",
	} {
		args := append([]string{"auth", "can-i", "--as=" + account, "--namespace=" + w.namespace},
			strings.Fields(question)...)
		out, _ := w.cluster.Kubectl(w.ctx, args...) // "no" is a failure to kubectl
		if got := strings.TrimSpace(out); got != want {
			t.Errorf("kubectl auth can-i %s: %q, want %q", question, got, want)
		}
	}
}

// rules is what a user may do in the test's namespace, each as "verb resource", sorted.
func (w *workspace) rules(user string, groups ...string) []string {
	w.t.Helper()
	review := &authorizationv1.SelfSubjectRulesReview{
		Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: w.namespace},
	}
	review, err := w.as(user, append(groups, "system:authenticated")...).AuthorizationV1().
		SelfSubjectRulesReviews().Create(w.ctx, review, metav1.CreateOptions{})
	w.must(err)
	if review.Status.Incomplete && review.Status.EvaluationError == "" {
		w.t.Fatalf("rules of %s are not all known", user)
	}
	var all []string
	for _, rule := range review.Status.ResourceRules {
		for _, verb := range rule.Verbs {
			for i, resource := range rule.Resources {
				if group := rule.APIGroups[min(i, len(rule.APIGroups)-1)]; group != "" {
					resource += "." + group
				}
				all = append(all, strings.Join(append([]string{verb, resource}, rule.ResourceNames...), " "))
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// as is a client of a user that the administrator impersonates.
func (w *workspace) as(user string, groups ...string) kubernetes.Interface {
	w.t.Helper()
	config := rest.CopyConfig(w.cluster.AdminConfig())
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: groups}
	client, err := kubernetes.NewForConfig(config)
	w.must(err)
	return client
}

// The two roles for people: one sees NADs, the other makes and changes them, in the namespace where
// they are bound; nobody else does.
func TestU12Roles(t *testing.T) {
	w := newWorkspace(t)
	w.nad("blue", macvlan("10.12.1.0/24"))
	elsewhere := w.newNamespace("u12-elsewhere")
	for user, role := range map[string]string{
		"vera": "braid-nad-viewer", "adam": "braid-nad-admin", "edith": "edit",
	} {
		binding := &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: user},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: user}},
		}
		_, err := w.cluster.Client().RbacV1().RoleBindings(w.namespace).
			Create(w.ctx, binding, metav1.CreateOptions{})
		w.must(err)
	}
	read, write := []string{"get", "list", "watch"}, []string{
		"create", "update", "patch", "delete", "deletecollection",
	}
	for user, want := range map[string][]string{
		"vera": read, "adam": slices.Concat(read, write), "edith": nil,
	} {
		var can []string
		for _, verb := range slices.Concat(read, write) {
			if w.can(user, verb, w.namespace) {
				can = append(can, verb)
			}
			if w.can(user, verb, elsewhere) {
				t.Errorf("%s may %s NADs of a namespace where no role is bound", user, verb)
			}
		}
		equalLines(t, "what "+user+" may do with NADs", can, want)
	}

	// Not only in theory.
	path := "/apis/" + nadv1.GroupName + "/" + nadv1.Version + "/namespaces/" + w.namespace + "/" +
		nadv1.Resource + "/blue"
	if err := w.as("vera").CoreV1().RESTClient().Get().AbsPath(path).Do(w.ctx).Error(); err != nil {
		t.Errorf("the viewer does not see a NAD: %v", err)
	}
	err := w.as("vera").CoreV1().RESTClient().Delete().AbsPath(path).Do(w.ctx).Error()
	if !apierrors.IsForbidden(err) {
		t.Errorf("the viewer deletes a NAD: %v", err)
	}
	if err := w.as("adam").CoreV1().RESTClient().Delete().AbsPath(path).Do(w.ctx).Error(); err != nil {
		t.Errorf("the admin does not delete a NAD: %v", err)
	}
}

func (w *workspace) can(user, verb, namespace string) bool {
	w.t.Helper()
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user,
		ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: namespace, Verb: verb, Group: nadv1.GroupName, Resource: nadv1.Resource,
		},
	}}
	review, err := w.cluster.Client().AuthorizationV1().SubjectAccessReviews().
		Create(w.ctx, review, metav1.CreateOptions{})
	w.must(err)
	return review.Status.Allowed
}

// The kubeconfig on the node is the account's, and works as it is.

func TestNodeKubeconfig(t *testing.T) {
	w := newWorkspace(t)
	config, err := clientcmd.BuildConfigFromFlags("", w.node.Path(kubeconfig))
	w.must(err)
	config.Dial = w.cluster.AdminConfig().Dial
	client, err := kubernetes.NewForConfig(config)
	w.must(err)
	self, err := client.AuthenticationV1().SelfSubjectReviews().
		Create(w.ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	w.must(err)
	if got := self.Status.UserInfo.Username; got != account {
		t.Errorf("the node's kubeconfig is that of %s, want %s", got, account)
	}
	_, err = client.CoreV1().Pods(w.namespace).List(w.ctx, metav1.ListOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("it lists pods: %v, want it forbidden", err)
	}
}
