#!/usr/bin/env python3
"""Objects and the files they come from and go to: names that cannot be kept, files without a size, folders with what is no file, and ends in the middle."""
import hashlib
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import time

from lab import Lab, expect, main, sha_of


def object_names():
    """A name that is not UTF-8 is refused before anything is stored, never taken for another; what commands a terminal is not printed to one."""
    with Lab() as lab:
        lab.up()
        bad, worse = 'caf\udce9', 'caf\udce8'  # two names of bytes, as Python has them
        put = ('object', 'put', 'v/b')
        for name in (bad, worse, 'x\udced\udca0\udc80', '\udcff', '\udcc0\udc80', 'a\udcf0\udc9f\udc98'):
            lab.refused(*put, name, lab.list, codes=(2,), says=('UTF-8', '\\x'))
        for words in (('object', 'put', f'v/{bad}', 'x', lab.list), ('object', 'get', 'v/b', bad, lab.path('x')), ('object', 'rm', 'v/b', bad), ('object', 'stat', 'v/b', bad),
                      ('object', 'ls', 'v/b', '--prefix', bad), ('image', 'create', f'v/{bad}', '--size', '1M'), ('fs', 'create', f'v/{bad}'), ('volume', 'create', bad, '--miners', lab.list),
                      ('snapshot', 'create', f'v/main@{bad}'), ('clone', 'v/main@s', f'v/{bad}')):
            lab.refused(*words, codes=(2,), says='UTF-8')
        folder = lab.path('names')
        os.mkdir(folder)
        for name in ('a', 'z', bad, worse):
            with open(os.path.join(folder, name), 'w', encoding='utf-8') as file:
                file.write(ascii(name))
        lab.refused(*put, '.', folder, '-r', codes=(2,), says=('UTF-8', 'caf\\xe', folder))
        expect(not [entry for entry in lab.json('fs', 'ls', 'v') if entry['name'] == 'b'] and lab.attempt('object', 'ls', 'v/b')[0] == 1, 'a refused name left something')
        for name in (bad, worse):
            os.unlink(os.path.join(folder, name))
        for name in ('a', 'z', 'caf\u00e9', 'caf\u00e8', '\u4e2d\U0001f600', '\x1b[31m\x9b'):
            with open(os.path.join(folder, name), 'w', encoding='utf-8') as file:
                file.write(ascii(name))
        lab.run(*put, '.', folder, '-r')
        lab.verify({name: sha_of(os.path.join(folder, name)) for name in os.listdir(folder)})
        leader, follower = pty.openpty()
        lab.start('object', 'ls', 'v/b', stdout=follower).wait()
        os.close(follower)
        shown = b''
        try:
            while piece := os.read(leader, 65536):
                shown += piece
        except OSError:  # a terminal's end
            pass
        expect(b'\x1b' not in shown and b'\\x1b[31m\\xc2\\x9b' in shown and 'caf\u00e9'.encode() in shown, f'a terminal was shown {shown}')
        expect(b'\x1b[31m' in lab.run('object', 'ls', 'v/b'), 'a program was not given the bytes')


def object_folders():
    """What of a folder is no file is counted; what of a bucket cannot be a file is named and the rest comes."""
    with Lab() as lab:
        lab.up()
        folder = lab.path('folder')
        os.makedirs(os.path.join(folder, 'below', 'empty'))
        for name in ('one', 'below/two'):
            with open(os.path.join(folder, name), 'w') as file:
                file.write(name)
        os.symlink('one', os.path.join(folder, 'link'))
        os.symlink('below', os.path.join(folder, 'to-folder'))
        os.symlink('nothing', os.path.join(folder, 'dangling'))
        os.symlink('itself', os.path.join(folder, 'itself'))
        os.mkfifo(os.path.join(folder, 'pipe'))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.path.join(folder, 'socket'))
            code, out, errors = lab.attempt('object', 'put', 'v/b', '.', folder, '-r')
        expect(code == 0 and out == b'3 objects\n' and errors.count('\n') == 1, f'{code} {out} {errors}')
        for count in ('1 empty folders', '1 pipes', '1 sockets', '1 symbolic links to folders', '2 symbolic links to nothing'):
            expect(count in errors, f'{errors} does not say "{count}"')
        lab.verify({name: sha_of(os.path.join(folder, name)) for name in ('one', 'below/two', 'link')})
        for path in (os.path.join(folder, 'itself'), 5000 * 'x'):
            for words in (('put', 'v/b', 'x', path), ('put', 'v/b', '.', path, '-r')):
                expect('unexpected' not in lab.refused('object', *words), f'{path[:60]}: an exception')
        expect('unexpected' not in lab.refused('object', 'get', 'v/b', 'one', 5000 * 'x'), 'an exception')
        # Names that no folder can have all of.
        long = '/'.join(5 * [200 * 'n'])[:1020]
        for name in ('..', '../out', 'file', 'file/below', 'more/../x', 1020 * 'n', long, 'zz', 255 * 'm'):
            lab.run('object', 'put', 'v/c', name, lab.list)
        code, out, errors = lab.attempt('object', 'get', 'v/c', '.', lab.path('got'), '-r')
        expect(code == 1 and out == b'4 objects\n', f'{code} {out} {errors}')
        lines = errors.strip().split('\n')
        expect(len(lines) == 5 and all('was not fetched' in line for line in lines), errors)
        for name in ('file', long, 'zz', 255 * 'm'):
            expect(sha_of(os.path.join(lab.path('got'), name)) == sha_of(lab.list), f'{name}: other bytes')
        expect(not os.path.exists(lab.path('out')), 'a name led out of the folder')


