#!/bin/sh
# Runs runc. Root in a container or sandbox often lacks CAP_SYS_RESOURCE, and CRI-O, other than
# containerd, takes no notice. So containers get neither that, nor an OOM score below that of this
# process, which takes it. CAP_CHOWN stands in; who has all the others has it, too.
bundle=
for argument; do
	[ "$bundle" != next ] || bundle=$argument
	[ "$argument" != --bundle ] || bundle=next
done
has=$((0x$(awk '/^CapBnd/ { print $2 }' /proc/self/status) >> 24 & 1))
if [ -n "$bundle" ] && [ "$has" = 0 ]; then
	sed -i -e "s/\"oomScoreAdj\": *-[0-9]*/\"oomScoreAdj\":$(cat /proc/self/oom_score_adj)/" \
		-e 's/"CAP_SYS_RESOURCE"/"CAP_CHOWN"/' "$bundle/config.json"
fi
exec runc "$@"
