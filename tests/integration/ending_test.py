#!/usr/bin/env python3
"""What ends: a volume, and a miner's part in one. Neither happens by halves, by itself, or without being meant."""
import os
import subprocess
import time

from lab import Lab, expect, main, sha_of


def stored(lab):
    """Slices of any volume on all miners."""
    return sum(lab.json('status', os.path.join(lab.net, f'miner-{index}'), program='cumulus-miner')['slices'] for index in range(1, 7))


def slow_all(lab, *how):
    for miner in range(1, 7):
        lab.miner('slow', miner, *how)


def volume_destroyed():
    """Without a quorum nothing happens, then or later; once it has begun it is only finished, by whoever calls it again."""
    with Lab() as lab:
        lab.up()
        folder = os.path.join(lab.home, 'volumes', lab.volume)
        expected = {'one': lab.put_bytes('one', 500_000)}
        lab.sync()
        for miner in (1, 2, 3):
            lab.miner('stop', miner)
        lab.refused('volume', 'destroy', lab.volume, '--yes', codes=(1,), says='nothing was destroyed')
        for miner in (1, 2, 3):
            lab.miner('start', miner)
        expected['two'] = lab.put_bytes('two', 500_000)
        lab.sync()
        lab.run('volume', 'stop', lab.volume)
        lab.verify(expected)
        for miner in (1, 2):
            lab.miner('stop', miner)
        code, _, errors = lab.attempt('volume', 'destroy', lab.volume, '--yes')
        expect(code == 1 and 'again' in errors and errors.count('not told') == 2, f'with two miners away: {code}, {errors}')
        lab.refused('volume', 'status', lab.volume, codes=(1,), says=('destroyed', 'cumulus volume destroy'))
        lab.refused('object', 'get', f'{lab.volume}/b', 'one', lab.path('x'), codes=(1,), says='destroyed')
        for miner in (1, 2):
            lab.miner('start', miner)
        expect(stored(lab) > 0, 'miners that were away have nothing')
        lab.run('volume', 'destroy', lab.volume, '--yes')
        expect(stored(lab) == 0, 'slices are left')
        expect(not os.path.exists(folder), 'the folder is left')


def destroy_interrupted():
    """kill -9 of the command and its daemon at any moment: the volume is whole, or only to be destroyed."""
    with Lab() as lab:
        lab.up(create=False)
        ends = set()
        for pause in (0.0, 0.02, 0.04, 0.06, 0.08, 0.12, 0.2):
            lab.run('volume', 'create', lab.volume, '--miners', lab.list, '--segment', '1M')
            expected = {'one': lab.put_bytes('one', 4_000_000)}
            lab.sync()
            lab.run('volume', 'stop', lab.volume)
            process = lab.start('volume', 'destroy', lab.volume, '--yes')
            time.sleep(pause * lab.random.uniform(0.7, 1.3))
            for pid, line in lab.processes().items():
                if ' daemon ' in line or pid == process.pid:
                    os.kill(pid, 9)
            process.communicate()
            if not os.path.exists(os.path.join(lab.home, 'volumes', lab.volume)):
                ends.add('done')
                continue
            code, _, errors = lab.attempt('volume', 'status', lab.volume)
            ends.add('whole' if code == 0 else 'begun')
            if code == 0:
                lab.verify(expected)
                lab.check_clean(data=True)
            else:
                expect('destroyed' in errors, f'after a kill: {errors}')
            lab.run('volume', 'destroy', lab.volume, '--yes')
            expect(stored(lab) == 0, f'{pause}: slices are left')
        print(f'  {sorted(ends)}', flush=True)