def snapshots_unchanged():
    """What is given as BUCKET@SNAPSHOT is read there, and nothing is written: not there, and not in the bucket itself."""
    with Lab() as lab:
        lab.up()
        expected = {name: lab.put_bytes(name, 30_000) for name in ('keep', 'keep2')}
        lab.run('snapshot', 'create', 'v/b@s')
        for words in (('rm', 'v/b@s', 'keep'), ('put', 'v/b@s', 'keep', lab.list), ('put', 'v/b@s', 'new', lab.list)):
            lab.refused('object', *words, codes=(2,), says=("'b@s'", 'snapshot'))
        expect([entry['name'] for entry in lab.json('object', 'ls', 'v/b')] == ['keep', 'keep2'], 'the bucket was changed')
        lab.verify(expected)
        lab.run('object', 'rm', 'v/b', 'keep')
        lab.verify(expected, 'b@s')


def object_streams():
    """Files that have no size, and commands that end in the middle."""
    with Lab() as lab:
        lab.up()
        for path in ('/proc/cpuinfo', '/proc/self/limits', '/sys/kernel/mm/transparent_hugepage/enabled'):
            if not os.path.exists(path):
                continue
            lab.run('object', 'put', 'v/b', 'x', path)
            expect(lab.run('object', 'cat', 'v/b', 'x')[:4] == open(path, 'rb').read(4), f'{path} was stored otherwise')
        empty = lab.path('empty')
        open(empty, 'w').close()
        lab.run('object', 'put', 'v/b', 'empty', empty)
        expect(lab.run('object', 'cat', 'v/b', 'empty') == b'', 'an empty file is not empty')
        sparse, back = lab.path('sparse'), lab.path('back')
        for pieces in ((), (0,), (100 << 20,), (1, (200 << 20) - 1), ((64 << 20) - 1, 64 << 20)):
            with open(sparse, 'wb') as file:
                file.truncate(200 << 20)
                for at in pieces:
                    file.seek(at)
                    file.write(b'x')
            before = lab.status()['dirty']
            lab.run('object', 'put', 'v/b', 'sparse', sparse)
            expect(lab.status()['dirty'] - before < (10 << 20), f'a file of holes and {len(pieces)} bytes costs {lab.status()["dirty"] - before}')
            lab.run('object', 'get', 'v/b', 'sparse', back)
            expect(sha_of(back) == sha_of(sparse), f'a file of holes and bytes at {pieces} came back otherwise')
        for missing in (('object', 'get', 'v/b', 'none', lab.path('x')), ('object', 'stat', 'v/b', 'none'), ('object', 'rm', 'v/b', 'none')):
            lab.refused(*missing, codes=(1,), says=("'none'", "bucket 'b'"))
        lab.put_bytes('large', 12 << 20)
        lab.sync()
        lab.drop_cache()
        for miner in range(1, 7):
            lab.miner('slow', miner, '--rate', '200K')
        for end in (signal.SIGINT, signal.SIGTERM):
            got = lab.path('got')
            process = lab.start('object', 'get', 'v/b', 'large', got)
            wait_for(lambda: parts(lab))
            process.send_signal(end)
            process.communicate()
            expect(process.returncode == -end, f'{process.returncode}')
            expect(not parts(lab) and not os.path.exists(got), f'{end!r} left {parts(lab)}')


