#!/usr/bin/env python3
"""What people and broken disks hand to the commands: one clear line, exit code 1 or 2, nothing lost, nothing left."""
import errno
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import time

from lab import Lab, expect, main, sha_of


def words_and_files():
    with Lab() as lab:
        lab.refused('volume', 'status', 'v', says='no volume')
        for words in ((), ('volume',), ('bogus',), ('--bogus',), ('volume', 'bogus'), ('volume', 'status'), ('volume', 'status', 'v', 'w'), ('volume', 'status', '--bogus', 'v'),
                      ('clone', 'v/a@b', 'v/c', '--count', '0'), ('devnet', 'up', '--miners', '-1')):
            lab.refused(*words, codes=(2,), says=('cumulus', '--help'))
        for words in ((), ('bogus',), ('run',), ('run', 'd', '--listen'), ('init', 'd', '--capacity', 'much')):
            lab.refused(*words, codes=(2,), says=('cumulus-miner', '--help'), program='cumulus-miner')
        lab.refused('init', lab.path('none'), '--capacity', '0', codes=(2,), says='at least 64', program='cumulus-miner')
        lab.run('devnet', 'up', '--dir', lab.net)
        make = ('volume', 'create', 'v', '--miners', lab.list)
        lab.refused('volume', 'create', '../v', '--miners', lab.list, codes=(2,))
        lab.refused('volume', 'create', 'v', '--miners', lab.path('none.toml'), says='none.toml')
        lab.refused(*make, '--code', '0+2', codes=(2,))
        lab.refused(*make, '--code', '33+2', codes=(2,))
        lab.refused(*make, '--code', 'four', codes=(2,))
        lab.refused(*make, '--segment', '5M', codes=(2,))
        lab.refused(*make, '--durability', 'maybe', codes=(2,))
        with open(lab.path('broken.toml'), 'w') as file:
            file.write('[[miner]]\naddress = 7\n')
        lab.refused('volume', 'create', 'v', '--miners', lab.path('broken.toml'), says='broken.toml')
        expect(not os.path.exists(os.path.join(lab.home, 'volumes', 'v')), 'a refused create left a volume')
        lab.up()
        lab.refused(*make, says='already')
        lab.refused('object', 'get', 'v/b', 'x', lab.path('x'), codes=(1,), says='b')
        lab.refused('object', 'put', 'v/b', 'x', lab.path('nothing'), codes=(1,), says='nothing')
        lab.refused('object', 'put', 'v', 'x', lab.list, codes=(2,), says='VOLUME/NAME')
        lab.run('object', 'put', 'v/b', 'x', lab.list)
        lab.refused('object', 'get', 'v/b', 'y', lab.path('y'), codes=(1,), says='y')
        lab.refused('object', 'get', 'v/b', 'x', '/proc/nowhere/x', codes=(1,), says='/proc/nowhere')
        lab.refused('object', 'get', 'v/b', 'none', lab.path('folder'), '-r', codes=(1,), says='none')
        lab.run('object', 'put', 'v/c', '../out', lab.list)
        lab.refused('object', 'get', 'v/c', '.', lab.path('folder'), '-r', codes=(1,), says='../out')
        expect(not os.path.exists(lab.path('out')), 'a name led out of the folder')
        blocks = open(lab.list).read().split('[[miner]]')
        for count, fail in ((3, 1), (5, 1), (6, 2)):
            with open(lab.path('some.toml'), 'w') as file:
                file.write('[[miner]]'.join(blocks[:count + 1]))
            code, out, errors = lab.attempt('volume', 'create', f'of-{count}', '--miners', lab.path('some.toml'))
            expect(code == 0 and f'any {fail} miners may fail' in out.decode(), f'{count} miners: {out} {errors}')
            expect(('6 are needed' in errors) == (count < 6), f'{count} miners: {errors}')
        lab.refused('volume', 'set', 'v', 'colour=blue', codes=(2,), says='colour')
        lab.refused('devnet', 'stop', '9', '--dir', lab.net, codes=(1,), says='9')
        lab.refused('run', lab.path('no-miner'), '--listen', '127.0.0.1:0', program='cumulus-miner')
        with socket.socket() as taken:
            taken.bind(('127.0.0.1', 0))
            taken.listen()
            lab.miner('stop', 1)
            lab.refused('run', os.path.join(lab.net, 'miner-1'), '--listen', f'127.0.0.1:{taken.getsockname()[1]}', program='cumulus-miner')
            lab.miner('start', 1)


