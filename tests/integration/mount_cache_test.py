#!/usr/bin/env python3
"""What a mount promises of the kernel's caches and of its ends: bytes and attributes that the kernel has are not asked for
again; a mount that ends under load, by whatever means, loses nothing that was written before and leaves nothing dead."""
import errno
import mmap
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import time

from lab import Lab, expect, main

MIB = 1 << 20
EMPTIED = 1000

WRITER = '''
import os, sys
top, number = sys.argv[1], 0
while True:
    try:
        with open(f"{top}/new", "wb") as file:
            file.write(b"%d " % number * 20000)
        os.rename(f"{top}/new", f"{top}/file-{number}")
    except OSError as error:
        print(error.errno, flush=True)
        break
    number += 1
    print(number, flush=True)
'''


def asked(lab, top):
    """What the kernel has asked of the mount, by kind."""
    for user in lab.status()['users']:
        if user['where'] == top:
            return user['requests']
    expect(False, f'{top} is not among the users of the volume')


def kernel_caches():
    with Lab() as lab:
        lab.up()
        top = lab.path('mnt')
        os.mkdir(top)
        for options in ([], ['-o', 'noatime'], ['-o', 'writeback']):
            lab.run('mount', lab.volume, top, *options)
            pattern = os.urandom(16 * MIB)
            with open(f'{top}/file', 'wb') as file:
                file.write(pattern)
            os.makedirs(f'{top}/folder', exist_ok=True)
            for number in range(50):
                with open(f'{top}/folder/{number}', 'w') as file:
                    file.write(str(number))
            lab.run('umount', top)
            lab.run('mount', lab.volume, top, *options)

            def look():
                with open(f'{top}/file', 'rb') as file:
                    expect(file.read() == pattern, 'other bytes')
                for name in os.listdir(f'{top}/folder'):
                    os.stat(f'{top}/folder/{name}')
                    with open(f'{top}/folder/{name}') as file:
                        expect(file.read() == name, 'other bytes in a small file')
            look()
            first = asked(lab, top)
            expect(first['read'] >= 16 + 50, f'the first look asked for {first} only: does the count count?')
            before, said = first, []
            for _ in range(6):  # the kernel may take a page or a name for something else; not each time
                look()
                again = asked(lab, top)
                said.append({kind: again[kind] - before[kind] for kind in ('read', 'lookup')})
                before = again
            expect({'read': 0, 'lookup': 0} in said, f'{options}: what the kernel has was asked for again each time: {first}, then {said}')
            shared(f'{top}/file', pattern)
            lab.run('umount', top)


def shared(path, pattern):
    """read, write and a map of one file show the same bytes at once."""
    with open(path, 'r+b', buffering=0) as file, mmap.mmap(file.fileno(), len(pattern)) as view:
        file.seek(5 * MIB)
        file.write(b'by write')
        expect(view[5 * MIB:5 * MIB + 8] == b'by write', 'a map does not show what was written')
        view[6 * MIB:6 * MIB + 6] = b'by map'
        file.seek(6 * MIB)
        expect(file.read(6) == b'by map', 'a read does not show what a map wrote')
        file.seek(5 * MIB)
        file.write(pattern[5 * MIB:6 * MIB + 6])


def directories_asked_for():
    """Once a second for each directory that somebody looks at, for the kernel may have an older answer; for files never."""
    with Lab() as lab:
        lab.up()
        top = lab.path('mnt')
        os.mkdir(top)
        lab.run('mount', lab.volume, top)
        os.mkdir(f'{top}/folder')
        with open(f'{top}/folder/file', 'w') as file:
            file.write('x')
        os.stat(f'{top}/folder/file')
        before, began, looks = asked(lab, top), time.monotonic(), 0
        while time.monotonic() < began + 3:
            os.stat(f'{top}/folder/file')
            os.stat(f'{top}/folder')
            looks += 1
        took, after = time.monotonic() - began, asked(lab, top)
        count = after['getattr'] - before['getattr']
        expect(2 <= count <= 2 * (took + 2) and looks > 100, f'{count} attributes were asked for in {took:.1f} s of {looks} looks at a file below two directories')
        expect(after['lookup'] == before['lookup'], 'names were asked for again')
        lab.run('umount', top)


