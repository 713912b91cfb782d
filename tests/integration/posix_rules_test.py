#!/usr/bin/env python3
"""The rules of POSIX, and Linux's own, that file systems get wrong, group by group as the public suites have them. Each rule must
hold on the mount, by default and with write-back, and on ext4, which tells that it is one."""
import os
import socket
import stat
import subprocess
import time

import posix_calls as posix
from lab import Lab, Wrong, expect, main
from posix_differences_test import peer_folder

TICK = 0.01  # longer than a step of either clock


def fails(name, call, *words):
    result = posix.outcome(call, *words)
    expect(result[0] == name, f'{result[0]} instead of {name}')


def as_user(user, call, *words):
    posix.become(user)
    try:
        return call(*words)
    finally:
        posix.become('root')


def refused(user, name, call, *words):
    as_user(user, fails, name, call, *words)


def make(path, mode=0o644, data=b'', owner=(0, 0)):
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
    os.chown(path, *owner)
    os.chmod(path, mode)


def folder(path, mode=0o755, owner=(0, 0)):
    os.mkdir(path)
    os.chown(path, *owner)
    os.chmod(path, mode)


def mode_of(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def is_mode(path, mode):
    expect(mode_of(path) == mode, f'{path} has the mode {mode_of(path):o} instead of {mode:o}')


def moves(paths, times, call, *words):
    """The call moves exactly these times of each path: 'mc' for st_mtime and st_ctime."""
    before = [os.lstat(path) for path in paths]
    time.sleep(TICK)
    call(*words)
    for path, old, wanted in zip(paths, before, times):
        new = os.lstat(path)
        moved = ('m' if new.st_mtime_ns > old.st_mtime_ns else '') + ('c' if new.st_ctime_ns > old.st_ctime_ns else '')
        expect(moved == wanted, f'{path}: "{moved}" moved instead of "{wanted}"')


def chmod_rules():
    make('f', 0o644, b'', (1001, 1001))
    moves(['f'], ['c'], os.chmod, 'f', 0o600)
    refused('bob', 'EPERM', os.chmod, 'f', 0o777)
    moves(['f'], [''], refused, 'bob', 'EPERM', os.chmod, 'f', 0o777)
    make('g', 0o644, b'', (1001, 3000))  # set-gid goes when the owner is not in the group
    as_user('ann', os.chmod, 'g', 0o2755)
    is_mode('g', 0o755)
    os.chmod('g', 0o2755)
    is_mode('g', 0o2755)
    as_user('ann', os.chmod, 'f', 0o2755)
    is_mode('f', 0o2755)
    os.symlink('f', 'l')
    os.chmod('l', 0o640)
    is_mode('f', 0o640)
    os.symlink('loop', 'loop')
    fails('ELOOP', os.chmod, 'loop', 0o600)
    fails('ENOTDIR', os.chmod, 'f/x', 0o600)


def chown_rules():
    make('f', 0o6755, b'', (1001, 1001))
    as_user('ann', os.chown, 'f', -1, 2000)  # a group of hers: set-id goes
    is_mode('f', 0o755)
    refused('ann', 'EPERM', os.chown, 'f', -1, 3000)
    refused('ann', 'EPERM', os.chown, 'f', 1002, -1)
    as_user('ann', os.chown, 'f', 1001, -1)
    refused('bob', 'EPERM', os.chown, 'f', -1, 3000)
    os.chmod('f', 0o6755)
    moves(['f'], ['c'], os.chown, 'f', 0, 0)  # root's, too
    is_mode('f', 0o755)
    folder('d', 0o2755, (1001, 1001))
    as_user('ann', os.chown, 'd', -1, 2000)  # a folder keeps it
    is_mode('d', 0o2755)
    os.symlink('f', 'l')
    os.lchown('l', 1002, 3000)
    expect((os.lstat('l').st_uid, os.stat('f').st_uid) == (1002, 0), 'lchown is for the link')


def truncate_rules():
    make('f', 0o6777, b'x' * 10_000)
    moves(['f'], ['mc'], posix.truncate, 'f', 100)
    is_mode('f', 0o6777)
    moves(['f'], ['mc'], as_user, 'ann', posix.truncate, 'f', 50)
    is_mode('f', 0o777)
    moves(['f'], [''], fails, 'EINVAL', posix.truncate, 'f', -1)
    fails('EISDIR', posix.truncate, '.', 0)
    os.chmod('f', 0o444)
    refused('ann', 'EACCES', posix.truncate, 'f', 0)
    descriptor = os.open('f', os.O_RDONLY)
    fails('EINVAL', os.ftruncate, descriptor, 0)
    os.close(descriptor)
    posix.truncate('f', 100_000)
    with open('f', 'rb') as file:
        expect(file.read() == b'x' * 50 + bytes(99_950), 'what is new is zero')


def link_rules():
    make('f')
    folder('d')
    moves(['f', 'd', '.'], ['c', 'mc', ''], posix.link, 'f', 'd/g')
    expect(os.stat('f').st_nlink == 2, 'two links')
    moves(['f', 'd'], ['', ''], fails, 'EEXIST', posix.link, 'f', 'd/g')
    fails('EPERM', posix.link, 'd', 'e')
    fails('ENOENT', posix.link, 'none', 'e')
    os.symlink('f', 'l')
    posix.link('l', 'l2')
    expect(os.path.islink('l2') and os.lstat('l').st_nlink == 2, 'the link itself has a second name')
    posix.link('l', 'f3', True)
    expect(os.stat('f').st_nlink == 3 and not os.path.islink('f3'), 'or what it names')


def mkdir_rules():
    moves(['.'], ['mc'], os.mkdir, 'd')
    expect(os.stat('d').st_nlink == 2, 'a folder has two links')
    os.mkdir('d/e')
    expect(os.stat('d').st_nlink == 3, 'and one for each below')
    fails('EEXIST', os.mkdir, 'd')
    os.symlink('nowhere', 'l')
    fails('EEXIST', os.mkdir, 'l')
    fails('ENOENT', os.mkdir, 'none/x')
    folder('s', 0o2777, (0, 2000))
    as_user('bob', os.mkdir, 's/b')
    expect(os.stat('s/b').st_gid == 2000 and mode_of('s/b') & 0o2000, 'set-gid is inherited')
    as_user('bob', make_plain, 's/f')
    expect(os.stat('s/f').st_gid == 2000 and not mode_of('s/f') & 0o2000, 'a file has the group alone')
    as_user('bob', make_plain, 's/x', 0o2755)
    is_mode('s/x', 0o755)  # not for those who are not in the group
    os.mkdir('n' * 255)
    fails('ENAMETOOLONG', os.mkdir, 'n' * 256)
    fails('ENAMETOOLONG', os.mkdir, './' * 2047 + 'xy')
    os.mkdir('./' * 2047 + 'x')


def make_plain(path, mode=0o644):
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))


