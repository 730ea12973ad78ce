package plugintest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// IPAM puts an IPAM plugin into the node's plugin path. It gives result, or an error while FailIPAM
// says so, and keeps a lease for each attachment that has not given its addresses back.
func (n *Node) IPAM(kind, result string) {
	n.tb.Helper()
	n.Script(kind, fmt.Sprintf(`dir=%s lease=%s/${CNI_CONTAINERID}_$CNI_IFNAME
cat >/dev/null
echo $CNI_COMMAND >>%s
[ ! -e %s ] || { echo '{"code":50,"msg":"no address left"}'; exit 1; }
case $CNI_COMMAND in
ADD) mkdir -p $dir; touch $lease; echo '%s' ;;
DEL) rm -f $lease ;;
CHECK) [ -e $lease ] ;;
esac
`, n.leases(), n.leases(), n.calls(), n.failing(), result))
}

func (n *Node) leases() string  { return filepath.Join(n.Dir, "leases") }
func (n *Node) calls() string   { return filepath.Join(n.Dir, "calls") }
func (n *Node) failing() string { return filepath.Join(n.Dir, "failing") }

// FailIPAM makes the plugins of IPAM fail, or work again.
func (n *Node) FailIPAM(fail bool) {
	n.tb.Helper()
	err := os.RemoveAll(n.failing())
	if fail {
		err = os.WriteFile(n.failing(), nil, 0o600)
	}
	if err != nil {
		n.tb.Fatal(err)
	}
}

// Leases lists the attachments that have addresses, a line each.
func (n *Node) Leases() string {
	n.tb.Helper()
	entries, err := os.ReadDir(n.leases())
	if err != nil && !os.IsNotExist(err) {
		n.tb.Fatal(err)
	}
	var b strings.Builder
	for _, e := range entries {
		b.WriteString("lease " + e.Name() + "\n")
	}
	return b.String()
}

// Calls returns the commands that the plugins of IPAM got since the last call, separated by spaces.
func (n *Node) Calls() string {
	n.tb.Helper()
	data, err := os.ReadFile(n.calls())
	if err == nil {
		err = os.Remove(n.calls())
	}
	if err != nil && !os.IsNotExist(err) {
		n.tb.Fatal(err)
	}
	return strings.Join(strings.Fields(string(data)), " ")
}
