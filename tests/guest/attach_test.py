#!/usr/bin/env python3
"""Disks in a guest, over NBD: the acid tests of acid.py on the exports of exports.py."""
from acid import check, machine, make, mount, power_cut, server_dies, trim, verified_again, verified_load
from exports import Nbdkit
from guest import LONG, Lab, Wrong, expect, main

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


def forgetful_server_is_caught():
    """The canary: a server that forgets when it is killed must not get through."""
    with Lab() as lab:
        exports = {'ext4': Nbdkit(lab.dir, 'ext4', SIZE, plugin='memory').start()}
        try:
            with machine(lab.dir, exports) as guest:
                guest.boot()
                make(guest, exports)
                server_dies(guest, exports, times=2, restart=lambda: (exports['ext4'].kill(), exports['ext4'].start()))
        except Wrong as error:
            print(f'  caught: {str(error)[:200]}')
            return
        finally:
            exports['ext4'].kill()
        raise Wrong('a server forgot everything under load, and nobody noticed')


if __name__ == '__main__':
    main(plumbing, forgetful_server_is_caught)