def ends_under_load():
    with Lab() as lab:
        lab.up()
        top = lab.path('mnt')
        os.mkdir(top)
        for end in ('SIGTERM', ['umount', '-l', top], ['cumulus', 'umount', top], ['umount', top]):
            lab.run('mount', lab.volume, top)
            writers = []
            for number in range(3):
                folder = f'{top}/{number}'
                shutil.rmtree(folder, ignore_errors=True)
                os.mkdir(folder)
                writers.append(subprocess.Popen([sys.executable, '-c', WRITER, folder], stdout=subprocess.PIPE, text=True))
            for writer in writers:
                while int(writer.stdout.readline()) < 3:
                    pass
            if end == 'SIGTERM':
                os.kill(lab.daemon_pid(), signal.SIGTERM)
                gone(top)
            elif end[0] == 'cumulus' or end[1] == top:  # who waits for a file that is open is told so, or waits for its turn
                busy(lab, end, top)
                for writer in writers:
                    writer.terminate()
                    writer.wait()
                lab.run('umount', top)
            else:
                subprocess.run(end, check=True)
                expect(not os.path.ismount(top), 'still mounted after umount -l')
            told = [finished(writer) for writer in writers]
            expect(not os.path.ismount(top) and os.listdir(top) == [], f'after {end}: {os.listdir(top)}')
            lab.run('mount', lab.volume, top)
            for number, done in enumerate(told):
                check_folder(f'{top}/{number}', done, end)
            lab.run('umount', top)
        lab.check_clean(data=True)


def gone(top):
    deadline = time.monotonic() + 60
    while os.path.ismount(top):
        expect(time.monotonic() < deadline, 'SIGTERM does not end the mount')
        time.sleep(0.02)


def busy(lab, end, top):
    """With a file open: a refusal, and the mount goes on."""
    with open(f'{top}/held', 'wb') as held:
        if end[0] == 'cumulus':
            lab.refused('umount', top, says='in use')
        else:
            done = subprocess.run(end, capture_output=True, text=True)
            expect(done.returncode == 32 and 'busy' in done.stderr, f'umount(8) of a busy mount: {done}')
        held.write(b'on')
        held.flush()
        expect(os.path.ismount(top) and os.stat(f'{top}/held').st_size == 2, 'a refused umount broke the mount')


def finished(writer):
    """How many files it made. It runs until an error, if it was not ended before."""
    try:
        writer.wait(timeout=30)
        lines = writer.stdout.read().split()  # what readline() has taken in ahead, too
    except subprocess.TimeoutExpired:
        writer.kill()
        expect(False, 'a writer hangs after the mount ended')
    expect(writer.returncode in (0, -signal.SIGTERM), f'a writer ended by {writer.returncode}')
    if writer.returncode == 0:
        error = int(lines.pop())
        expect(error in (errno.ENOTCONN, errno.ENODEV, errno.ENOENT, errno.ECONNABORTED, errno.EIO), f'a writer was told {errno.errorcode[error]}')
    return int(lines[-1]) if lines else 3


def check_folder(folder, done, end):
    names = set(os.listdir(folder)) - {'new'}
    missing = [number for number in range(done) if f'file-{number}' not in names]
    expect(not missing, f'after {end}: {done} files were made, these are gone: {missing[:5]}')
    expect(len(names) <= done + 1, f'after {end}: {len(names)} files, {done} were made')
    for name in names:
        number = int(name.split('-')[1])
        with open(f'{folder}/{name}', 'rb') as file:
            expect(file.read() == b'%d ' % number * 20000, f'after {end}: {name} is not whole')


def is_mounted(top):
    """Root may not look into another user's mount: the kernel's table tells."""
    with open('/proc/self/mountinfo') as table:
        return any(line.split()[4] == top for line in table)


