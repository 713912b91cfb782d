#!/usr/bin/env python3
"""kill -9 of the daemon, or of miners, during puts, again and again: everything acknowledged is there, nothing is half
there, and the next command starts a new daemon. CUMULUS_TEST_ROUNDS sets how often (200 in the long form)."""
import json
import os
import select
import signal
import subprocess
import threading
import time

from lab import LONG, Lab, expect, main, sha_of

ROUNDS = int(os.environ.get('CUMULUS_TEST_ROUNDS', 200 if LONG else 8))


def killed_during_puts():
    with Lab() as lab:
        lab.up()
        acknowledged = {}  # name -> SHA-256 of what was acknowledged last
        possible = {}  # name -> the bytes of a put that was cut off, which may have happened or not
        killed_in_a_command = 0
        number = 0
        while number < ROUNDS or (killed_in_a_command == 0 and number < 8 * ROUNDS):  # a kill that hits no command proves little
            number += 1
            pid = lab.daemon_pid()
            killer = threading.Timer(lab.random.uniform(0.02, 0.7), os.kill, (pid, signal.SIGKILL))
            killer.start()
            while True:
                name = f'object-{lab.random.randrange(40)}'
                source = lab.path('source')
                size = lab.random.choice([0, 100, 5000, 200_000, 1_500_000, 6_000_000])
                with open(source, 'wb') as file:
                    file.write(lab.random.randbytes(size))
                before = lab.processes()
                code, _, errors = lab.attempt('object', 'put', f'{lab.volume}/b', name, source)
                if code == 0:
                    acknowledged[name] = sha_of(source)
                    possible.pop(name, None)
                else:
                    killed_in_a_command += 1
                    expect(code == 1 and len(errors.strip().split('\n')) == 1, f'a daemon killed in a put: exit code {code}, {errors!r}')
                    possible[name] = sha_of(source)
                if code != 0 or pid not in before or not os.path.exists(f'/proc/{pid}'):
                    break
            killer.join()
            compare(lab, acknowledged, possible, everything=number % 50 == 0)
            lab.check_clean(data=number % 50 == 0)
        lab.sync()
        lab.drop_cache()
        compare(lab, acknowledged, possible, everything=True)
        lab.check_clean(data=True)
        print(f'  {number} kills, {killed_in_a_command} of them in the middle of a command, {len(acknowledged)} objects')
        expect(killed_in_a_command > 0, 'no kill hit a command')


def puts_cut_off():
    """What a put had stored when its daemon was killed is removed by the next one, and nothing else is."""
    with Lab() as lab:
        lab.up()
        acknowledged = {'kept': lab.put_bytes('kept', 200_000)}

        def removals():
            with open(os.path.join(lab.home, 'volumes', lab.volume, 'daemon.log')) as log:
                return log.read().count('cut off are removed')
        for name in ('kept', 'new'):
            before = removals()
            process = lab.start('object', 'put', f'{lab.volume}/b', name, '-', stdin=subprocess.PIPE)
            process.stdin.write(lab.random.randbytes(20 << 20))
            process.stdin.flush()
            time.sleep(0.5)
            lab.kill_daemon()
            process.stdin.close()
            process.stdin = None
            process.communicate()
            expect(process.returncode == 1, f'a put without its daemon: {process.returncode}')
            lab.verify(acknowledged)
            for _ in range(100):
                if removals() > before:
                    break
                time.sleep(0.1)
            expect(removals() == before + 1, 'the next daemon removed nothing')
            lab.run('volume', 'stop', lab.volume)
            lab.verify(acknowledged)
            expect(removals() == before + 1, 'what was removed is removed again')
        lab.check_clean(data=True)


def compare(lab, acknowledged, possible, everything):
    entries = {entry['name']: entry['size'] for entry in lab.json('object', 'ls', f'{lab.volume}/b')} if acknowledged else {}
    for name, sha in list(possible.items()):
        if name not in entries:
            expect(name not in acknowledged, f'{name}: acknowledged and gone')
            del possible[name]
    expect(set(acknowledged) <= set(entries), f'acknowledged and gone: {sorted(set(acknowledged) - set(entries))}')
    expect(set(entries) <= set(acknowledged) | set(possible), f'nobody put: {sorted(set(entries) - set(acknowledged) - set(possible))}')
    names = sorted(entries) if everything else lab.random.sample(sorted(entries), min(4, len(entries)))
    for name in sorted(set(names) | set(possible)):
        lab.run('object', 'get', f'{lab.volume}/b', name, lab.path('back'))
        sha = sha_of(lab.path('back'))
        expect(sha in (acknowledged.get(name), possible.get(name)), f'{name}: {entries[name]} bytes that nobody put, or half of them')
        acknowledged[name] = sha  # from now on it stays so
        possible.pop(name, None)