def keys_and_codes():
    with Lab() as lab:
        lab.up()
        lab.run('object', 'put', 'v/b', 'x', lab.list, '--sync')
        lab.run('volume', 'stop', 'v')
        other = lab.path('other')
        recover = ('volume', 'recover', 'v', '--miners', lab.list, '--code-stdin')
        code = lab.recovery_code
        wrong = code[:12] + ('2' if code[12] != '2' else '3') + code[13:]
        lab.refused(*recover, home=other, text=wrong + '\n')
        lab.refused(*recover, home=other, text='hello\n')
        lab.refused(*recover, home=other, text='')
        expect(not os.path.exists(os.path.join(other, 'volumes', 'v')), 'a refused recovery left a volume')
        folder = os.path.join(lab.home, 'volumes', 'v')
        key = os.path.join(folder, 'key')
        good = open(key, 'rb').read()
        for damaged in (good[:-1], b'', good[:20] + bytes([good[20] ^ 1]) + good[21:], b'x' * len(good)):
            with open(key, 'wb') as file:
                file.write(damaged)
            lab.refused('object', 'get', 'v/b', 'x', lab.path('x'), codes=(1, 2), says='key')
        with open(key, 'wb') as file:
            file.write(good)
        for name, word in (('right', 'correct horse'), ('wrong', 'battery staple')):
            with open(lab.path(name), 'w') as file:
                file.write(word + '\n')
        lab.run('volume', 'passwd', 'v', '--new-passphrase-file', lab.path('right'))
        expect(os.stat(key).st_mode & 0o777 == 0o600, 'the key file is readable by others')
        lab.refused('volume', 'status', 'v', '--passphrase-file', lab.path('wrong'), codes=(1,), says='passphrase')
        lab.run('object', 'get', 'v/b', 'x', lab.path('x'), '--passphrase-file', lab.path('right'))
        expect(sha_of(lab.path('x')) == sha_of(lab.list), 'other bytes came back')
        lab.run('volume', 'stop', 'v')
        lab.run('volume', 'passwd', 'v', '--remove', '--passphrase-file', lab.path('right'))
        miner = lab.path('miner')
        lab.run('init', miner, '--capacity', '1G', program='cumulus-miner')
        text = open(os.path.join(miner, 'identity')).read()
        at = text.index('\n') + 7
        with open(os.path.join(miner, 'identity'), 'w') as file:
            file.write(text[:at] + ('0' if text[at] != '0' else '1') + text[at + 1:])
        lab.refused('status', miner, codes=(1,), says='damaged', program='cumulus-miner')
        # A miner that shows another identity than the pinned one is not spoken to. The list that the superblock has mends the home's.
        text = open(os.path.join(folder, 'miners.toml')).read()
        first = re.search(r'[0-9a-f]{64}', text).group(0)
        for path in (os.path.join(folder, 'miners.toml'), lab.path('wrong.toml')):
            with open(path, 'w') as file:
                file.write(text.replace(first, first[:-1] + ('0' if first[-1] != '0' else '1')))
        expect([miner['answers'] for miner in lab.status()['miners']] == [True] * 6, 'the damaged list of a home counts')
        expect(first in open(os.path.join(folder, 'miners.toml')).read(), 'the list was not mended')
        lab.run('volume', 'create', 'w', '--miners', lab.path('wrong.toml'), '--segment', '1M')
        answers = [miner['answers'] for miner in lab.status_of('w')['miners']]
        expect(answers.count(False) == 1, f'a miner with another identity answers: {answers}')