def destroyed_elsewhere():
    """A home that was cut off while another destroyed its volume learns it from the miners, and says so."""
    with Lab() as lab:
        lab.up()
        lab.put_bytes('one', 100_000)
        lab.sync()
        other = lab.path('other')
        lab.homes.append(other)
        lab.run('volume', 'recover', lab.volume, '--miners', lab.list, '--code-stdin', '--steal', text=lab.recovery_code + '\n', home=other)
        lab.run('volume', 'destroy', lab.volume, '--yes', home=other)
        lab.run('object', 'put', f'{lab.volume}/b', 'late', lab.list)  # on this machine's disk: nobody has told it yet
        lab.refused('volume', 'sync', lab.volume, codes=(1,), says=lab.volume, timeout=60)
        status = lab.status()
        expect(not status['writable'] and status['read_only_reason'], f'it goes on: {status["read_only_reason"]}')
        lab.refused('object', 'put', f'{lab.volume}/b', 'later', lab.list, codes=(1,))


def recovery_called_off():
    """A recovery whose command is gone ends, and the next one begins at once, without --steal."""
    with Lab() as lab:
        lab.up()
        expected = {str(i): lab.put_bytes(str(i), 2_000_000) for i in range(8)}
        lab.sync()
        lab.run('volume', 'stop', lab.volume)
        slow_all(lab, '--delay', '100ms', '--rate', '1M')
        other = lab.path('other')
        lab.homes.append(other)
        process = lab.start('volume', 'recover', lab.volume, '--miners', lab.list, '--code-stdin', home=other, stdin=subprocess.PIPE)
        process.stdin.write(lab.recovery_code.encode() + b'\n')
        process.stdin.close()
        process.stdin = None
        time.sleep(2)
        expect(process.poll() is None, 'the recovery was through before it was called off')
        process.terminate()
        process.communicate()
        lab.without_daemon()
        slow_all(lab, '--off')
        lab.run('volume', 'recover', lab.volume, '--miners', lab.list, '--code-stdin', text=lab.recovery_code + '\n', home=other)
        lab.verify(expected, home=other)


def miners_removed():
    """A miner that holds slices does not go unnoticed, nor one of too few; what is drained goes, and what is lost is rebuilt."""
    with Lab(miners=7) as lab:
        lab.up()
        expected = {'one': lab.put_bytes('one', 3_000_000)}
        lab.sync()
        names = [miner['identity'] for miner in lab.json('miner', 'ls', lab.volume)]
        held = [lab.json('status', os.path.join(lab.net, f'miner-{index}'), program='cumulus-miner')['slices'] for index in range(1, 8)]
        names = [name for _, name in sorted(zip(held, names), reverse=True)]
        first = names[0]
        lab.refused('miner', 'remove', lab.volume, names[0], codes=(1,), says=('holds slices', 'drain', '--lost'))
        expect(len(lab.json('miner', 'ls', lab.volume)) == 7, 'it was removed')
        lab.run('miner', 'drain', lab.volume, names[0])
        lab.run('miner', 'remove', lab.volume, names[0])
        code, out, _ = lab.attempt('miner', 'drain', lab.volume, names[1])
        expect(code == 1 and b'add miners' in out, f'six slices on five miners: {code}, {out}')
        for name in names[1:4]:
            lab.run('miner', 'remove', lab.volume, name, '--lost')
            lab.run('volume', 'repair', lab.volume)
        lab.refused('miner', 'remove', lab.volume, names[4], '--lost', codes=(2,), says='at least 3')
        lab.drop_cache()
        lab.verify(expected)
        drained = next(folder for folder in (os.path.join(lab.net, f'miner-{index}') for index in range(1, 8))
                       if lab.json('status', folder, program='cumulus-miner')['identity'] == first)
        expect(lab.json('status', drained, program='cumulus-miner')['slices'] > 0, 'a drain deletes')
        lab.run('volume', 'destroy', lab.volume, '--yes')
        expect(lab.json('status', drained, program='cumulus-miner')['slices'] == 0, 'slices are left on a miner that was drained and removed')


