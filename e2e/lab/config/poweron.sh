# Makes an empty /run, and another boot.
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir /run/netns /run/lock
for file in /proc/sys/kernel/random/boot_id /proc/stat; do
	umount -l "$file" 2>/dev/null || : # of the boot before
done
cat /proc/sys/kernel/random/uuid >/run/lock/boot_id
sed "s/^btime .*/btime $(date +%s)/" /proc/stat >/run/lock/stat
mount --bind /run/lock/boot_id /proc/sys/kernel/random/boot_id
mount --bind /run/lock/stat /proc/stat
