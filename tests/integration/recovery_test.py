#!/usr/bin/env python3
"""The machine is lost, the index is lost, a second home appears: everything comes back from the recovery code and the
miners alone, and there is one writer at a time."""
import os
import shutil

from lab import LONG, Lab, expect, main, sha_of

SIZE = int(os.environ.get('CUMULUS_TEST_BYTES', (1 << 30) if LONG else (8 << 20)))


def put_bytes(lab, name, size, bucket='b', home=None, sync=False):
    source = lab.path('source')
    with open(source, 'wb') as file:
        file.write(lab.random.randbytes(size))
    lab.run('object', 'put', f'{lab.volume}/{bucket}', name, source, *(['--sync'] if sync else []), home=home)
    return sha_of(source)


def home_lost():
    """The whole home deleted, recovered on an empty one with two of six miners dead: names, snapshots and bytes equal."""
    with Lab() as lab:
        lab.up()
        folder, expected = lab.files(SIZE)
        lab.put_folder(folder)
        lab.run('snapshot', 'create', f'{lab.volume}/b@monday')
        at_snapshot = dict(expected)
        replaced = sorted(expected)[0]
        expected[replaced] = put_bytes(lab, replaced, 300_000)
        removed = sorted(expected)[1]
        lab.run('object', 'rm', f'{lab.volume}/b', removed)
        del expected[removed]
        lab.run('clone', f'{lab.volume}/b@monday', f'{lab.volume}/c')
        lab.sync()
        lab.kill_daemon()
        shutil.rmtree(lab.home)
        for miner in (3, 6):
            lab.miner('stop', miner)
        lab.run('volume', 'recover', lab.volume, '--miners', lab.list, '--code-stdin', '--steal', text=lab.recovery_code + '\n', timeout=600)
        lab.run('volume', 'set', lab.volume, 'outage-wait=4s')
        lab.verify(expected)
        lab.verify(at_snapshot, 'b@monday')
        lab.verify(at_snapshot, 'c')
        snapshots = lab.json('snapshot', 'ls', f'{lab.volume}/b')
        expect([s['name'] for s in snapshots] == ['monday'], f'snapshots: {snapshots}')
        expected['after'] = put_bytes(lab, 'after', 2_000_000, sync=True)
        lab.verify(expected)
        for miner in (3, 6):
            lab.miner('start', miner)
        lab.repair()
        lab.check_clean(data=True)


def index_lost():
    """The index alone deleted and the cache dropped: the same."""
    with Lab() as lab:
        lab.up()
        folder, expected = lab.files(SIZE)
        lab.put_folder(folder)
        lab.sync()
        lab.drop_cache()
        lab.run('volume', 'stop', lab.volume)
        index = os.path.join(lab.home, 'volumes', lab.volume, 'index')
        shutil.rmtree(index)
        lab.verify(expected)
        lab.run('volume', 'stop', lab.volume)
        for name in os.listdir(index):  # a part of it is no better than nothing
            if name.startswith('MANIFEST'):
                os.remove(os.path.join(index, name))
        lab.verify(expected)
        lab.check_clean(data=True)


def second_home():
    """A second home is refused and told who has the volume; with --steal it fences the first."""
    with Lab() as lab:
        lab.up()
        expected = {'one': put_bytes(lab, 'one', 1_500_000, sync=True)}
        other = lab.path('other')
        lab.homes.append(other)
        code = lab.recovery_code + '\n'
        said = lab.refused('volume', 'recover', lab.volume, '--miners', lab.list, '--code-stdin', home=other, text=code, codes=(1,), says='--steal')
        user = os.environ.get('USER') or 'root'
        expect(os.uname().nodename in said, f'the refusal names no host: {said}')
        expect(user in said or 'root' in said, f'the refusal names no user: {said}')
        expect(not os.path.exists(os.path.join(other, 'volumes', lab.volume)), 'a refused recovery left a half-made volume')
        lab.run('volume', 'recover', lab.volume, '--miners', lab.list, '--code-stdin', '--steal', home=other, text=code)
        lab.verify(expected, home=other)
        expected['two'] = put_bytes(lab, 'two', 700_000, home=other, sync=True)
        # The first home learns of it when it next speaks to the holders, and then writes no more.
        source = lab.path('late')
        with open(source, 'wb') as file:
            file.write(lab.random.randbytes(500_000))
        lab.attempt('object', 'put', f'{lab.volume}/b', 'late', source)
        lab.refused('volume', 'sync', lab.volume, codes=(1,))
        lab.refused('object', 'put', f'{lab.volume}/b', 'later', source, codes=(1,))
        status = lab.status()
        expect(not status['writable'] and status['read_only_reason'], f'the fenced home does not say so: {status}')
        lab.verify(expected, home=other)
        # And back by force, while its fenced daemon still runs.
        lab.run('volume', 'open', lab.volume, '--steal')
        expect(lab.status()['writable'], 'volume open --steal did not take the volume over')
        lab.verify(expected)
        lab.attempt('object', 'put', f'{lab.volume}/b', 'late', source, home=other)
        lab.refused('volume', 'sync', lab.volume, codes=(1,), home=other)
        lab.run('volume', 'open', lab.volume, '--steal', home=other)
        # Closed cleanly there, the volume opens here without force once this home knows.
        lab.run('volume', 'stop', lab.volume, home=other)
        lab.run('volume', 'stop', lab.volume)
        third = lab.path('third')
        lab.homes.append(third)
        lab.run('volume', 'recover', lab.volume, '--miners', lab.list, '--code-stdin', home=third, text=code)
        lab.verify(expected, home=third)


if __name__ == '__main__':
    main(home_lost, index_lost, second_home)