def destroy_called_off():
    """Ctrl-C before anything was destroyed: nothing is, later either."""
    with Lab() as lab:
        lab.up()
        expected = {'one': lab.put_bytes('one', 500_000)}
        lab.sync()
        lab.run('volume', 'stop', lab.volume)
        slow_all(lab, '--delay', '400ms', '--rate', '10M')
        process = lab.start('volume', 'destroy', lab.volume, '--yes')
        time.sleep(0.8)
        process.terminate()
        process.communicate()
        lab.without_daemon()
        slow_all(lab, '--off')
        other = lab.path('other')
        lab.homes.append(other)
        lab.run('volume', 'recover', lab.volume, '--miners', lab.list, '--code-stdin', text=lab.recovery_code + '\n', home=other)  # nor is it in use
        lab.verify(expected, home=other)
        lab.run('volume', 'stop', lab.volume, home=other)
        lab.verify(expected)


def list_changes():
    """Several changes at once all count; a miner that does not answer is not added, and costs nothing."""
    with Lab(miners=8) as lab:
        more = split_list(lab)
        expected = {'one': lab.put_bytes('one', 500_000)}
        lab.sync()
        both = [lab.start('miner', 'add', lab.volume, path) for path in more]
        for process in both:
            _, errors = process.communicate()
            expect(process.returncode == 0, f'miner add: {errors}')
        expect(len(lab.json('miner', 'ls', lab.volume)) == 8, 'one of two additions is lost')
        typo = lab.path('typo.toml')
        with open(typo, 'w') as file:
            file.write(f'[[miner]]\naddress = "127.0.0.1:9"\nidentity = "{"ab" * 32}"\ndomain = "x"\ncapacity = "1G"\nweight = 1.0\n')
        lab.refused('miner', 'add', lab.volume, typo, codes=(1,), says=('127.0.0.1:9', 'nothing was changed'))
        for miner in (1, 2):
            lab.miner('stop', miner)
        expected['two'] = lab.put_bytes('two', 3_000_000)
        lab.run('volume', 'sync', lab.volume, timeout=60)
        expect(len(lab.json('miner', 'ls', lab.volume)) == 8, 'the list has changed')
        lab.drop_cache()
        lab.verify(expected)


def split_list(lab):
    """A volume on the first six miners; the lists of the others, one each."""
    lab.run('devnet', 'up', '--miners', lab.miners, '--dir', lab.net)
    blocks = ['[[miner]]' + block for block in open(lab.list).read().split('[[miner]]')[1:]]
    lists = [lab.path(f'list-{number}.toml') for number in range(len(blocks) - 5)]
    for path, chosen in zip(lists, [blocks[:6], *[[block] for block in blocks[6:]]]):
        with open(path, 'w') as file:
            file.write('\n'.join(chosen))
    lab.run('volume', 'create', lab.volume, '--miners', lists[0], '--segment', '1M')
    return lists[1:]


def list_change_fails():
    """Too few miners agree to a new list: nothing is placed on what was not added, and it is not added later either."""
    with Lab(miners=7) as lab:
        (more,) = split_list(lab)
        expected = {'one': lab.put_bytes('one', 500_000)}
        lab.sync()
        for miner in (1, 2, 3):
            lab.miner('stop', miner)
        lab.refused('miner', 'add', lab.volume, more, codes=(1,), says='not changed', timeout=60)
        for miner in (1, 2, 3):
            lab.miner('start', miner)
        expected['two'] = lab.put_bytes('two', 5_000_000)
        lab.sync()
        held = lab.json('status', os.path.join(lab.net, 'miner-7'), program='cumulus-miner')['slices']
        expect(held == 0, f'the miner that was not added holds {held} slices')
        lab.run('volume', 'stop', lab.volume)
        lab.miner('stop', 7)
        lab.check_clean(data=True)
        expect(len(lab.json('miner', 'ls', lab.volume)) == 6, 'it was added all the same')
        lab.verify(expected)