def other_users():
    """What another user may not read or write is refused with the file and the reason, never with a crash."""
    with Lab() as lab:
        lab.up()
        lab.run('object', 'put', 'v/b', 'x', lab.list)
        os.chmod(lab.dir, 0o755)
        as_other = {'user': 65534} if os.geteuid() == 0 else {}
        shut = [lab.home, os.path.join(lab.net, 'miner-1')]
        if not as_other:
            for folder in shut:
                os.chmod(folder, 0)
        elsewhere = lab.path('elsewhere')
        os.mkdir(elsewhere, 0o555)
        volumes = os.path.join(lab.home, 'volumes')
        for mode in (0o700, 0o755):
            if as_other:
                os.chmod(volumes, mode)
            for words in (('volume', 'status', 'v'), ('volume', 'stop', 'v'), ('volume', 'set', 'v', 'memory=1G'), ('volume', 'passwd', 'v', '--remove'),
                          ('volume', 'destroy', 'v', '--yes'), ('object', 'ls', 'v/b'), ('fs', 'ls', 'v'), ('image', 'ls', 'v'), ('miner', 'ls', 'v'),
                          ('mount', 'v', elsewhere), ('nbd', 'serve', 'v/i', '--socket', lab.path('s'))):
                lab.refused(*words, codes=(1,), says=('permission denied', lab.home), **as_other)
        for folder in (elsewhere, '/proc/nowhere'):
            lab.refused('devnet', 'up', '--dir', os.path.join(folder, 'net'), codes=(1,), says=folder, **as_other)
            lab.refused('volume', 'create', 'w', '--miners', lab.list, home=os.path.join(folder, 'home'), codes=(1,), **as_other)
            lab.refused('init', os.path.join(folder, 'miner'), '--capacity', '1G', program='cumulus-miner', codes=(1,), says=folder, **as_other)
        for words in (('run', shut[1], '--listen', '127.0.0.1:0'), ('status', shut[1]), ('scrub', shut[1]), ('allow', shut[1], 64 * '0', '--quota', '1G')):
            lab.refused(*words, program='cumulus-miner', codes=(1,), says=('permission denied', shut[1]), **as_other)
        for folder in shut:
            os.chmod(folder, 0o700)
        lab.refused('object', 'get', 'v/b', 'x', '/proc/x', codes=(1,), says='/proc/x')
        lab.verify({'x': sha_of(lab.list)})


def two_at_once():
    """What two commands change at the same time is changed by both; what a full disk interrupted begins anew."""
    with Lab(miners=2, code='1+1') as lab:
        lab.up()
        for number in range(1, 13):
            both = [lab.start('volume', 'set', 'v', f'{key}={value}') for key, value in (('cache-size', f'{number}G'), ('outage-wait', f'{number}s'))]
            for one in both:
                expect(one.communicate()[1] == b'' and one.returncode == 0, 'one of two settings was not changed')
            with open(os.path.join(lab.home, 'volumes', 'v', 'settings.json'), encoding='utf-8') as file:
                now = json.load(file)
            expect((now['cache-size'], now['outage-wait']) == (number << 30, f'{number}s'), f'a setting was lost: {now}')
        miner = lab.path('miner')
        lab.run('init', miner, '--capacity', '1G', program='cumulus-miner')
        allowing = [lab.start('allow', miner, f'{number:064x}', '--quota', '1G', program='cumulus-miner') for number in range(8)]
        for one in allowing:
            expect(one.communicate()[1] == b'' and one.returncode == 0, 'an allow failed')
        with open(os.path.join(miner, 'allow'), encoding='utf-8') as file:
            expect(sum(not line.startswith('#') for line in file) == 8, 'a volume that was allowed is not on the list')

        disk = lab.small_disk('tiny', '64k')
        fill, miner = os.path.join(disk, 'fill'), os.path.join(disk, 'miner')
        for left in (0, 4096):
            with open(fill, 'wb') as file:
                file.write(bytes(65536 - left))
            lab.refused('init', miner, '--capacity', '100M', program='cumulus-miner', codes=(1,), says='no space')
            os.unlink(fill)
            lab.run('init', miner, '--capacity', '100M', program='cumulus-miner')
            lab.refused('init', miner, '--capacity', '100M', program='cumulus-miner', codes=(1,), says='holds a miner already')
            shutil.rmtree(miner)


