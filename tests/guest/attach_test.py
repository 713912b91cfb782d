#!/usr/bin/env python3
"""Disks in a guest, over NBD: the acid tests of acid.py on the exports of exports.py."""
from acid import check, machine, make, power_cut, server_dies, trim, verified_again, verified_load
from exports import Cumulus, Nbdkit
from guest import BUILT, LONG, Guest, Lab, Wrong, expect, main, sha_of
from root import run
from system import PACKAGE, build_system

SIZE = 1 << 30


def everything(lab, exports, meanwhile=lambda: None, restart=None):
    with machine(lab.dir, exports) as guest:
        guest.boot()
        make(guest, exports)
        verified_load(guest, exports, seed=1)
        trim(guest, exports)
        guest.power_off()
        guest.boot()
        check(guest, exports)
        verified_again(guest, exports, seed=1)
        acknowledged = 0
        for number in range(5 if LONG else 1):
            acknowledged += power_cut(guest, exports, lab.random.uniform(0, 3), meanwhile if number == 0 else lambda: None)
        print(f'  {acknowledged} synced files outlived the power')
        if restart:
            server_dies(guest, exports, times=10 if LONG else 2, restart=restart)
        guest.power_off()


def plumbing():
    """The tests themselves, on a server that is known to be good."""
    with Lab() as lab:
        exports = {fs: Nbdkit(lab.dir, fs, SIZE).start() for fs in ['ext4', 'xfs']}
        try:
            everything(lab, exports, restart=lambda: (exports['ext4'].kill(), exports['ext4'].start()))
        finally:
            for export in exports.values():
                export.kill()


def whole_system(lab, export, meanwhile=lambda: None, export_to=None):
    """A Debian system, converted in from qcow2, booted from the export; a package installed from a second disk; shut down,
    exported, compared. export_to(path) makes a raw file of the disk."""
    system, package = build_system(BUILT)
    compressed, back = lab.path('system.qcow2'), lab.path('back.raw')
    run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', system, compressed)
    run('qemu-img', 'convert', '-n', '-f', 'qcow2', '-O', 'raw', compressed, export.uri)
    run('qemu-img', 'compare', '-f', 'qcow2', '-F', 'raw', compressed, export.uri)
    disks = {'system': export.drive(), 'package': f'file={package},format=raw,readonly=on'}
    with Guest(lab.dir, disks, switch_to='system') as guest:
        guest.boot(seconds=300)
        guest.run('mount -o ro /dev/disk/by-id/virtio-package /mnt', timeout=60)
        meanwhile()
        guest.run(f'apt-get install -y /mnt/{PACKAGE}_*.deb && {PACKAGE}', timeout=300)
        digest = guest.run(f'sha256sum < /usr/bin/{PACKAGE}').split()[0]
        expect(guest.run('systemctl is-active multi-user.target') == 'active', 'the system is not up')
        guest.power_off('systemctl poweroff', seconds=120)
    export_to(back)
    run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', back, export.uri)
    run('e2fsck', '-fn', back)
    run('debugfs', '-R', f'dump /usr/bin/{PACKAGE} {back}.program', back)
    expect(sha_of(f'{back}.program') == digest, f'{PACKAGE} in the exported image is not the one that was installed')


def system_plumbing():
    with Lab() as lab:
        export = Nbdkit(lab.dir, 'system', SIZE).start()
        try:
            whole_system(lab, export, export_to=lambda path: run('nbdcopy', export.uri, path))
        finally:
            export.kill()


def our_disks():
    """The same on images of a volume (4+2) on six miners; two of them die while the guest writes."""
    with Lab() as lab:
        lab.up()
        exports = {fs: Cumulus(lab, fs, SIZE).start() for fs in ['ext4', 'xfs']}

        def restart():
            exports['ext4'].kill()
            for export in exports.values():
                export.start()
        everything(lab, exports, meanwhile=lambda: two_miners_die(lab), restart=restart)
        lab.check_clean()


def our_system():
    """The Debian system on an image; two miners die while the package is installed, and what is local is forgotten."""
    with Lab() as lab:
        lab.up()
        export = Cumulus(lab, 'system', SIZE).start()
        whole_system(lab, export, meanwhile=lambda: two_miners_die(lab),
                     export_to=lambda path: run('nbdcopy', export.uri, path))


def two_miners_die(lab):
    lab.sync()
    for index in lab.random.sample(range(1, lab.miners + 1), 2):
        lab.miner('stop', index)
    lab.drop_cache()


def forgetful_server_is_caught():
    """The canary: a server that forgets when it is killed must not get through."""
    with Lab() as lab:
        exports = {'ext4': Nbdkit(lab.dir, 'ext4', SIZE, plugin='memory').start()}
        try:
            with machine(lab.dir, exports) as guest:
                guest.boot()
                make(guest, exports)
                verified_load(guest, exports, seed=1)
                try:
                    server_dies(guest, exports, times=2, restart=lambda: (exports['ext4'].kill(), exports['ext4'].start()))
                except Wrong as error:
                    expect('the guest saw' in str(error) or 'in the guest' in str(error), f'not the verdict that was asked for: {error}')
                    print(f'  caught: {str(error)[:200]}')
                    return
        finally:
            exports['ext4'].kill()
        raise Wrong('a server forgot everything under load, and nobody noticed')


if __name__ == '__main__':
    main(plumbing, system_plumbing, our_disks, our_system, forgetful_server_is_caught)