def mknod_rules():
    moves(['.'], ['mc'], os.mkfifo, 'p', 0o640)
    expect(stat.S_ISFIFO(os.lstat('p').st_mode), 'a fifo')
    fails('ENXIO', os.open, 'p', os.O_WRONLY | os.O_NONBLOCK)
    posix.mknod('c', stat.S_IFCHR | 0o600, os.makedev(1, 3))
    with open('c', 'rb') as null:
        expect(os.lstat('c').st_rdev == os.makedev(1, 3) and null.read() == b'', 'null')
    os.chmod('.', 0o777)
    refused('ann', 'EPERM', posix.mknod, 'c2', stat.S_IFCHR | 0o600, os.makedev(1, 3))
    as_user('ann', posix.mknod, 'p2', stat.S_IFIFO | 0o600)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind('s')
        expect(stat.S_ISSOCK(os.lstat('s').st_mode), 'a socket')
        fails('ENXIO', os.open, 's', os.O_RDWR | os.O_CREAT)
    fails('EEXIST', os.mkfifo, 's')
    fails('EPERM', posix.mknod, 'd', stat.S_IFDIR | 0o755)


def open_rules():
    make('f', 0o644, b'data')
    os.symlink('f', 'l')
    fails('ELOOP', os.open, 'l', os.O_RDONLY | os.O_NOFOLLOW)
    fails('EEXIST', os.open, 'l', os.O_RDONLY | os.O_CREAT | os.O_EXCL)
    fails('ENOTDIR', os.open, 'f', os.O_RDONLY | os.O_DIRECTORY)
    fails('EISDIR', os.open, '.', os.O_WRONLY)
    fails('EISDIR', os.open, '.', os.O_RDWR | os.O_CREAT)
    moves(['f', '.'], ['mc', ''], lambda: os.close(os.open('f', os.O_WRONLY | os.O_TRUNC)))
    moves(['f', '.'], ['', ''], lambda: os.close(os.open('f', os.O_WRONLY | os.O_CREAT, 0o600)))
    moves(['.'], ['mc'], lambda: os.close(os.open('g', os.O_WRONLY | os.O_CREAT, 0o600)))
    os.symlink('made', 'dangling')
    os.close(os.open('dangling', os.O_WRONLY | os.O_CREAT, 0o600))
    expect(os.path.exists('made'), 'made through the link')
    before = os.umask(0o027)
    make_plain('u', 0o666)
    os.umask(before)
    is_mode('u', 0o640)
    descriptor = os.open('h', os.O_CREAT | os.O_RDWR, 0)  # who makes it may write, whatever its mode
    os.write(descriptor, b'1')
    os.close(descriptor)
    refused('ann', 'EPERM', os.open, 'f', os.O_RDONLY | os.O_NOATIME)
    descriptor = os.open('.', os.O_TMPFILE | os.O_RDWR, 0o600)
    expect(os.fstat(descriptor).st_nlink == 0, 'nameless')
    posix.name_nameless(descriptor, 'named')
    expect(os.fstat(descriptor).st_nlink == 1, 'named')
    os.close(descriptor)
    descriptor = os.open('.', os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600)
    fails('ENOENT', posix.name_nameless, descriptor, 'never')
    os.close(descriptor)


