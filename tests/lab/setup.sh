# The first thing that runs in a lab host, as root; safe to run again. It makes
# of a guest a host: modules, devices, users, the disk /lab.
#   setup.sh USER    who the next command runs as: the store is theirs
set -eu
user=$1
disk() { # the virtio disk with that serial
  for d in /sys/block/vd*; do
    if [ "$(cat "$d/serial")" = "$1" ]; then echo "/dev/${d##*/}"; return; fi
  done
  echo "no disk $1" >&2; exit 1
}

systemd() { [ -d /run/systemd/system ]; } # it is process 1, with udev

if [ ! -e /run/lab-ready ]; then
  dmesg -n 1
  modprobe -a kvm_amd tun dm_snapshot loop vhost_vsock br_netfilter vsock_loopback xfs
  if systemd; then udevadm settle; fi

  getent group kvm >/dev/null || echo kvm:x:108: >>/etc/group
  if ! getent passwd dev >/dev/null; then
    echo 'dev:x:1000:1000:dev:/home/dev:/bin/bash' >>/etc/passwd
    echo 'dev:x:1000:' >>/etc/group
    echo 'dev:*:19700:0:99999:7:::' >>/etc/shadow # or PAM gives them no session
    sed -i 's/^kvm:\(.*\):\(.*\):.*/kvm:\1:\2:dev/' /etc/group
    echo dev:1000000:65536 >>/etc/subuid
    echo dev:1000000:65536 >>/etc/subgid
    mkdir -p /home/dev; chown 1000:1000 /home/dev
  fi
  chgrp kvm /dev/kvm /dev/vhost-vsock /dev/vhost-net 2>/dev/null || true
  chmod 660 /dev/kvm; chmod 666 /dev/vhost-vsock /dev/net/tun
  ip link set lo up
  if systemd; then
    loginctl enable-linger dev
    systemctl start user@1000.service || { journalctl -b --no-pager -n 30; exit 1; }
  else
    mkdir -p /run/user/1000; chown 1000:1000 /run/user/1000; chmod 700 /run/user/1000
  fi

  # The store is a disk shared by all labs; what is written goes to a disk of
  # this lab's own.
  data=$(disk data)
  echo "0 $(cat "/sys/block/${data#/dev/}/size") snapshot $data $(disk cow) P 8" | dmsetup create lab
  dmsetup mknodes lab
  mkdir -p /lab
  mount -o noinit_itable,discard /dev/mapper/lab /lab
  mount -o ro "$(disk in)" /lab/in
  chmod 755 /lab; chmod 1777 /lab/tmp /lab/out
  touch /run/lab-ready
fi
chown -R "$user:" /lab/root
