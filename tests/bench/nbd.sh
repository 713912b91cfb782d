#!/bin/bash
# nbd.sh [SECONDS]: a disk of ours beside qemu-nbd and nbdkit on the same machine in the same run, through fio and
# nbdcopy. Prints one line a measurement: rate, mean latency, and CPU microseconds of the server for each request.
# Everything lives in a temporary folder. CUMULUS_BIN names the programs (default: the release build).
set -euo pipefail
seconds=${1:-4}
here=$(cd "$(dirname "$0")" && pwd)
bin=${CUMULUS_BIN:-$here/../../build/release/bin}
work=$(mktemp -d -t cumulus-nbd-bench-XXXXXX)
export CUMULUS_HOME=$work/home
size=${CUMULUS_BENCH_BYTES:-512M}
peers=()
finish() {
  for pid in "${peers[@]}"; do kill "$pid" 2>/dev/null || true; done
  for volume in v scattered; do "$bin/cumulus" volume stop $volume >/dev/null 2>&1 || true; done
  "$bin/cumulus" devnet down --dir "$work/net" >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap finish EXIT
PYTHONPATH=$here python3 -Bc 'import processes; processes.print_machine()'

ticks() { awk '{sub(/.*\) /, ""); print $12 + $13}' "/proc/$1/stat"; }
measure() {  # name pid uri rw bs depth [fio options]
  local name=$1 pid=$2 uri=$3 rw=$4 bs=$5 depth=$6
  shift 6
  local before after
  before=$(ticks "$pid")
  fio --name=x --ioengine=nbd --uri="$uri" --rw="$rw" --bs="$bs" --iodepth="$depth" --size="$size" --time_based \
    --runtime="$seconds" --norandommap --randrepeat=0 --output-format=json "$@" >"$work/out" 2>/dev/null
  after=$(ticks "$pid")
  python3 - "$work/out" "$name $rw $bs depth $depth $*" $((after - before)) "$(getconf CLK_TCK)" <<'PY'
import json, sys
text = open(sys.argv[1]).read()
job = json.loads(text[text.index('{'):])['jobs'][0]
side = max((job['read'], job['write']), key=lambda one: one['total_ios'])
cpu = int(sys.argv[3]) / int(sys.argv[4]) / max(side['total_ios'], 1) * 1e6
print(f"{sys.argv[2]:52} {side['iops']:9.0f}/s {side['bw'] / 1024:8.1f} MiB/s {side['lat_ns']['mean'] / 1000:9.0f} us  cpu {cpu:7.1f} us")
PY
}
fua() {  # name uri: writes of 4 KiB with FUA, 32 in flight
  /usr/bin/python3 - "$1" "$2" "$seconds" <<'PY'
import nbd, os, random, sys, time
name, uri, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
disk = nbd.NBD()
disk.connect_uri(uri)
blocks, data = disk.get_size() // 4096, nbd.Buffer.from_bytearray(bytearray(os.urandom(4096)))
flights, done, end = [], 0, time.monotonic() + seconds
while time.monotonic() < end or flights:
    while len(flights) < 32 and time.monotonic() < end:
        flights.append(disk.aio_pwrite(data, 4096 * random.randrange(blocks), flags=nbd.CMD_FLAG_FUA))
    disk.poll(-1)
    left = [cookie for cookie in flights if not disk.aio_command_completed(cookie)]
    done += len(flights) - len(left)
    flights = left
print(f'{name + " write 4k depth 32, FUA on each":52} {done / seconds:9.0f}/s')
PY
}
scattered() {  # writes: once each block of stretches all over a large disk, in random order; what the index has of each
  local cumulus=$bin/cumulus
  "$cumulus" volume create scattered --miners "$work/net/miners.toml" >/dev/null
  "$cumulus" image create scattered/disk --size 256G
  "$cumulus" nbd serve scattered/disk --socket "$work/scattered" >/dev/null
  local pid
  pid=$("$cumulus" --json volume status scattered | python3 -c 'import json, sys; print(json.load(sys.stdin)["daemon_pid"])')
  /usr/bin/python3 - "nbd+unix:///disk?socket=$work/scattered" "$1" <<'PY'
import nbd, os, random, sys
disk, writes = nbd.NBD(), int(sys.argv[2])
disk.connect_uri(sys.argv[1])
stretches = random.sample(range(disk.get_size() >> 18), writes // 64)
blocks = [64 * stretch + block for stretch in stretches for block in range(64)]
random.shuffle(blocks)
data = nbd.Buffer.from_bytearray(bytearray(os.urandom(4096)))
for block in blocks:
    while disk.aio_in_flight() >= 64:
        disk.poll(-1)
    disk.aio_pwrite(data, 4096 * block, completion=lambda error: 1)
while disk.aio_in_flight():
    disk.poll(-1)
disk.flush()
PY
  local peak
  peak=$(awk '/VmHWM/ {print int($2 / 1024)}' "/proc/$pid/status")
  "$cumulus" volume sync scattered
  "$cumulus" volume stop scattered
  du -sb "$CUMULUS_HOME/volumes/scattered/index" | awk -v writes="$1" -v peak="$peak" '{each = $1 / writes
    printf "%d scattered 4k writes: %.1f bytes of index each (asked: at most 40), so %.2f GiB for 256 GiB of them; daemon at most %d MiB\n",
      writes, each, each / 16, peak}'
}
workloads() {  # name pid uri
  # Filled first, so that nobody is measured on holes.
  fio --name=fill --ioengine=nbd --uri="$3" --rw=write --bs=1M --iodepth=8 --size="$size" >/dev/null 2>&1
  measure "$1" "$2" "$3" write 1M 8
  measure "$1" "$2" "$3" read 1M 8
  measure "$1" "$2" "$3" randread 4k 32
  measure "$1" "$2" "$3" randread 4k 1
  measure "$1" "$2" "$3" randwrite 4k 32
  measure "$1" "$2" "$3" randwrite 4k 32 --fsync=32
  fua "$1" "$3"
}
wait_for() { for _ in $(seq 100); do [ -S "$1" ] && return; sleep 0.1; done; echo "no server on $1" >&2; exit 1; }

truncate -s "$size" "$work/raw" "$work/raw2"
qemu-nbd -f raw -t -e 8 -k "$work/qemu" "$work/raw" & peers+=($!)
wait_for "$work/qemu"
workloads qemu-nbd "${peers[0]}" "nbd+unix:///?socket=$work/qemu"
nbdkit -f -U "$work/kit-file" file "$work/raw2" & peers+=($!)
wait_for "$work/kit-file"
workloads nbdkit-file "${peers[1]}" "nbd+unix:///?socket=$work/kit-file"
nbdkit -f -U "$work/kit-memory" memory "$size" & peers+=($!)
wait_for "$work/kit-memory"
workloads nbdkit-memory "${peers[2]}" "nbd+unix:///?socket=$work/kit-memory"

"$bin/cumulus" devnet up --miners 6 --dir "$work/net" >/dev/null
"$bin/cumulus" volume create v --miners "$work/net/miners.toml" >/dev/null
"$bin/cumulus" image create v/disk --size "$size"
"$bin/cumulus" nbd serve v/disk --socket "$work/ours" >/dev/null
daemon=$("$bin/cumulus" --json volume status v | python3 -c 'import json, sys; print(json.load(sys.stdin)["daemon_pid"])')
workloads cumulus "$daemon" "nbd+unix:///disk?socket=$work/ours"
"$bin/cumulus" nbd stop v/disk
"$bin/cumulus" nbd serve v/disk --socket "$work/ours" --reconnect-safe >/dev/null
measure "cumulus --reconnect-safe" "$daemon" "nbd+unix:///disk?socket=$work/ours" randwrite 4k 32
measure "cumulus --reconnect-safe" "$daemon" "nbd+unix:///disk?socket=$work/ours" randwrite 4k 32 --fsync=32
time nbdcopy "nbd+unix:///disk?socket=$work/ours" null:
scattered 131072
