# Ends all that runs on a node but its first process, which holds the namespaces. Arguments are NICs
# that come back as new.
case $(readlink /proc/1/exe) in
*/nodeinit) ;;
*)
	echo "this is no node of a lab" >&2
	exit 1
	;;
esac
killed=yes
while [ -n "$killed" ]; do
	killed=
	for pid in /proc/[0-9]*; do
		pid=${pid#/proc/}
		if [ "$pid" != 1 ] && [ "$pid" != $$ ] && kill -KILL "$pid" 2>/dev/null; then killed=yes; fi
	done
	sleep 0.02
done
awk '$5 ~ "^/var/lib/kubelet/" { print $5 }' /proc/self/mountinfo | sort -r | xargs -r umount -l
while mountpoint -q /run; do umount -l /run; done
for link in /sys/class/net/*; do
	case " lo eth0 eth1 $* " in
	*" ${link##*/} "*) ;;
	*) ip link delete "${link##*/}" 2>/dev/null || : ;; # it may have gone with its peer
	esac
done
for nic; do
	ip address flush dev "$nic"
	ip link set "$nic" down
done
nft flush ruleset
