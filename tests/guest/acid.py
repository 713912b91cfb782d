"""What a disk must bear, whoever serves it: file systems made on it in a guest, verified load, trim that gives space back, a
power cut with what was synced intact, a server that dies under load and comes back. attach_test.py says on which exports."""
import threading
import time

from guest import Guest, Wrong, expect

MIB = 1 << 20
FIO = ('fio --name=load --directory=/mnt/{fs} --size=24M --rw=randwrite --bsrange=512-65536 --blockalign=512 --ioengine=psync '
       '--fsync=64 --verify=crc32c --do_verify=1 --verify_fatal=1 --randseed={seed} --minimal > /tmp/fio.{fs} 2>&1 || {{ cat /tmp/fio.{fs}; false; }}')
# Files, each synced before it is acknowledged.
FILES = '''n=0
while true; do
  n=$((n + 1))
  head -c $(( ($(od -An -tu2 -N2 /dev/urandom) + 1) * 8 )) /dev/urandom > /tmp/new.$$
  dd if=/tmp/new.$$ of={folder}/file-$n bs=64k conv=fsync 2>/dev/null || exit 1
  echo "synced file-$n $(sha256sum < /tmp/new.$$ | cut -c 1-64)"
done
'''
MAKE = {'ext4': 'mkfs.ext4 -q -E nodiscard', 'xfs': 'mkfs.xfs -q -f -K'}
CHECK = {'ext4': 'e2fsck -fn', 'xfs': 'xfs_repair -n'}


def machine(directory, exports):
    """A guest with one disk for each file system: exports is {'ext4': export, 'xfs': export} or one of them."""
    return Guest(directory, {fs: export.drive() for fs, export in exports.items()})


def mount(guest, exports):
    for fs in exports:
        guest.run(f'mkdir -p /mnt/{fs} && mount -t {fs} /dev/disk/{fs} /mnt/{fs}')


def check(guest, exports):
    """Mounts, so that the journal is replayed, and then finds nothing to repair."""
    mount(guest, exports)
    for fs in exports:
        guest.run(f'umount /mnt/{fs} && {CHECK[fs]} /dev/disk/{fs}', timeout=300)
    mount(guest, exports)


def make(guest, exports):
    for fs in exports:
        guest.run(f'{MAKE[fs]} /dev/disk/{fs}', timeout=300)
    mount(guest, exports)


def verified_load(guest, exports, seed):
    for fs in exports:
        guest.run(FIO.format(fs=fs, seed=seed), timeout=600)


def verified_again(guest, exports, seed):
    """What the load wrote is still there after a boot."""
    for fs in exports:
        guest.run(FIO.format(fs=fs, seed=seed).replace('--do_verify=1', '--verify_only'), timeout=600)


def trim(guest, exports, size=64 * MIB):
    for fs, export in exports.items():
        guest.run(f'head -c {size} /dev/urandom > /mnt/{fs}/big && sync', timeout=300)
        before = export.allocated()
        guest.run(f'rm /mnt/{fs}/big')
        gone, until = 0, time.monotonic() + 60
        while gone < size * 9 // 10 and time.monotonic() < until:  # XFS frees a removed file's blocks in its own time
            guest.run(f'sync && fstrim /mnt/{fs} && sync', timeout=300)
            gone = before - export.allocated()
        expect(gone >= size * 9 // 10, f'{fs}: a file of {size} bytes was removed and trimmed, and {gone} bytes became holes')


class SyncedFiles:
    """Files written and synced in the guest until its power is cut; afterwards each that was acknowledged must be there."""

    def __init__(self, guest, folder, port):
        self.guest, self.folder, self.port = guest, folder, port
        self.synced, self.problems = {}, []
        self.follower = threading.Thread(target=self.follow)
        self.follower.start()

    def follow(self):
        channel = self.guest.channels[self.port]
        channel.begin(FILES.format(folder=self.folder))
        try:
            for line in channel.lines(600, 'synced files'):
                words = str(line).split()
                if len(words) == 3 and words[0] == 'synced':
                    self.synced[words[1]] = words[2]
                else:
                    self.problems.append(f'{self.folder}: {line}')
        except OSError:
            pass  # the power is cut
        except Wrong as error:
            self.problems.append(str(error))

    def wait(self, count, seconds=120):
        """Until so many are acknowledged."""
        deadline = time.monotonic() + seconds
        while len(self.synced) < count and not self.problems:
            expect(time.monotonic() < deadline, f'{self.folder}: {len(self.synced)} files synced in {seconds} s')
            time.sleep(0.05)

    def after_cut(self):
        self.follower.join()
        expect(not self.problems, f'under load: {self.problems}')
        expect(self.synced, f'{self.folder}: nothing was synced: the cut proves nothing')

    def compare(self):
        found = self.guest.run(f'cd {self.folder} && sha256sum file-*', timeout=300)
        there = {name: sha for sha, name in (line.split() for line in found.split('\n') if line)}
        for name, sha in self.synced.items():
            expect(there.get(name) == sha, f'{self.folder}: {name} was synced, and is {"gone" if name not in there else "other bytes"}')


def power_cut(guest, exports, seconds, meanwhile=lambda: None):
    """QEMU is killed under load; after the next boot the file systems are clean and what was synced is there."""
    loads = [SyncedFiles(guest, f'/mnt/{fs}', port + 1) for port, fs in enumerate(exports)]
    meanwhile()
    for load in loads:
        load.wait(3)
    time.sleep(seconds)
    guest.qemu.kill()
    for load in loads:
        load.after_cut()
    guest.cut()
    guest.boot()
    check(guest, exports)
    for load in loads:
        load.compare()
    for fs in exports:
        guest.run(f'rm -f /mnt/{fs}/file-* && sync')
    return sum(len(load.synced) for load in loads)


def server_dies(guest, exports, times, restart):
    """The server is killed and started again under a verified load: the guest waits, goes on, and finds every byte."""
    fs = next(iter(exports))
    channel = guest.channels[1]
    channel.begin('i=0; while [ $i -lt 3 ]; do i=$((i+1)); ' + FIO.format(fs=fs, seed='$i') + ' || exit 1; done')
    for _ in range(times):
        time.sleep(1.5)
        restart()
    *out, code = channel.lines(600, 'verified load while the server dies')
    expect(code == 0, f'the guest saw the server die: {out[-20:]}')
    log = guest.run('dmesg | grep -i "I/O error" || true')
    expect(not log, f'the guest saw errors: {log[:1000]}')
    guest.run('umount /mnt/*')
    check(guest, exports)