def settings_and_requests():
    """Settings that a person or a disk spoiled, and whatever comes to the daemon's socket."""
    with Lab() as lab:
        lab.up()
        lab.run('object', 'put', 'v/b', 'x', lab.list)
        pid = lab.daemon_pid()
        requests = [b'', b'null', b'[]', b'7', b'{', b'[' * 500000, b'{"request":5}', b'{"request":[]}', b'{"request":"volume.check","data":"x"}',
                    b'{"request":"volume.repair","restart":{}}', b'{"request":"object.put","bucket":7}', b'{"request":"object.get","bucket":"b","name":[]}',
                    b'{"request":"fs.mount","options":3}', b'{"request":"snapshot.create","targets":[4]}', b'{"request":"image.create","size":"x"}',
                    b'{"request":"image.create","name":"i","size":-1}', b'{"request":"clone","count":-1}', b'{"request":"nbd.serve","allow":5}', b'\xff\xfe{}']
        frames = [struct.pack('<IB', len(body), 1) + body for body in requests]
        for frame in frames:
            answer = ask(lab, frame)
            expect(answer and 'error' in json.loads(answer[5:]), f'{frame[5:60]!r} was answered with {answer!r}')
        good = b'{"request":"volume.status"}'
        for frame in [struct.pack('<IB', 0xFFFFFFFF, 1), struct.pack('<IB', 5 << 20, 2), struct.pack('<IB', len(good), 9) + good, b'\0\0\0', frames[6][:9]]:
            expect(ask(lab, frame, end=True) == b'', f'{frame[:20]!r} was answered')
        expect(lab.daemon_pid() == pid, 'a request ended the daemon')
        settings = os.path.join(lab.home, 'volumes', 'v', 'settings.json')
        text = open(settings).read()
        for key, values in {'outage-wait': ('nan', 'NAN', '-nan', 'nans', 'inf', '-inf', 'infinity', '-1s', '1e300', '1e9h', '', 's', '5x', '5s5'),
                            'memory': ('99999T', '1', '-1', 'nan', '8E', '1.', ''), 'cache-size': ('99999T', '1K', '-5G', 'inf', '8E'), 'durability': ('', 'Local')}.items():
            for value in values:
                lab.refused('volume', 'set', 'v', f'{key}={value}', codes=(2,))
                expect(open(settings).read() == text, f'{key}={value} was refused, and written')
        for value in ('99999T', '1', '127M', '-1', 'nan', '8E', '1.'):  # given while a volume is made, or brought back, as for `set`
            said = lab.refused('volume', 'set', 'v', f'memory={value}', codes=(2,))
            for making in (('create', 'w'), ('recover', 'w', '--code-stdin')):
                got = lab.refused('volume', *making, '--miners', lab.list, f'--memory={value}', codes=(2,), text=lab.recovery_code + '\n')
                expect(got.split(': ', 1)[-1] == said.split(': ', 1)[-1], f'{got!r} is not {said!r}')
                expect(not os.path.exists(os.path.join(lab.home, 'volumes', 'w')), f'memory={value} was refused, and a volume is there')
        for value in ('500ms', '0s', '90s', 'forever'):
            expect(lab.json('volume', 'set', 'v', f'outage-wait={value}')['outage-wait'] == value, f'outage-wait={value} became another time')
        lab.run('volume', 'set', 'v', 'outage-wait=4s')
        lab.run('volume', 'stop', 'v')
        for spoiled in ('', '{', '[]', 'null', '{}', '{"version":"1"}', '{"version":1.5}', '{"version":1,"id":5}', '{"version":1,"memory":null}',
                        '{"version":1,"memory":-5}', '{"version":1,"memory":1}', '{"version":1,"durability":[]}', '{"version":1,"outage-wait":1e300}', '{"version":2}'):
            with open(settings, 'w') as file:
                file.write(spoiled)
            for words in (('object', 'ls', 'v/b'), ('volume', 'set', 'v', 'memory=1G')):
                said = lab.refused(*words, codes=(1,), says='settings.json')
                expect(('newer' in said) == (spoiled == '{"version":2}'), f'{spoiled}: {said}')
            expect('settings.json' in lab.run('volume', 'ls').decode(), f'{spoiled}: volume ls says nothing')
        with open(settings, 'w') as file:
            file.write(text)
        lab.verify({'x': sha_of(lab.list)})