def busy_rules():
    subprocess.run(['cp', '/bin/sleep', 'prog'], check=True)
    running = subprocess.Popen(['./prog', '30'])
    try:
        fails('ETXTBSY', os.open, 'prog', os.O_WRONLY)
        fails('ETXTBSY', posix.truncate, 'prog', 0)
    finally:
        running.kill()
        running.wait()
    descriptor = os.open('prog', os.O_WRONLY)
    result = posix.outcome(subprocess.run, ['./prog', '0'])
    os.close(descriptor)
    expect(result[0] == 'ETXTBSY', f'{result[0]} for a program that is being written')


def rename_rules():
    make('f')
    folder('d')
    folder('e')
    moves(['d', 'e', '.'], ['', 'mc', 'mc'], os.rename, 'f', 'e/f')
    make('g')
    posix.link('g', 'g2')
    os.rename('g', 'g2')
    expect(os.path.exists('g') and os.path.exists('g2'), 'two names of one file both stay')
    fails('EINVAL', os.rename, 'd', 'd/x')
    fails('ENOTEMPTY', os.rename, 'd', 'e')
    fails('EISDIR', os.rename, 'g', 'd')
    fails('ENOTDIR', os.rename, 'd', 'g')
    posix_links = os.stat('.').st_nlink
    os.rename('d', 'e/d')
    expect((os.stat('.').st_nlink, os.stat('e').st_nlink) == (posix_links - 1, 3), 'links of the folders')
    os.mkdir('h')
    os.rename('h', 'e/d')
    expect(os.stat('e').st_nlink == 3, 'an empty folder gives way')
    make('open', 0o644, b'1')
    descriptor = os.open('open', os.O_RDONLY)
    make('over')
    moves(['.'], ['mc'], os.rename, 'over', 'open')
    expect(os.fstat(descriptor).st_nlink == 0 and os.read(descriptor, 1) == b'1', 'what was named so lives on')
    os.close(descriptor)
    folder('t', 0o1777)
    make('t/f', 0o666, b'', (1001, 1001))
    make('t/b', 0o666, b'', (1002, 1002))
    refused('bob', 'EPERM', os.rename, 't/f', 't/x')
    refused('bob', 'EPERM', os.rename, 't/b', 't/f')
    as_user('bob', os.rename, 't/b', 't/c')
    folder('w', 0o777)
    folder('w/d', 0o755, (1001, 1001))
    folder('w2', 0o777)
    refused('bob', 'EACCES', os.rename, 'w/d', 'w2/d')  # its ".." would change
    as_user('bob', os.rename, 'w/d', 'w/e')
    fails('EEXIST', posix.rename, 'g', 'g2', posix.RENAME_NOREPLACE)
    posix.rename('g', 'e', posix.RENAME_EXCHANGE)
    expect(os.path.isdir('g') and os.path.isfile('e'), 'exchanged')
    fails('ENOENT', posix.rename, 'g', 'none', posix.RENAME_EXCHANGE)


