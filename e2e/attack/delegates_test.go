package attack_test

import (
	"time"

	"github.com/braid-cni/braid/pkg/weaken"
)

// within has an operation end after a time.
func (n *node) within(d time.Duration) {
	n.own["timeouts"] = map[string]any{"operation": d.String()}
}

func ofDelegates() []attack {
	return []attack{
		{"M37 the node's memory, by output", delegate, off(weaken.Output), func(n *node) bool {
			n.plugin("flood", "dd if=/dev/zero bs=1M count=4 2>/dev/null && touch "+n.path("flooded"))
			n.attached(`{"cniVersion":"1.0.0","type":"flood"}`)
			return n.has("flooded")
		}},
		{"a pod that neither starts nor fails", delegate, off(weaken.Deadline), func(n *node) bool {
			n.within(4 * time.Second)
			n.plugin("hangs", "sleep 6; touch "+n.path("woke"))
			n.attached(`{"cniVersion":"1.0.0","type":"hangs"}`)
			return n.has("woke")
		}},
		{"a process that outlives it", delegate, off(weaken.Group), func(n *node) bool {
			n.within(4 * time.Second)
			n.plugin("forks", "(sleep 6; touch "+n.path("woke")+") >/dev/null 2>&1 & sleep 6")
			n.attached(`{"cniVersion":"1.0.0","type":"forks"}`)
			time.Sleep(3 * time.Second) // the child would wake up
			return n.has("woke")
		}},
		{"M35 the terminal of who describes a pod", delegate, off(weaken.Printing), func(n *node) bool {
			n.script(n.path("bin", "says"),
				`printf '{"cniVersion":"1.0.0","code":120,"msg":"\\u001b[2J"}'; exit 1`)
			n.nad("team/x", `{"cniVersion":"1.0.0","type":"says"}`)
			err := n.call("ADD", n.pod("team/p", "x"))
			return err != nil && shows(err.Error())
		}},
		{"M26 the uplink, though it was not told of it", delegate, off(weaken.Links), func(n *node) bool {
			n.script(n.path("bin", "thief"), `case "$CNI_COMMAND" in
ADD) ip link set `+uplink+` netns "$CNI_NETNS" && echo '{"cniVersion":"1.0.0"}' ;;
DEL) nsenter --net="$CNI_NETNS" ip link set `+uplink+` netns $$ ;;
esac`)
			_, started := n.attached(`{"cniVersion":"1.0.0","type":"thief"}`)
			return started
		}},
	}
}