def memory_given():
    """What --memory says is stored as `volume set memory=` stores it; a daemon that runs keeps what it has, and says so."""
    with Lab() as lab:
        lab.up(create=False)
        lab.refused('volume', 'create', 'v', '--miners', lab.list, '--segment', '64M', says='memory=1136M')
        expect(not os.path.exists(os.path.join(lab.home, 'volumes', 'v')), 'refused for its memory, and a volume is there')
        made = lab.json('volume', 'create', 'v', '--miners', lab.list, '--segment', '1M', '--memory', '192M')

        def memory(home):
            return json.load(open(os.path.join(home, 'volumes', 'v', 'settings.json')))['memory']

        expect(memory(lab.home) == 192 << 20, f'--memory of create became {memory(lab.home)}')
        lab.run('object', 'put', 'v/b', 'x', lab.list, '--sync')
        for value, told in (('256M', True), ('256M', False)):
            code, _, errors = lab.attempt('volume', 'set', 'v', f'memory={value}')
            expect(code == 0 and ('next start' in errors) == told, f'volume set memory={value}: exit code {code}: {errors!r}')
        lab.run('volume', 'stop', 'v')
        code, _, errors = lab.attempt('volume', 'set', 'v', 'memory=384M')
        expect(code == 0 and not errors and memory(lab.home) == 384 << 20, f'without a daemon: exit code {code}: {errors!r}')
        other = lab.path('other')
        lab.homes.append(other)
        back = ('volume', 'recover', 'v', '--miners', lab.list, '--code-stdin')
        lab.run(*back, '--memory', '160M', home=other, text=made['recovery_code'] + '\n')
        expect(memory(other) == 160 << 20, f'--memory of recover became {memory(other)}')
        lab.verify({'x': sha_of(lab.list)}, home=other)