def loss_accepted():
    """What is given up is gone for everybody; what is stored afterwards is as safe as ever."""
    with Lab() as lab:
        lab.up()
        expected = {'one': lab.put_bytes('one', 500_000)}
        lab.sync()
        for miner in (1, 2):
            lab.miner('stop', miner)
        lab.put_bytes('lost', 30_000_000)
        lab.sync()
        lab.run('volume', 'stop', lab.volume)
        for miner in (1, 2):
            lab.miner('start', miner)
        for miner in (5, 6):
            lab.miner('stop', miner)
        homes = [lab.path(f'home-{number}') for number in range(2)]
        lab.homes += homes
        recover = ('volume', 'recover', lab.volume, '--miners', lab.list, '--code-stdin')
        code = lab.recovery_code + '\n'
        lab.refused(*recover, text=code, home=homes[0], codes=(1,), says='--accept-loss')
        lab.run(*recover, '--accept-loss', text=code, home=homes[0])
        source = lab.path('source')
        for name in ('two', 'three'):
            with open(source, 'wb') as file:
                file.write(lab.random.randbytes(3_000_000))
            lab.run('object', 'put', f'{lab.volume}/b', name, source, '--sync', home=homes[0], timeout=60)
            expected[name] = sha_of(source)
            lab.run('volume', 'stop', lab.volume, home=homes[0])
        for miner in (5, 6):
            lab.miner('start', miner)
        lab.verify(expected, home=homes[0])
        lab.run('volume', 'stop', lab.volume, home=homes[0])
        lab.run(*recover, text=code, home=homes[1])
        lab.verify(expected, home=homes[1])


def waiting_is_told():
    """What cannot reach the miners says why while it waits, and can be called off."""
    with Lab() as lab:
        lab.up()
        for miner in (1, 2, 3, 4):
            lab.miner('stop', miner)
        sha = lab.put_bytes('one', 1_000_000)
        process = lab.start('object', 'put', f'{lab.volume}/b', 'two', lab.path('put-bytes'), '--sync')
        said = process.stderr.readline().decode() + process.stderr.readline().decode()
        expect('waiting' in said and 'miner' in said, f'put --sync without miners says {said!r}')
        process.terminate()
        process.communicate()
        status = lab.status()
        expect('miner' in status['waiting_for'], f'status says {status["waiting_for"]!r}')
        expect(b'waiting' in lab.run('volume', 'status', lab.volume), 'status shows nothing of it')
        lab.run('volume', 'set', lab.volume, 'durability=network')
        process = lab.start('object', 'rm', f'{lab.volume}/b', 'one')  # counts nothing, and waits all the same
        said = process.stderr.readline().decode()
        expect(said.startswith('no answer yet; the volume is waiting: ') and 'miner' in said, f'rm without miners says {said!r}')
        process.terminate()
        process.communicate()
        lab.run('volume', 'set', lab.volume, 'durability=local')
        code, _, errors = lab.attempt('volume', 'stop', lab.volume)
        expect(code == 0 and 'not on the miners yet' in errors, f'stop with bytes to send: {code}, {errors!r}')
        for miner in (1, 2, 3, 4):
            lab.miner('start', miner)
        lab.sync()
        code, _, errors = lab.attempt('volume', 'stop', lab.volume)
        expect(code == 0 and not errors, f'stop with nothing to send: {code}, {errors!r}')
        expect(lab.status()['waiting_for'] == '', f'all is stored, and status says {lab.status()["waiting_for"]!r}')
        lab.drop_cache()
        names = {entry['name'] for entry in lab.json('object', 'ls', f'{lab.volume}/b')}
        kept = {'one': sha, 'two': sha_of(lab.path('put-bytes'))}
        lab.verify({name: kept[name] for name in {'two', *names}})  # the rm may have happened or not


if __name__ == '__main__':
    main(volume_destroyed, destroy_interrupted, destroyed_elsewhere, destroy_called_off, recovery_called_off, list_changes, list_change_fails, miners_removed,
         loss_accepted, waiting_is_told)
