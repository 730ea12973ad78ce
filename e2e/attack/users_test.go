package attack_test

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/braid-cni/braid/pkg/weaken"
)

func ofUsers() []attack {
	return []attack{
		{
			"M34 files of root, by a link in a shared directory", localUser, off(weaken.Symlinks),
			func(n *node) bool {
				n.must(os.Symlink(n.path("outside"), n.path("data", "team")))
				n.attached(leased("DIR/data/team", ""))
				return n.entries("outside") > 0
			},
		},
		{
			"M34 a plugin of its choice, by libcni's cache", localUser, off(weaken.Planted),
			func(n *node) bool {
				n.script(n.path("bin", "tool"), "touch "+n.path("ran"))
				p := n.pod("team/p", "")
				results := n.path("state", "cni", "results")
				n.must(os.MkdirAll(results, 0o700))
				entry, err := json.Marshal(map[string]any{
					"kind": "cniCacheV1", "containerId": "id-p", "ifName": "net1", "networkName": "evil",
					"netns":  p.Path,
					"config": []byte(`{"cniVersion":"1.0.0","name":"evil","plugins":[{"type":"tool"}]}`),
					"result": map[string]any{"cniVersion": "1.0.0"},
				})
				n.must(err)
				planted := filepath.Join(results, "evil-id-p-net1")
				n.write(planted, string(entry))
				n.must(os.Chown(planted, nobody, nobody))
				n.must(n.call("DEL", p))
				return n.has("ran")
			},
		},
		{
			"M34 Braid's state, by making its directory first", localUser, off(weaken.StateOwner),
			func(n *node) bool {
				n.must(os.Mkdir(n.path("state"), 0o700))
				n.must(os.Chown(n.path("state"), nobody, nobody))
				return n.starts(n.pod("team/p", ""))
			},
		},
		{
			"M34 Braid's state, by a directory that it may write", localUser, off(weaken.StateOwner),
			func(n *node) bool {
				n.must(os.Mkdir(n.path("state"), 0o700))
				n.must(os.Chmod(n.path("state"), 0o777)) //nolint:gosec // that is the attack
				return n.starts(n.pod("team/p", ""))
			},
		},
		{
			"a program of its choice as root, by the agent's socket", localUser,
			off(weaken.Private, weaken.Peer), func(n *node) bool { return n.asksAgent() == "0" },
		},
		{"which pods the node has", localUser, off(weaken.Private), func(n *node) bool {
			dir, err := os.MkdirTemp("/run", "attack-") // no user enters the directories of tests
			n.must(err)
			n.must(os.Chmod(dir, 0o755)) //nolint:gosec // as /run is
			n.Cleanup(func() { os.RemoveAll(dir) })
			n.own["stateDir"] = filepath.Join(dir, "state")
			n.begins(n.pod("team/p", ""))
			return n.asNobody("ls", filepath.Join(dir, "state", "sandboxes"))
		}},
	}
}
