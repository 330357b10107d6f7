#!/bin/busybox sh
# The first process of the test machine: makes its devices, runs /work/run.sh, and turns the machine off.
# Serial ports: ttyS0 for the kernel and this script, ttyS1 for the program's output, ttyS2 for its exit status.
/bin/busybox --install -s /bin
export PATH=/usr/bin:/bin HOME=/root
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/shm
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
ln -s /proc/self/fd /dev/fd
mount -t cgroup2 cgroup2 /sys/fs/cgroup || echo "no control groups"

for module in /modules/*.ko; do
    insmod "$module" || echo "$module cannot be loaded"
done

# Busybox has applets of the same names.
ip() { /usr/bin/ip "$@"; }
ulimit -l unlimited
ip link set lo up
# Names that no driver gives: nothing may depend on them.
for rail in 0 1; do
    ip link add reed$rail mtu 4200 address 02:77:00:00:00:0$rail type dummy
    for host in 1 2 3 4; do
        ip address add 10.77.$rail.$host/24 dev reed$rail
    done
    ip link set reed$rail up
    rdma link add zebra$rail type rxe netdev reed$rail
done
# The addresses become GIDs some time later.
for try in $(seq 100); do
    grep -qs ffff: /sys/class/infiniband/zebra[01]/ports/1/gids/4 && [ -e /dev/infiniband/uverbs1 ] && break
    usleep 20000
done

/bin/busybox sh /work/run.sh </dev/null >/dev/ttyS1 2>&1
status=$?
# What is written last is out when the port says so.
stty -F /dev/ttyS1 raw 2>/dev/null
echo $status >/dev/ttyS2
dmesg | grep -E 'BUG:|Oops:|WARNING:|hung task'
usleep 200000
reboot -f