def interrupted_making():
    """`volume create` and `recover` killed at any moment leave a volume or nothing: never half of one, never one without its code."""
    with Lab() as lab:
        lab.up()
        lab.run('object', 'put', 'v/b', 'x', lab.list, '--sync')
        lab.run('volume', 'stop', 'v')
        shown, made = 0, ('volume', 'create', 'w', '--miners', lab.list, '--segment', '1M')
        for pause in [0.004, 0.012, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2]:
            process = lab.start(*made)
            time.sleep(pause * lab.random.uniform(0.7, 1.3))
            process.kill()
            shown += b'cumulus1-' in process.communicate()[0]
            if os.path.exists(os.path.join(lab.home, 'volumes', 'w', 'unfinished')):
                lab.refused('volume', 'status', 'w', codes=(1,), says='volume create')
                lab.refused('volume', 'destroy', 'w', '--yes', codes=(1,), says='volume create')
        deadline = time.monotonic() + 60
        code, _, errors = lab.attempt(*made)
        while code != 0 and 'still works on' in errors and time.monotonic() < deadline:
            time.sleep(0.2)
            code, _, errors = lab.attempt(*made)
        expect(code == 0 or (shown and 'already' in errors), f'after interruptions: {errors}')
        expect(lab.status_of('w')['writable'], 'w is not there')
        lab.refused(*made, codes=(1,), says='already')
        lab.run('volume', 'destroy', 'w', '--yes')
        with open('/dev/full', 'w') as full:  # a code that nobody saw
            process = lab.start(*made, stdout=full)
            said = process.communicate()[1].decode()
            expect(process.returncode == 1 and 'recovery code' in said and said.count('\n') == 1, f'{process.returncode}: {said}')
            for process in (lab.start('volume', 'ls', stdout=full), lab.start('status', os.path.join(lab.net, 'miner-1'), stdout=full, program='cumulus-miner')):
                expect(process.communicate()[1] and process.returncode == 1, 'a list that nobody saw was called done')
        expect(not os.path.exists(os.path.join(lab.home, 'volumes', 'w')), 'a volume whose code was not shown stayed')
        other = lab.path('other')
        lab.homes.append(other)
        back = ('volume', 'recover', 'v', '--miners', lab.list, '--code-stdin', '--steal')
        for pause in [0.005, 0.02, 0.05, 0.1, 0.2]:
            process = lab.start(*back, home=other, stdin=subprocess.PIPE)
            process.stdin.write(lab.recovery_code.encode() + b'\n')
            process.stdin.close()
            time.sleep(pause)
            process.kill()
            process.wait()
        # Its daemon may go on by itself, and may be through already.
        for _ in range(100):
            code, _, errors = lab.attempt(*back, home=other, text=lab.recovery_code + '\n')
            if code == 0 or 'already' in errors:
                break
            expect('still works' in errors, f'recovery after interruptions: {errors}')
            time.sleep(0.2)
        lab.verify({'x': sha_of(lab.list)}, home=other)


def full_home():
    """The disk of the home is full: who writes is told in time, what was acknowledged stays, and with room all goes on."""
    with Lab() as lab:
        small = lab.small_disk('small', '48M')
        lab.run('devnet', 'up', '--dir', lab.net)
        lab.refused('volume', 'create', 'w', '--miners', lab.list, '--segment', '16M', home=small, codes=(1,), says=('free', small))
        expect(not os.path.exists(os.path.join(small, 'volumes', 'w')), 'a refused create left a volume')
        lab.home = small
        lab.homes.append(small)
        lab.up()
        lab.run('volume', 'set', 'v', 'outage-wait=2s')
        kept = {}
        for i in range(12):  # more than the disk holds: it is given back as fast as the miners take it
            kept[f'kept-{i}'] = lab.put_bytes(f'kept-{i}', 5 << 20)
        ballast = os.path.join(small, 'ballast')
        fill(ballast)
        for miner in range(1, 7):
            lab.miner('stop', miner)
        refused, began = 0, time.time()
        for i in range(3):
            name = f'late-{i}'
            sha = lab.put_bytes(name, 5 << 20, may_fail=True)
            if sha:
                kept[name] = sha
            else:
                refused += 1
        expect(refused > 0, 'a full disk took everything')
        expect(time.time() - began < 60, f'{time.time() - began:.0f} s until a full disk was told')
        pid = lab.daemon_pid()
        lab.kill_daemon()
        os.unlink(ballast)
        for miner in range(1, 7):
            lab.miner('start', miner)
        lab.verify(kept)
        fill(ballast)
        pid = lab.daemon_pid()
        for miner in range(1, 7):
            lab.miner('stop', miner)
        while sha := lab.put_bytes('filler', 5 << 20, may_fail=True):
            kept['filler'] = sha
        os.unlink(ballast)
        lab.run('volume', 'set', 'v', 'outage-wait=60s')
        for miner in range(1, 7):
            lab.miner('start', miner)
        kept['after'] = lab.put_bytes('after', 5 << 20)
        expect(lab.daemon_pid() == pid, 'the daemon was started again')
        lab.sync()
        lab.verify(kept)
        lab.check_clean(data=True)