def object_replaced_under_get():
    """Whoever fetches while the object is replaced gets the new one; when it is removed, or half of it was given away, a line that says so."""
    with Lab() as lab:
        lab.up()
        lab.run('volume', 'set', lab.volume, 'outage-wait=1h')
        got = lab.path('got')

        def disturbed(verb, *target, by):
            """(exit code, standard error) of a command that had to wait for miners while `by` ran."""
            lab.put_bytes('it', 40 << 20)  # more than is asked for at once
            lab.sync()
            lab.drop_cache()
            for miner in (1, 2, 3):
                lab.miner('stop', miner)
            process = lab.start('object', verb, 'v/b', 'it', *target)
            wait_for(lambda: parts(lab) or verb == 'cat')
            time.sleep(0.3)
            by()
            for miner in (1, 2, 3):
                lab.miner('start', miner)
            _, errors = process.communicate(timeout=120)
            return process.returncode, errors.decode()

        sha = []
        code, errors = disturbed('get', got, by=lambda: sha.append(lab.put_bytes('it', 100_000)))
        expect(code == 0 and sha_of(got) == sha[0], f'a get during a put: {code} {errors}')
        os.remove(got)
        code, errors = disturbed('get', got, by=lambda: lab.run('object', 'rm', 'v/b', 'it'))
        expect(code == 1 and "'it'" in errors and not os.path.exists(got), f'a get during a rm: {code} {errors}')
        code, errors = disturbed('cat', by=lambda: lab.put_bytes('it', 100_000))
        expect(code == 1 and 'was replaced or removed while it was read' in errors, f'a cat during a put: {code} {errors}')
        expect(not parts(lab), f'left behind: {parts(lab)}')


def object_replaces_files():
    """A file that is replaced keeps its owner and who may read it; a link stays one."""
    with Lab() as lab:
        lab.up()
        sha = lab.put_bytes('it', 100_000)
        private, link = lab.path('private'), lab.path('link')
        with open(private, 'w') as file:
            file.write('old')
        os.chown(private, 1234, 4321)
        os.chmod(private, 0o600)
        os.symlink('private', link)
        for target in (private, link):
            lab.run('object', 'get', 'v/b', 'it', target)
            about = os.stat(private)
            expect(sha_of(private) == sha and os.readlink(link) == 'private', f'after a get to {target}')
            expect((about.st_uid, about.st_gid, about.st_mode & 0o7777) == (1234, 4321, 0o600), f'it became {about}')
        os.symlink('/proc/self/fd/1', lab.path('stdout'))
        with open(lab.path('out'), 'wb') as out:
            expect(lab.start('object', 'get', 'v/b', 'it', lab.path('stdout'), stdout=out).wait() == 0, 'get to a link to standard output')
        expect(os.path.islink(lab.path('stdout')) and sha_of(lab.path('out')) == sha, 'standard output was replaced')
        expect(not parts(lab), f'left behind: {parts(lab)}')


def object_without_streams():
    """A program that is started with its standard streams closed writes what is for people nowhere, least of all into a file that it fetches."""
    with Lab(miners=2, code='1+1') as lab:
        lab.up()
        sha = lab.put_bytes('it', 40_000_000)
        lab.sync()
        for miner in (1, 2):
            lab.miner('slow', miner, '--rate', '2M', '--delay', '1ms')
        lab.drop_cache()
        environment = {**os.environ, 'CUMULUS_HOME': lab.home}

        def call(words, closed):
            return subprocess.run(['sh', '-c', f'exec "$0" "$@" {closed}', os.path.join(lab.bin, 'cumulus'), *words], env=environment, timeout=100, check=False).returncode

        expect(call(['object', 'get', 'v/b', 'it', lab.path('got')], '2>&-') == 0, 'get without standard error')
        expect(sha_of(lab.path('got')) == sha, 'its progress was written into the file')
        expect(call(['object', 'put', 'v/b', 'none', '-'], '<&-') == 1 and lab.attempt('object', 'stat', 'v/b', 'none')[0] == 1, 'a put without standard input')
        expect(call(['volume', 'create', 'unseen', '--miners', lab.list, '--code', '1+1'], '>&-') == 1, 'a recovery code that nobody saw')
        lab.refused('volume', 'status', 'unseen', says='there is no volume')


