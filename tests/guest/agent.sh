#!/bin/busybox sh
# The guest's first process: loads modules, mounts, and answers commands from the host (answer.sh, one a virtio port); or, when
# the kernel's command line says switch_to=SERIAL, hands over to the system on that disk. It must never end: the kernel would panic.
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
for word in $(cat /proc/cmdline); do
  case $word in switch_to=*)
    mount -t ext4 "/dev/disk/${word#switch_to=}" /mnt || echo "agent: no system to hand over to"
    umount /dev/pts /dev /sys /proc
    exec switch_root /mnt /sbin/init ;;
  esac
done
mount -t ext4 -o ro /dev/disk/programs /usr || echo "agent: no programs"
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
ifconfig lo 127.0.0.1 up
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up && route add default gw 10.0.2.2
hostname guest

for port in /sys/class/virtio-ports/*; do
  sh /answer "/dev/${port##*/}" &
done
echo "agent: ready"
while true; do wait; sleep 1; done