def unlink_rules():
    make('f')
    posix.link('f', 'g')
    moves(['g', '.'], ['c', 'mc'], os.unlink, 'f')
    folder('d')
    fails('EISDIR', os.unlink, 'd')
    fails('ENOTDIR', os.unlink, 'g/x')
    folder('t', 0o1777)
    make('t/f', 0o666, b'', (1001, 1001))
    moves(['t', 't/f'], ['', ''], refused, 'bob', 'EPERM', os.unlink, 't/f')
    as_user('ann', os.unlink, 't/f')
    os.symlink('g', 'l')
    os.unlink('l')
    expect(os.path.exists('g'), 'the link alone')
    os.mkfifo('p')
    os.unlink('p')
    # Found by a name that goes before it is opened.
    make('found', 0o644, b'still there')
    found = os.open('found', os.O_PATH)
    os.unlink('found')
    with open(f'/proc/self/fd/{found}', 'rb') as late:
        expect(late.read() == b'still there' and os.fstat(late.fileno()).st_nlink == 0, 'an unlinked file that was found before')
    os.close(found)


def rmdir_rules():
    os.makedirs('d/e')
    fails('ENOTEMPTY', os.rmdir, 'd')
    fails('EINVAL', os.rmdir, 'd/.')
    fails('ENOTEMPTY', os.rmdir, 'd/e/..')
    moves(['d', '.'], ['mc', ''], os.rmdir, 'd/e')
    expect(os.stat('d').st_nlink == 2, 'a link less')
    make('f')
    fails('ENOTDIR', os.rmdir, 'f')
    os.symlink('d', 'l')
    fails('ENOTDIR', os.rmdir, 'l')
    folder('t', 0o1777)
    folder('t/d', 0o777, (1001, 1001))
    refused('bob', 'EPERM', os.rmdir, 't/d')
    descriptor = os.open('d', os.O_RDONLY)
    os.rmdir('d')
    expect(os.fstat(descriptor).st_nlink == 0 and os.listdir(descriptor) == [], 'gone, and empty')
    fails('ENOENT', lambda: os.open('x', os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)


def symlink_rules():
    moves(['.'], ['mc'], os.symlink, 'x' * 4095, 'l')
    expect(os.readlink('l') == 'x' * 4095 and os.lstat('l').st_size == 4095, 'the longest')
    fails('ENAMETOOLONG', os.symlink, 'x' * 4096, 'm')
    fails('ENOENT', os.symlink, '', 'm')
    fails('EEXIST', os.symlink, 'a', 'l')
    make('f')
    fails('EINVAL', os.readlink, 'f')
    for number in range(41):
        os.symlink(f'c{number + 1}' if number < 40 else 'f', f'c{number}')
    fails('ELOOP', os.stat, 'c0')
    os.stat('c1')


def utimensat_rules():
    make('f', 0o666, b'', (1001, 1001))
    for words in ((10**9, 2 * 10**9), (0, 0), (-10**9, -1), (10**18 + 1, 4 * 10**18 + 999_999_999)):
        posix.times('f', *words)
        about = os.stat('f')
        expect((about.st_atime_ns, about.st_mtime_ns) == words, f'{(about.st_atime_ns, about.st_mtime_ns)} instead of {words}')
    for time_asked in (12 * 10**18, -12 * 10**18):  # not every file system has so late a time, but none shows it as an early one
        posix.times('f', time_asked, time_asked)
        shown = os.stat('f').st_mtime_ns
        expect(shown * time_asked > 0 and abs(shown) > 2 * 10**18, f'{time_asked} is shown as {shown}')
    posix.times('f', 10**18 + 1, 4 * 10**18 + 999_999_999)
    moves(['f'], [''], posix.times, 'f', posix.UTIME_OMIT, posix.UTIME_OMIT)
    moves(['f'], ['c'], posix.times, 'f', 5, posix.UTIME_OMIT)
    expect(os.stat('f').st_mtime_ns == 4 * 10**18 + 999_999_999, 'omitted')
    refused('bob', 'EPERM', posix.times, 'f', 5, 6)
    refused('bob', 'EPERM', posix.times, 'f', posix.UTIME_NOW, posix.UTIME_OMIT)
    as_user('bob', posix.times, 'f', posix.UTIME_NOW, posix.UTIME_NOW)  # who may write it
    as_user('bob', posix.times, 'f', None, None)
    os.chmod('f', 0o644)
    refused('bob', 'EACCES', posix.times, 'f', None, None)
    refused('bob', 'EACCES', posix.times, 'f', posix.UTIME_NOW, posix.UTIME_NOW)
    as_user('ann', posix.times, 'f', 5, 6)
    os.symlink('f', 'l')
    posix.times('l', 7 * 10**9, 8 * 10**9, True)
    expect((os.lstat('l').st_mtime, os.stat('f').st_mtime_ns) == (8, 6), 'the link alone')


def write_rules():
    make('f', 0o6777)
    descriptor = os.open('f', os.O_RDWR)
    moves(['f'], ['mc'], os.write, descriptor, b'root')
    is_mode('f', 0o6777)
    as_user('ann', os.write, descriptor, b'x')
    is_mode('f', 0o777)
    os.chmod('f', 0o6777)
    as_user('ann', posix.fallocate, descriptor, 0, 0, 10_000)
    is_mode('f', 0o777)
    moves(['f'], ['mc'], posix.fallocate, descriptor, posix.KEEP_SIZE, 0, 20_000)
    expect(os.fstat(descriptor).st_size == 10_000, 'the size is kept')
    fails('EINVAL', posix.fallocate, descriptor, 0, 0, 0)
    fails('EINVAL', posix.fallocate, descriptor, 0, -1, 10)
    fails('EFBIG', posix.fallocate, descriptor, 0, (1 << 63) - 5, 100)
    fails('ENOTSUP', posix.fallocate, descriptor, posix.PUNCH_HOLE, 0, 10)
    moves(['f'], [''], os.write, descriptor, b'')
    os.close(descriptor)
    descriptor = os.open('f', os.O_RDONLY)
    fails('EBADF', posix.fallocate, descriptor, 0, 0, 10)
    fails('EBADF', os.write, descriptor, b'x')
    fails('ENXIO', os.lseek, descriptor, 10_000, os.SEEK_DATA)
    expect(os.lseek(descriptor, 0, os.SEEK_HOLE) <= 10_000, 'the end is a hole')
    os.close(descriptor)
    one, two = os.open('a', os.O_CREAT | os.O_WRONLY | os.O_APPEND), os.open('a', os.O_WRONLY | os.O_APPEND)
    for number in range(10):
        os.write((one, two)[number % 2], b'%d' % number)
    os.pwrite(one, b'!', 0)  # Linux appends it
    with open('a', 'rb') as file:
        expect(file.read() == b'0123456789!', 'each at the end')
    os.close(one)
    os.close(two)


RULES = [chmod_rules, chown_rules, truncate_rules, link_rules, mkdir_rules, mknod_rules, open_rules, busy_rules, rename_rules, unlink_rules, rmdir_rules,
         symlink_rules, utimensat_rules, write_rules]


def descriptors():
    return {int(name) for name in os.listdir('/proc/self/fd') if os.path.lexists(f'/proc/self/fd/{name}')}


def rules_hold(top, where):
    wrong = []
    for rules in RULES:
        os.mkdir(f'{top}/{rules.__name__}')
        os.chdir(f'{top}/{rules.__name__}')
        opened = descriptors()
        try:
            rules()
        except (Wrong, OSError) as error:
            line = error.__traceback__
            while line.tb_next is not None and line.tb_next.tb_frame.f_code.co_filename == __file__ and line.tb_frame.f_code is not rules.__code__:
                line = line.tb_next
            wrong.append(f'{where}: {rules.__name__}, line {line.tb_lineno}: {error}')
            for left in descriptors() - opened:
                os.close(left)
        os.chdir('/')
    return wrong


def rules_of_posix():
    with Lab() as lab:
        lab.up()
        os.chmod(lab.dir, 0o755)
        ours = lab.path('mnt')
        os.mkdir(ours)
        wrong = rules_hold(peer_folder(lab), 'ext4')
        for options in ('allow_other', 'allow_other,writeback'):
            lab.run('mount', lab.volume, ours, '-o', options)
            wrong += rules_hold(ours, options)
            subprocess.run(f'rm -rf {ours}/*', shell=True, check=True)
            lab.run('umount', ours)
        expect(not wrong, '\n'.join(wrong))
        lab.check_clean()


if __name__ == '__main__':
    main(rules_of_posix)
