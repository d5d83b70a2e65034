#!/bin/bash
# Cuts a lab host's power under machines whose root disks are device-mapper's, boots it again and looks: nothing
# is left in the host, nothing that was flushed is lost, and they start. Ends with "power cut: passed".
#   make lab-power-cut
set -euo pipefail
state=$(mktemp -d /var/tmp/banger-cut.XXXXXX)
trap 'rm -rf "$state"' EXIT

echo "== a host with two machines, and the cut"
bin/lab run -state "$state" -cut -timeout 15m -- bash -euo pipefail -c '
  banger vm create --name fc --root-disk dm-snapshot --system-overlay-size 1G --network none --progress plain
  banger vm create --name qemu --driver qemu --root-disk dm-snapshot --system-overlay-size 1G --network none --progress plain
  for vm in fc qemu; do banger vm exec $vm -- sh -c "echo kept > /etc/mark; rm /etc/motd; sync; echo perhaps > /etc/unsynced"; done
  [ "$(cat /sys/block/dm-*/dm/name | grep -c ^banger-)" = 4 ]
  [ "$(ls -d /sys/block/loop*/loop | wc -l)" = 4 ]
  banger vm list; sync' </dev/null

echo "== the host again"
bin/lab run -state "$state" -timeout 15m -- bash -euo pipefail -c '
  left() { { cat /sys/block/dm-*/dm/name | grep ^banger- || true; ls -d /sys/block/loop*/loop 2>/dev/null || true; }; }
  [ -z "$(left)" ]
  banger vm list
  for vm in fc qemu; do
    banger vm show $vm --json | jq -e ".status == \"stopped\" and (.error.message | contains(\"restarted\"))"
    banger vm start $vm --progress plain
    banger vm exec $vm -- sh -c "cat /etc/mark; test ! -e /etc/motd; ! dmesg | grep -i \"ext4.*error\"" | grep -x kept
    banger vm stop $vm
    e=; for i in 1 2 3 4 5 6 7 8 9 10; do e=$(left); [ -z "$e" ] && break; sleep 0.5; done; [ -z "$e" ]
  done
  banger vm delete --yes fc qemu
  [ -z "$(ls /lab/root/state/vms)" ]' </dev/null
echo "power cut: passed"