def ended_by_its_user():
    """fusermount3 -u by the user who mounted; another user may not."""
    with Lab() as lab:
        lab.up(create=False)
        device = os.stat('/dev/fuse').st_mode
        user, other = pwd.getpwnam('nobody'), pwd.getpwnam('daemon')
        home, top, listing = lab.path('user'), lab.path('user-mnt'), lab.path('miners.toml')
        for path in (home, top):
            os.mkdir(path)
            os.chown(path, user.pw_uid, user.pw_gid)
        os.chmod(lab.dir, 0o755)
        shutil.copy(lab.list, listing)
        os.chmod(listing, 0o644)

        def words(who):
            return ['setpriv', '--reuid', str(who.pw_uid), '--regid', str(who.pw_gid), '--clear-groups', '--', 'env', f'CUMULUS_HOME={home}']
        cumulus = os.path.join(lab.bin, 'cumulus')
        try:
            os.chmod('/dev/fuse', 0o666)
            subprocess.run([*words(user), cumulus, 'volume', 'create', 'u', '--miners', listing], check=True, capture_output=True)
            for _ in range(2):
                subprocess.run([*words(user), cumulus, 'mount', 'u', top], check=True)
                subprocess.run([*words(user), 'sh', '-c', f'echo kept >> {top}/file'], check=True)
                denied = subprocess.run([*words(other), 'fusermount3', '-u', top], capture_output=True, text=True)
                expect(denied.returncode != 0 and is_mounted(top), f'another user ended the mount: {denied}')
                subprocess.run([*words(user), 'fusermount3', '-u', top], check=True)
                expect(not is_mounted(top), 'fusermount3 -u')
            subprocess.run([*words(user), cumulus, 'mount', 'u', top], check=True)
            said = subprocess.run([*words(user), 'cat', f'{top}/file'], check=True, capture_output=True, text=True).stdout
            expect(said == 'kept\nkept\n', f'the file of a user: {said!r}')
            subprocess.run([*words(user), cumulus, 'umount', top], check=True)
        finally:
            subprocess.run([*words(user), cumulus, 'volume', 'stop', 'u'], capture_output=True)
            os.chmod('/dev/fuse', stat.S_IMODE(device))


def emptied_at_once(options):
    """One program opens with O_TRUNC what another makes longer at that moment: either may be the last, but the size that the
    kernel shows is the one that is stored."""
    with Lab() as lab:
        top = lab.path('mnt')
        os.mkdir(top)
        lab.up().run('mount', lab.volume, top, *options)
        paths = [f'{top}/{number}' for number in range(EMPTIED)]
        for path in paths:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
        delays = [lab.random.uniform(0, 0.0003) for _ in paths]
        at = mmap.mmap(-1, 2)  # the file that either is at, its low byte

        def meet(me, number):
            at[me] = (number + 1) % 256
            give_up = time.monotonic() + 60
            while at[1 - me] == number % 256:
                expect(time.monotonic() < give_up, 'the other program does not come')
                os.sched_yield()

        other = os.fork()
        if other == 0:
            code = 1
            try:
                for number, path in enumerate(paths):
                    meet(1, number)
                    until = time.perf_counter() + delays[number]
                    while time.perf_counter() < until:
                        pass
                    os.truncate(path, 5000)
                code = 0
            finally:
                os._exit(code)
        for number, path in enumerate(paths):
            meet(0, number)
            os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
        expect(os.waitpid(other, 0)[1] == 0, 'the other program failed')
        shown = [os.stat(path).st_size for path in paths]
        lab.run('umount', top)
        lab.run('mount', lab.volume, top, *options)
        stored = [os.stat(path).st_size for path in paths]
        wrong = [(path, *sizes) for path, *sizes in zip(paths, shown, stored) if sizes[0] != sizes[1]]
        expect(not wrong, f'{len(wrong)} of {EMPTIED} files are not as long as the kernel showed (shown, stored): {wrong[:5]}')
        expect(set(stored) == {0, 5000}, f'the two never met: {set(stored)}')
        lab.run('umount', top)


def emptied_by_default():
    emptied_at_once([])


def emptied_with_writeback():
    emptied_at_once(['-o', 'writeback'])


if __name__ == '__main__':
    main(kernel_caches, directories_asked_for, ends_under_load, ended_by_its_user, emptied_by_default, emptied_with_writeback)
