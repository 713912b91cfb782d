"""Incremental backup as a backup tool does it: a snapshot, what changed since the one before by BLOCK_STATUS over libnbd, only
those bytes read; through writes, zeroes, trims, sizes, clones, rollbacks and flattening, the copy stays equal to the disk."""
import nbd
from lab import LONG, Lab, expect, main
from nbd_test import Disk, stretches

BLOCK = 4096
START = 16 << 20
PIECE = 1 << 20


def whole(handle):
    size = handle.get_size()
    return b''.join(handle.pread(min(PIECE, size - at), at) for at in range(0, size, PIECE))


class Backup:
    """A copy of a disk that only ever reads what is called changed."""

    def __init__(self, lab, disk):
        self.lab, self.disk, self.count, self.cloned = lab, disk, 0, None
        self.last = self.snapshot()
        self.copy = bytearray(whole(disk.connect(f'{disk.name}@{self.last}')))
        self.touched, self.read = set(), 0

    def snapshot(self):
        self.count += 1
        name = f'backup-{self.count}'
        self.lab.run('snapshot', 'create', f'{self.lab.volume}/{self.disk.name}@{name}')
        return name

    def change(self, handle, count=40):
        random = self.lab.random
        size = handle.get_size()
        for _ in range(count):
            length = random.choice([1, 512, 4096, 30000, 200000])
            offset = random.randrange(max(1, size - length))
            length = min(length, size - offset)
            kind = random.randrange(6)
            if kind == 0:
                handle.trim(length, offset)
            elif kind == 1:
                handle.zero(length, offset, random.choice([0, nbd.CMD_FLAG_NO_HOLE]))
            else:
                handle.pwrite(random.randbytes(length), offset)
            self.touched.update(range(offset // BLOCK, (offset + length - 1) // BLOCK + 1))

    def resized(self, size):
        """What was cut off and came back is zero: that is a change."""
        old = len(self.copy)
        self.touched.update(range(min(old, size) // BLOCK, max(old, size) // BLOCK + 1))

    def run(self, exact=True):
        """One more backup. `exact`: nothing may be called changed that nobody touched."""
        name = self.snapshot()
        contexts = [f'{kind}:{self.last}' for kind in ('cumulus:changed-since', 'qemu:dirty-bitmap')]
        new = self.disk.connect(f'{self.disk.name}@{name}', contexts=['base:allocation', *contexts])
        size = new.get_size()
        ours, theirs = (stretches(new, context, size, step=self.lab.random.choice([PIECE, 16 << 20])) for context in contexts)
        expect(blocks_of(ours) == blocks_of(theirs), 'the two names of one context differ')
        before = bytes(self.copy)
        del self.copy[size:]
        self.copy.extend(bytes(size - len(self.copy)))
        for offset, length, flags in ours:
            if flags and offset < size:
                length = min(length, size - offset)
                self.copy[offset:offset + length] = new.pread(length, offset)
                self.read += length
        after = whole(new)
        expect(len(after) == size, f'{len(after)} bytes instead of {size}')
        if self.copy != after:
            at = next(i for i in range(size) if self.copy[i] != after[i])
            expect(False, f'{name}: byte {at} differs from the copy, and is in no changed extent')
        if exact:
            strange = sorted(blocks_of(ours) - self.touched)
            expect(not strange, f'{name}: block {strange[:3]} is called changed and nobody touched it')
        differing = {at // BLOCK for at in range(0, min(size, len(before)), BLOCK) if before[at:at + BLOCK] != after[at:at + BLOCK]}
        if self.last != self.cloned:
            self.lab.run('snapshot', 'rm', f'{self.lab.volume}/{self.disk.name}@{self.last}')
        self.last, self.touched = name, set()
        return len(differing)


def blocks_of(extents):
    return {block for offset, length, flags in extents if flags for block in range(offset // BLOCK, (offset + length - 1) // BLOCK + 1)}


def incremental_backup():
    rounds = 12 if LONG else 2
    with Lab().up() as lab:
        disk = Disk(lab, size=START)
        handle = disk.connect()
        for at in range(0, START // 2, PIECE):
            handle.pwrite(lab.random.randbytes(PIECE), at)
        backup = Backup(lab, disk)
        expect(backup.run() == 0 and backup.read == 0, 'nothing was changed, and something was read')
        for count in range(rounds):
            backup.change(handle)
            expect(backup.run() > 0, 'nothing differs: the test proves nothing')
            # Grown while attached; shrunk, and rolled back, while not.
            size = START + lab.random.randrange(1, 4 << 20)
            lab.run('image', 'resize', f'{lab.volume}/disk', '--size', str(size))
            backup.resized(size)
            handle = disk.connect()
            expect(handle.get_size() == size, f'a new connection is told {handle.get_size()} bytes')
            backup.change(handle)
            backup.run()
            lab.run('nbd', 'stop', f'{lab.volume}/disk')
            size = START - lab.random.randrange(1, 2 << 20)
            lab.run('image', 'resize', f'{lab.volume}/disk', '--size', str(size), '--shrink')
            backup.resized(size)
            disk.serve()
            handle = disk.connect()
            backup.change(handle)
            backup.run()
            if count % 2 == 0:
                backup.change(handle)
                lab.run('nbd', 'stop', f'{lab.volume}/disk')
                lab.run('snapshot', 'rollback', f'{lab.volume}/disk@{backup.last}')
                disk.serve()
                handle = disk.connect()
                backup.run()
        # A clone has a history of its own; its first copy is the parent's.
        backup.cloned = backup.last
        lab.run('clone', f'{lab.volume}/disk@{backup.last}', f'{lab.volume}/twin')
        twin = Disk(lab, name='twin', make=False)
        of_twin = Backup(lab, twin)
        expect(of_twin.copy == backup.copy, 'a clone differs from what it was made of')
        other = twin.connect()
        for _ in range(rounds):
            of_twin.change(other)
            backup.change(handle)
            of_twin.run()
            backup.run()
        lab.run('image', 'flatten', f'{lab.volume}/twin')
        of_twin.change(other)
        of_twin.run(exact=False)
        of_twin.change(other)
        of_twin.run()
        print(f'  {backup.count + of_twin.count} snapshots of {START >> 20} MiB, {(backup.read + of_twin.read) >> 20} MiB read')
        lab.check_clean()


if __name__ == '__main__':
    main(incremental_backup)
