#!/bin/busybox sh
# The guest's first process: loads modules, mounts, and answers commands from the host. Each virtio port is one shell that
# runs one command at a time: a line "ID BASE64", then the command's output as it comes, then "\001END ID CODE".
# It must never end: the kernel would panic.
export PATH=/bin:/usr/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts /dev/disk
mount -t devpts pts /dev/pts
while read -r module; do insmod "/modules/$module" || echo "agent: $module does not load"; done < /modules/order

# Disks by the serial number that the host gave them.
for block in /sys/block/vd*; do
  serial=$(cat "$block/serial" 2>/dev/null)
  [ -n "$serial" ] && ln -sf "/dev/${block##*/}" "/dev/disk/$serial"
done
mount -t ext4 -o ro /dev/disk/programs /usr || echo "agent: no programs"
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
ifconfig lo 127.0.0.1 up
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up && route add default gw 10.0.2.2
hostname guest

answer() {
  exec 3<>"$1"
  script=/run/command.${1##*/}
  printf '\001END ready 0\n' >&3
  while read -r id words <&3; do
    echo "$words" | base64 -d > "$script"
    sh "$script" </dev/null >&3 2>&1 3>&-
    code=$?
    rm -f "$script"
    printf '\001END %s %s\n' "$id" "$code" >&3
  done
}
for port in /sys/class/virtio-ports/*; do
  answer "/dev/${port##*/}" &
done
echo "agent: ready"
while true; do wait; sleep 1; done