def full_miner():
    """A miner whose disk is full says so and serves what it has; others take its slices; with room it takes part again."""
    with Lab() as lab:
        lab.run('devnet', 'up', '--dir', lab.net)
        lab.miner('stop', 1)
        folder = os.path.join(lab.net, 'miner-1')
        os.rename(folder, folder + '.kept')
        lab.small_disk(os.path.join('net', 'miner-1'), '8M')
        subprocess.run(['cp', '-a', folder + '.kept/.', folder], check=True)
        lab.miner('start', 1)
        lab.up()
        kept = {'before': lab.put_bytes('before', 3 << 20)}
        lab.sync()
        ballast = os.path.join(folder, 'ballast')
        fill(ballast)
        kept['during'] = lab.put_bytes('during', 24 << 20)
        lab.sync()
        expect(lab.status()['segments_crowded'] > 0, 'a full disk took slices')
        lab.drop_cache()
        lab.verify(kept)
        lab.miner('stop', 1)
        code, _, errors = lab.attempt('devnet', 'start', '1', '--dir', lab.net)
        log = open(os.path.join(lab.net, 'miner-1.log')).read()
        expect(code == 0 or 'space' in log, f'it does not start, and does not say why: {errors} {log}')
        os.unlink(ballast)
        if code != 0:
            lab.miner('start', 1)
        lab.repair()
        lab.check_clean(data=True)
        lab.verify(kept)


def few_open_files():
    """Under a low limit of open files the cache is smaller, and everything else goes on."""
    with Lab(segment='64K') as lab:
        lab.up()

        def start_limited():
            lab.run('volume', 'stop', lab.volume)
            words = ('-c', 'ulimit -n 256; exec "$@"', 'sh', os.path.join(lab.bin, 'cumulus'), 'object', 'ls', f'{lab.volume}/b')
            return lab.attempt(*words, program='/bin/sh')

        lab.put_bytes('small', 1000)
        start_limited()
        sha = lab.put_bytes('large', 30 << 20)
        lab.sync()
        held = len(os.listdir(f'/proc/{lab.daemon_pid()}/fd'))
        expect(held < 240, f'{held} of 256 descriptors are in use')
        lab.run('object', 'rm', f'{lab.volume}/b', 'small')
        code, _, errors = start_limited()
        expect(code == 0, f'opened again under the limit: {errors}')
        lab.verify({'large': sha})
        lab.run('volume', 'stop', lab.volume)
        sha = lab.put_bytes('large', 30 << 20)
        lab.sync()
        code, _, errors = start_limited()
        expect(code == 1 and 'ulimit -n' in errors, f'more files than the limit allows: {code} {errors}')
        lab.verify({'large': sha})


def fill(path):
    """Takes what is free of a disk, to the last block."""
    with open(path, 'wb', buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while True:
                    file.write(b'\x01' * size)
            except OSError as error:
                expect(error.errno == errno.ENOSPC, f'{path}: {error}')


def frame_of(daemon):
    """One frame, or b'' when the daemon hangs up."""
    frame = b''
    wanted = 5
    while len(frame) < wanted:
        part = daemon.recv(wanted - len(frame))
        if not part:
            return b''
        frame += part
        if len(frame) == 5:
            wanted += int.from_bytes(frame[:4], 'little')
    return frame


def ask(lab, frame, end=False):
    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.settimeout(20)
        daemon.connect(os.path.join(lab.home, 'volumes', 'v', 'daemon.sock'))
        expect(b'serving' in frame_of(daemon), 'the daemon does not greet')
        daemon.sendall(frame)
        if end:
            daemon.shutdown(socket.SHUT_WR)
        return frame_of(daemon)


if __name__ == '__main__':
    main(words_and_files, keys_and_codes, other_users, two_at_once, settings_and_requests, memory_given, interrupted_making, full_home, full_miner, few_open_files)
