#!/usr/bin/env python3
"""The laboratory itself: the guest boots, runs commands, tells exit codes, keeps on a disk what it wrote, and is gone when
its power is cut."""
import os
import tempfile

from guest import Guest, Wrong, expect, main


def boots_and_answers():
    with tempfile.TemporaryDirectory(prefix='cumulus-guest-') as work:
        disk = os.path.join(work, 'disk')
        with open(disk, 'wb') as file:
            file.truncate(64 << 20)
        with Guest(work, {'data': f'file={disk},format=raw,cache=none'}) as guest:
            guest.boot()
            expect(guest.attempt('echo one; echo two >&2; exit 7') == (7, 'one\ntwo'), 'output or exit code')
            expect(guest.run('printf "no newline"') == 'no newline', 'output without a newline at its end')
            guest.run('cumulus --help && cumulus-miner --help')
            guest.run('mkfs.ext4 -q /dev/disk/data && mount -t ext4 /dev/disk/data /mnt && echo kept > /mnt/file && sync')
            guest.run('echo lost > /mnt/other')
            try:
                guest.run('sleep 30', timeout=1, port=1)
                raise AssertionError('a command without end was waited for')
            except Wrong:
                pass
            guest.cut()
            expect(guest.qemu.poll() is not None, 'QEMU runs on')
            guest.boot()
            guest.run('e2fsck -fy /dev/disk/data || [ $? -eq 1 ]')
            guest.run('mount -t ext4 /dev/disk/data /mnt')
            expect(guest.run('cat /mnt/file') == 'kept', 'synced, and lost')
            expect(guest.attempt('cat /mnt/other')[1] != 'lost', 'never synced, and there: the guest\'s memory outlives its power')
            guest.power_off()


if __name__ == '__main__':
    main(boots_and_answers)