def object_long_names():
    """A bucket of the longest names there are, of what JSON writes longest, is listed and fetched."""
    with Lab(miners=2, code='1+1') as lab:
        lab.up()
        top = lab.path('top')
        folder = '/'.join(sign * 250 for sign in '\x01\x02\x03')
        os.makedirs(os.path.join(top, folder))
        for number in range(2800):
            open(os.path.join(top, folder, '\x04' * 250 + f'{number:04}'), 'wb').close()
        lab.run('object', 'put', 'v/b', '.', top, '-r', timeout=600)
        expect(len(lab.json('object', 'ls', 'v/b')) == 2800, 'names are missing')
        expect(lab.run('object', 'get', 'v/b', '.', lab.path('back'), '-r', timeout=600) == b'2800 objects\n', 'not all came back')


def object_not_read():
    """A file that cannot be looked at is no file without bytes: the put says so and fails."""
    with Lab(miners=2, code='1+1') as lab:
        lab.up(create=False)
        user = {'user': 65534, 'home': lab.path('other')} if os.geteuid() == 0 else {}
        os.chmod(lab.dir, 0o755)
        os.makedirs(lab.path('folder/below'))
        with open(lab.path('folder/below/file'), 'w') as file:
            file.write('precious')
        os.makedirs(lab.path('other'))
        shutil.copy(lab.list, lab.path('miners.toml'))
        os.chmod(lab.path('miners.toml'), 0o644)
        if user:
            os.chown(lab.path('other'), 65534, 65534)
            lab.homes.append(lab.path('other'))
        lab.run('volume', 'create', 'v', '--miners', lab.path('miners.toml'), '--code', '1+1', '--segment', '1M', **user)
        os.chmod(lab.path('folder/below'), 0o444)
        lab.refused('object', 'put', 'v/b', '.', lab.path('folder'), '-r', codes=(1,), says=('below', 'permission denied'), **user)
        os.chmod(lab.path('folder/below'), 0o755)
        lab.run('object', 'put', 'v/b', '.', lab.path('folder'), '-r', **user)
        if user:  # root may do everything in it, and its owner is told who is there
            lab.run('volume', 'stop', 'v', **user)
            lab.run('volume', 'open', 'v', home=lab.path('other'))
            lab.refused('object', 'ls', 'v/b', codes=(1,), says=('another user', 'permission denied'), timeout=30, **user)


def object_many_readers():
    """However many read and stand still, the daemon keeps to its memory, and each gets its bytes."""
    with Lab(miners=2, code='1+1') as lab:
        lab.up()
        sha = lab.put_bytes('it', 16_000_000)
        readers = [lab.start('object', 'cat', 'v/b', 'it') for _ in range(60)]
        for reader in readers:  # each has begun, and waits for its pipe
            expect(select.select([reader.stdout], [], [], 60)[0], 'a cat does not begin')
        time.sleep(2)
        for reader in readers:
            expect(hashlib.sha256(reader.communicate(timeout=60)[0]).hexdigest() == sha and reader.returncode == 0, 'other bytes came')
        expect(not lab.outgrown(), f'{lab.outgrown()}')


def object_on_own_mount():
    """Files of the volume's own mount come and go as any others: the daemon does not wait for itself."""
    with Lab() as lab:
        lab.up()
        top = lab.path('mnt')
        os.mkdir(top)
        data = lab.random.randbytes(3_000_000)
        lab.run('mount', 'v', top)
        with open(os.path.join(top, 'file'), 'wb') as file:
            file.write(data)
        lab.run('umount', top)
        lab.run('mount', 'v', top)  # nothing of it is in the kernel's memory
        lab.run('object', 'put', 'v/b', 'it', os.path.join(top, 'file'), timeout=30)
        lab.run('object', 'get', 'v/b', 'it', os.path.join(top, 'back'), timeout=30)
        lab.verify({'it': sha_of(os.path.join(top, 'back'))})
        expect(open(os.path.join(top, 'back'), 'rb').read() == data, 'other bytes came back')
        lab.run('umount', top)


def parts(lab):
    return [name for name in os.listdir(lab.dir) if '.part-' in name]


def wait_for(condition):
    for _ in range(500):
        if condition():
            return
        time.sleep(0.01)
    expect(False, 'what was waited for did not come')


if __name__ == '__main__':
    main(object_names, object_long_names, object_folders, object_not_read, object_many_readers, object_on_own_mount, object_replaces_files, object_without_streams, snapshots_unchanged, object_streams, object_replaced_under_get)