def miners_killed_and_wiped():
    """One or two miners at a time killed in the middle of puts, now and then one wiped and repaired before the next is
    touched, and the daemon killed too: nothing that was acknowledged is missing, and all of it is whole at the end."""
    with Lab() as lab:
        lab.up()
        acknowledged = {}

        def put(sync):
            name = f'object-{lab.random.randrange(40)}'
            source = lab.path('source')
            with open(source, 'wb') as file:
                file.write(lab.random.randbytes(lab.random.choice([0, 100, 5000, 200_000, 1_500_000, 6_000_000])))
            lab.run('object', 'put', f'{lab.volume}/b', name, source, *(['--sync'] if sync else []))
            acknowledged[name] = sha_of(source)

        def trouble(victims, before, between):
            time.sleep(before)
            for miner in victims:
                lab.miner('stop', miner)
            time.sleep(between)
            for miner in victims:
                lab.miner('start', miner)

        put(sync=True)
        kills = number = 0
        while kills < ROUNDS or number % 4 != 0:
            number += 1
            victims = lab.random.sample(range(1, 7), lab.random.choice([1, 2]))
            kills += len(victims)
            troubled = threading.Thread(target=trouble, args=(victims, lab.random.uniform(0, 0.5), lab.random.uniform(0.1, 1)))
            troubled.start()
            while troubled.is_alive():
                put(sync=lab.random.random() < 0.3)
            troubled.join()
            if number % 4 == 0:
                lab.sync()
                lab.miner('wipe', lab.random.randrange(1, 7))
                put(sync=True)
                lab.repair()
            if lab.random.random() < 0.3:
                lab.kill_daemon()
            compare(lab, acknowledged, {}, everything=number % 10 == 0)
            lab.sync()
            lab.check_clean(data=number % 10 == 0)
        lab.drop_cache()
        compare(lab, acknowledged, {}, everything=True)
        lab.repair()
        lab.check_clean(data=True)
        print(f'  {kills} kills of miners in {number} rounds, {len(acknowledged)} objects')


def killed_and_idle():
    """A killed daemon leaves nothing that blocks the next start; stop ends it; two commands at once share one."""
    with Lab() as lab:
        lab.up()
        for _ in range(3):
            lab.kill_daemon()
            began = time.time()
            lab.status()
            expect(time.time() - began < 20, 'the next start took long')
        lab.kill_daemon()
        several = [lab.start('volume', 'status', lab.volume, '--json') for _ in range(6)]
        import json
        pids = set()
        for process in several:
            out, errors = process.communicate(timeout=60)
            expect(process.returncode == 0, f'one of several commands at once: {errors.decode()}')
            pids.add(json.loads(out)['daemon_pid'])
        expect(len(pids) == 1, f'several daemons for one volume: {pids}')
        pid = pids.pop()
        lab.run('volume', 'stop', lab.volume)
        deadline = time.time() + 5
        while os.path.exists(f'/proc/{pid}') and time.time() < deadline:
            time.sleep(0.02)
        expect(not os.path.exists(f'/proc/{pid}'), 'stopped, and still there')


def nothing_inherited():
    """What stays behind a command, its daemon and a devnet's miners, holds nothing that the caller had open; what devnet ends is its own."""
    with Lab(miners=2, code='1+1') as lab:
        reader, writer = os.pipe()
        os.set_inheritable(writer, True)

        def call(*words):
            subprocess.run([os.path.join(lab.bin, 'cumulus'), *words], env={**os.environ, 'CUMULUS_HOME': lab.home}, pass_fds=[writer], check=True, stdout=subprocess.DEVNULL)

        call('devnet', 'up', '--miners', '2', '--dir', lab.net)
        lab.up()
        lab.run('volume', 'stop', 'v')
        call('volume', 'status', 'v')
        os.close(writer)
        expect(select.select([reader], [], [], 10)[0], 'a command is through, and a pipe that it was given is not at its end')
        os.close(reader)

        lab.miner('stop', 1)
        stranger = subprocess.Popen(['cumulus-notes', '60'], executable='/bin/sleep')  # has the number by now
        state = os.path.join(lab.net, 'miner-1.json')
        known = json.load(open(state))
        for end in ('stop', 'wipe', 'corrupt'):
            json.dump({**known, 'pid': stranger.pid}, open(state, 'w'))
            lab.miner(end, 1)
            expect(stranger.poll() is None, f'devnet {end} ended a program that is not its own')
        json.dump({**known, 'pid': stranger.pid}, open(state, 'w'))
        lab.run('devnet', 'up', '--miners', '2', '--dir', lab.net + '/.')
        expect(all(miner['running'] and miner['pid'] != stranger.pid for miner in lab.json('devnet', 'status', '--dir', lab.net)), 'a miner that does not run was taken for one')
        stranger.kill()
        stranger.wait()


if __name__ == '__main__':
    main(killed_and_idle, nothing_inherited, killed_during_puts, puts_cut_off, miners_killed_and_wiped)
