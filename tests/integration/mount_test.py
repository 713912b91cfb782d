#!/usr/bin/env python3
"""A file system of a volume, mounted for real: what programs may ask of it, and how a mount begins and ends."""
import ctypes
import errno
import fcntl
import mmap
import os
import pwd
import shutil
import signal
import socket
import stat
import struct
import subprocess
import threading
import time

from lab import Lab, Wrong, expect, main, sha_of

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_COLLAPSE, FALLOC_ZERO, FALLOC_INSERT = 1, 2, 8, 16, 32


def fails(code, call, *words, **named):
    """The call fails with exactly this errno."""
    try:
        call(*words, **named)
    except OSError as error:
        expect(error.errno == code, f'{call.__name__}{words}: {errno.errorcode.get(error.errno)}, expected {errno.errorcode[code]}')
        return
    raise Wrong(f'{call.__name__}{words}: done, expected {errno.errorcode[code]}')


def renameat2(old, new, flags):
    if LIBC.syscall(316, AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def fallocate(descriptor, mode, offset, length):
    if LIBC.fallocate64(descriptor, mode, ctypes.c_int64(offset), ctypes.c_int64(length)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def born_at(path):
    """btime by statx(2), in nanoseconds; None when the file system does not tell."""
    buffer = ctypes.create_string_buffer(256)
    expect(LIBC.syscall(332, AT_FDCWD, os.fsencode(path), 0, 0xfff, buffer) == 0, f'statx {path}')
    mask, = struct.unpack_from('<I', buffer.raw, 0)
    seconds, nanoseconds = struct.unpack_from('<qI', buffer.raw, 80)
    return seconds * 10**9 + nanoseconds if mask & 0x800 else None


def write(path, data):
    with open(path, 'wb') as file:
        file.write(data)


def read(path):
    with open(path, 'rb') as file:
        return file.read()


class Mounted:
    """The laboratory's volume, mounted on DIR/mnt while the block runs."""

    def __init__(self, lab, *options, target=None, name='mnt'):
        self.lab, self.options, self.target = lab, options, target or lab.volume
        self.dir = lab.path(name)

    def __enter__(self):
        os.makedirs(self.dir, exist_ok=True)
        self.lab.run('mount', self.target, self.dir, *self.options)
        return self.dir

    def __exit__(self, kind, error, trace):
        if kind is None:
            self.lab.run('umount', self.dir)
            expect(not os.path.ismount(self.dir), 'still mounted after umount')


def posix():
    with Lab() as lab:
        lab.up()
        with Mounted(lab) as top:
            os.chdir(top)
            try:
                for part in (names, links_and_kinds, renames, unlinked_but_open, data, holes, maps, attributes, permissions,
                             locks, directories, deep_and_long, file_system):
                    os.mkdir(part.__name__)
                    os.chdir(part.__name__)
                    print(f'  {part.__name__}', flush=True)
                    part()
                    os.chdir(top)
            finally:
                os.chdir('/')
        with Mounted(lab) as top:
            expect(read(f'{top}/data/file')[:5] == b'Hello', 'the file is not the same after mounting again')
        lab.check_clean()


def names():
    write('a', b'1')
    fails(errno.EEXIST, os.mkdir, 'a')
    fails(errno.EEXIST, os.open, 'a', os.O_CREAT | os.O_EXCL | os.O_RDWR)
    fails(errno.ENOENT, os.open, 'b', os.O_RDWR)
    fails(errno.ENOTDIR, os.open, 'a/b', os.O_RDWR)
    fails(errno.EISDIR, os.open, '.', os.O_RDWR)
    fails(errno.ENOENT, os.unlink, 'b')
    fails(errno.EISDIR, os.unlink, os.getcwd())
    fails(errno.ENOTDIR, os.rmdir, 'a')
    os.makedirs('d/e')
    fails(errno.ENOTEMPTY, os.rmdir, 'd')
    os.rmdir('d/e')
    os.rmdir('d')
    fails(errno.ENOENT, os.stat, 'd')
    odd = [b'\xff\xfe', 'ü'.encode(), b' ', b'-rf', b'a\nb', b'%s', b'.hidden', b'...']
    for name in odd:
        write(os.fsdecode(name), name)
    expect(sorted(map(os.fsencode, os.listdir('.'))) == sorted([*odd, b'a']), f'listing: {os.listdir(".")}')


def links_and_kinds():
    write('file', b'x')
    os.link('file', 'hard')
    expect(os.stat('file').st_nlink == 2 and os.stat('hard').st_ino == os.stat('file').st_ino, 'hard links')
    os.unlink('file')
    expect(os.stat('hard').st_nlink == 1 and read('hard') == b'x', 'the second name of a file')
    os.symlink('target/' + 'x' * 4000, 'link')
    expect(os.readlink('link') == 'target/' + 'x' * 4000, 'symbolic link')
    expect(os.lstat('link').st_size == 4007, 'size of a symbolic link')
    os.symlink('loop', 'loop')
    fails(errno.ELOOP, os.stat, 'loop')
    os.mkdir('d')
    fails(errno.EPERM, os.link, 'd', 'd2')
    os.mkfifo('fifo', 0o640)
    expect(stat.S_ISFIFO(os.stat('fifo').st_mode) and stat.S_IMODE(os.stat('fifo').st_mode) == 0o640, 'fifo')
    os.mknod('device', 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    expect(os.stat('device').st_rdev == os.makedev(1, 3), 'device node')
    write('device', b'nothing')
    server = socket.socket(socket.AF_UNIX)
    server.bind('socket')
    expect(stat.S_ISSOCK(os.stat('socket').st_mode), 'socket')
    server.close()
    reader = threading.Thread(target=lambda: expect(read('fifo') == b'through', 'what went through the fifo'))
    reader.start()
    write('fifo', b'through')
    reader.join()


def renames():
    write('a', b'a')
    write('b', b'b')
    fails(errno.EEXIST, renameat2, 'a', 'b', RENAME_NOREPLACE)
    renameat2('a', 'b', RENAME_EXCHANGE)
    expect(read('a') == b'b' and read('b') == b'a', 'exchange')
    os.rename('a', 'b')
    expect(read('b') == b'b' and not os.path.exists('a'), 'rename over a file')
    os.makedirs('d/e/f')
    fails(errno.EINVAL, os.rename, 'd', 'd/e/f/g')
    os.mkdir('empty')
    os.mkdir('full')
    write('full/x', b'')
    fails(errno.ENOTEMPTY, os.rename, 'd', 'full')
    os.rename('d', 'empty')
    expect(os.listdir('empty') == ['e'], 'rename over an empty directory')
    fails(errno.ENOTDIR, os.rename, 'empty', 'b')
    fails(errno.EISDIR, os.rename, 'b', 'empty')
    links = os.stat('.').st_nlink
    os.rename('empty/e', 'e')
    expect(os.stat('.').st_nlink == links + 1 and os.stat('empty').st_nlink == 2, 'links of directories after a move')
    write('same', b'')
    os.link('same', 'same2')
    os.rename('same', 'same2')
    expect(os.path.exists('same'), 'rename between two names of one file does nothing')


def unlinked_but_open():
    with open('gone', 'w+b') as file:
        file.write(b'y' * 200_000)
        file.flush()
        os.unlink('gone')
        expect(os.fstat(file.fileno()).st_nlink == 0, 'links of an unlinked file')
        file.seek(0)
        expect(file.read() == b'y' * 200_000, 'an unlinked file that is open')
        file.truncate(10)
        expect(os.fstat(file.fileno()).st_size == 10, 'truncating an unlinked file')
    nameless = os.open('.', os.O_TMPFILE | os.O_RDWR, 0o644)
    os.write(nameless, b'from nowhere')
    expect(os.listdir('.') == [], 'O_TMPFILE has no name')
    expect(LIBC.linkat(AT_FDCWD, b'/proc/self/fd/%d' % nameless, AT_FDCWD, b'named', 0x400) == 0, 'linkat of what O_TMPFILE made')
    os.close(nameless)
    expect(read('named') == b'from nowhere' and os.stat('named').st_nlink == 1, 'O_TMPFILE, then linkat')
    os.mkdir('d')
    here = os.open('d', os.O_RDONLY)
    os.rmdir('d')
    expect(os.fstat(here).st_nlink == 0, 'links of a removed directory that is open')
    os.close(here)


def data():
    write('file', b'Hello, world\n')
    with open('file', 'r+b') as file:
        file.seek(5)
        file.write(b'!')
    expect(read('file') == b'Hello! world\n', 'overwriting')
    with open('file', 'ab') as one, open('file', 'ab') as two:
        for _ in range(10):
            one.write(b'1')
            one.flush()
            two.write(b'2')
            two.flush()
    expect(read('file')[13:] == b'12' * 10, 'O_APPEND by two')
    os.truncate('file', 5)
    os.truncate('file', 8)
    expect(read('file') == b'Hello\0\0\0', 'truncate')
    with open('trunc', 'wb') as file:
        file.write(b'x' * 100_000)
    expect(os.stat('trunc').st_size == 100_000, 'size')
    with open('trunc', 'wb'):
        pass
    expect(os.stat('trunc').st_size == 0 and read('trunc') == b'', 'O_TRUNC')
    big = os.urandom(3_000_001)
    write('big', big)
    expect(read('big') == big, 'three megabytes')
    for flags in (os.O_SYNC, os.O_DSYNC):
        descriptor = os.open('synced', os.O_CREAT | os.O_RDWR | flags)
        os.write(descriptor, b'z' * 5000)
        os.fsync(descriptor)
        os.fdatasync(descriptor)
        os.close(descriptor)
    page = mmap.mmap(-1, 65536)
    page.write(os.urandom(65536))
    direct = os.open('direct', os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    expect(os.writev(direct, [page]) == 65536, 'a direct write')
    back = mmap.mmap(-1, 65536)
    expect(os.preadv(direct, [back], 0) == 65536 and back[:] == page[:], 'a direct read')
    os.close(direct)
    expect(read('direct') == page[:], 'a buffered read of what was written directly')
    with open('big', 'rb') as source, open('copy', 'wb') as target:
        left = 3_000_001
        while left:
            left -= os.copy_file_range(source.fileno(), target.fileno(), left)
    expect(read('copy') == big, 'copy_file_range')
    with open('copy', 'r+b') as both:
        fails(errno.EINVAL, os.copy_file_range, both.fileno(), both.fileno(), 5000, 0, 4999)
        expect(os.copy_file_range(both.fileno(), both.fileno(), 5000, 0, 5000) == 5000, 'copied beside itself')
        with open('big', 'rb') as source:
            fails(errno.EOPNOTSUPP, fcntl.ioctl, both, 0x40049409, source.fileno())  # FICLONE
    expect(read('copy') == big[:5000] * 2 + big[10000:], 'copy_file_range within one file')
    directory = os.open('.', os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    huge = os.open('huge', os.O_CREAT | os.O_RDWR)
    os.pwrite(huge, b'end', 2**62)
    expect(os.pread(huge, 10, 2**62) == b'end' and os.stat('huge').st_size == 2**62 + 3, 'a sparse file of 2^62 bytes')
    expect(os.stat('huge').st_blocks < 1000, f'blocks of a sparse file: {os.stat("huge").st_blocks}')
    os.close(huge)
    os.unlink('huge')


def holes():
    descriptor = os.open('sparse', os.O_CREAT | os.O_RDWR)
    os.pwrite(descriptor, b'a' * 65536, 0)
    os.pwrite(descriptor, b'b' * 65536, 1 << 20)
    expect(os.lseek(descriptor, 0, os.SEEK_HOLE) == 65536, 'SEEK_HOLE')
    expect(os.lseek(descriptor, 65536, os.SEEK_DATA) == 1 << 20, 'SEEK_DATA')
    fails(errno.ENXIO, os.lseek, descriptor, 2 << 20, os.SEEK_DATA)
    expect(os.fstat(descriptor).st_blocks * 512 < 300_000, 'blocks of a sparse file')
    before = os.fstat(descriptor).st_blocks
    fallocate(descriptor, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 0, 65536)
    expect(os.pread(descriptor, 65536, 0) == bytes(65536), 'a punched hole')
    expect(os.fstat(descriptor).st_blocks < before, 'a punched hole gives blocks back')
    fallocate(descriptor, FALLOC_ZERO, (1 << 20) + 100, 200)
    expect(os.pread(descriptor, 400, 1 << 20) == b'b' * 100 + bytes(200) + b'b' * 100, 'a zeroed range')
    fallocate(descriptor, 0, 0, 3 << 20)
    expect(os.fstat(descriptor).st_size == 3 << 20, 'fallocate grows')
    fallocate(descriptor, FALLOC_KEEP_SIZE, 0, 8 << 20)
    expect(os.fstat(descriptor).st_size == 3 << 20, 'fallocate that keeps the size')
    for mode in (FALLOC_COLLAPSE, FALLOC_INSERT):
        fails(errno.EOPNOTSUPP, fallocate, descriptor, mode, 0, 65536)  # the kernel does not pass them to FUSE
    os.close(descriptor)


def maps():
    write('mapped', bytes(100_000))
    with open('mapped', 'r+b') as file:
        shared = mmap.mmap(file.fileno(), 100_000)
        private = mmap.mmap(file.fileno(), 100_000, access=mmap.ACCESS_COPY)
        shared[50_000:50_005] = b'stamp'
        expect(os.pread(file.fileno(), 5, 50_000) == b'stamp', 'read sees a shared map')
        os.pwrite(file.fileno(), b'written', 10)
        expect(shared[10:17] == b'written', 'a shared map sees write')
        private[0:3] = b'own'
        expect(os.pread(file.fileno(), 3, 0) == bytes(3), 'a private map is private')
        shared.flush()
        shared.close()
        private.close()
    expect(read('mapped')[50_000:50_005] == b'stamp', 'after the map is gone')


def attributes():
    before = time.time_ns()
    write('file', b'x')
    after = time.time_ns()
    made = born_at('file')
    expect(made is not None and before - 10**9 <= made <= after + 10**9, f'btime {made} outside {before}..{after}')
    os.utime('file', ns=(1_000_000_001, 2_000_000_002))
    about = os.stat('file')
    expect((about.st_atime_ns, about.st_mtime_ns) == (1_000_000_001, 2_000_000_002), 'times to the nanosecond')
    expect(born_at('file') == made, 'btime does not change')
    os.utime('file', ns=(-5 * 10**9, 2**33 * 10**9))
    expect(os.stat('file').st_mtime_ns == 2**33 * 10**9, 'times after 2038')
    mtime, ctime = os.stat('file').st_mtime_ns, os.stat('file').st_ctime_ns
    time.sleep(0.01)
    with open('file', 'ab') as file:
        file.write(b'y')
    expect(os.stat('file').st_mtime_ns != mtime and os.stat('file').st_ctime_ns > ctime, 'a write changes mtime and ctime')
    directory = os.stat('.').st_mtime_ns
    time.sleep(0.01)
    write('other', b'')
    expect(os.stat('.').st_mtime_ns > directory, 'a new name changes its directory')
    os.setxattr('file', 'user.a', b'1' * 60_000)
    os.setxattr('file', 'trusted.b', b'')
    expect(sorted(os.listxattr('file')) == ['trusted.b', 'user.a'], f'xattrs: {os.listxattr("file")}')
    expect(os.getxattr('file', 'user.a') == b'1' * 60_000 and os.getxattr('file', 'trusted.b') == b'', 'values of xattrs')
    fails(errno.EEXIST, os.setxattr, 'file', 'user.a', b'', os.XATTR_CREATE)
    fails(errno.ENODATA, os.setxattr, 'file', 'user.c', b'', os.XATTR_REPLACE)
    os.removexattr('file', 'user.a')
    fails(errno.ENODATA, os.getxattr, 'file', 'user.a')
    for value, most in ((b'', 256), (b'v' * 65_536, 16)):
        names = []
        try:
            for number in range(1000):
                os.setxattr('file', f'user.{number:0250}', value)
                names.append(f'user.{number:0250}')
        except OSError as error:
            expect(error.errno == errno.ENOSPC, f'too many xattrs: {error}')
        expect(most - 3 <= len(names) <= most, f'{len(names)} xattrs of {len(value)} bytes')
        expect(sorted(os.listxattr('file')) == sorted(names + ['trusted.b']), 'a long list of xattrs')
        for name in names:
            os.removexattr('file', name)
    os.chmod('file', 0o4755)
    os.chown('file', 1000, 1000)
    expect(stat.S_IMODE(os.stat('file').st_mode) == 0o755, 'chown clears set-id bits')
    os.mkdir('group')
    os.chown('group', -1, 1234)
    os.chmod('group', 0o2775)
    write('group/file', b'')
    os.mkdir('group/dir')
    expect(os.stat('group/file').st_gid == 1234 and os.stat('group/dir').st_mode & stat.S_ISGID, 'set-gid directories')


def as_user(uid, gid, body):
    """Runs body in a child as another user; what it raises is raised here."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        message = ''
        try:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
            body()
        except BaseException as error:  # the parent is to know, whatever it was
            message = f'{type(error).__name__}: {error}'
        os.write(writing, message.encode())
        os._exit(0)
    os.close(writing)
    said = b''
    while piece := os.read(reading, 4096):
        said += piece
    os.close(reading)
    os.waitpid(child, 0)
    expect(not said, f'as user {uid}: {said.decode()}')


def permissions():
    write('root', b'secret')
    os.chmod('root', 0o644)
    folder = os.open('.', os.O_RDONLY)
    fails(errno.EACCES, as_denied, folder)  # without allow_other nobody else comes in, whatever the modes say
    os.close(folder)


def as_denied(folder):
    """Without allow_other, another user gets EACCES from the kernel."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 0
        try:
            os.setgroups([])
            os.setresgid(1000, 1000, 1000)
            os.setresuid(1000, 1000, 1000)
            os.stat('root', dir_fd=folder)
        except OSError as error:
            code = error.errno
        os.write(writing, struct.pack('<i', code))
        os._exit(0)
    code, = struct.unpack('<i', os.read(reading, 4))
    os.waitpid(child, 0)
    os.close(reading)
    os.close(writing)
    if code:
        raise OSError(code, os.strerror(code))


def locks():
    write('lock', b'')
    with open('lock', 'r+b') as one, open('lock', 'r+b') as two:
        fcntl.flock(one, fcntl.LOCK_EX)
        fails(errno.EAGAIN, fcntl.flock, two, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(one, fcntl.LOCK_UN)
        fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with open('lock', 'r+b') as one, open('lock', 'r+b') as two:
        whole = struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0)
        fcntl.fcntl(one, 37, whole)  # F_OFD_SETLK
        fails(errno.EAGAIN, fcntl.fcntl, two, 37, whole)


def directories():
    os.mkdir('many')
    count = 3000
    for i in range(count):
        os.close(os.open(f'many/{i:05}', os.O_CREAT | os.O_WRONLY))
    expect(len(os.listdir('many')) == count, 'a directory of three thousand')
    seen = []
    with os.scandir('many') as listing:
        for entry in listing:
            seen.append(entry.name)
            number = int(entry.name)
            if number % 3 == 0:
                os.unlink(f'many/{number:05}')
            elif number % 3 == 1 and number < count:
                write(f'many/{number + 100000:06}', b'')
    old = [name for name in seen if int(name) < count]
    expect(len(old) == len(set(old)), 'a name was listed twice while others came and went')
    expect(set(old) >= {f'{i:05}' for i in range(count) if i % 3}, 'a name that stayed was not listed')
    expect(len(os.listdir('many')) == count - count // 3 + sum(1 for name in set(seen) if int(name) < count and int(name) % 3 == 1),
           'the listing afterwards')
    began = time.time()
    shutil.rmtree('many')
    expect(not os.path.exists('many') and time.time() - began < 30, 'rm -r')


def deep_and_long():
    name = 'n' * 255
    write(name, b'long')
    expect(read(name) == b'long', 'a name of 255 bytes')
    fails(errno.ENAMETOOLONG, write, name + 'n', b'')
    start = os.getcwd()
    for _ in range(200):
        os.mkdir('d' * 100)
        os.chdir('d' * 100)
    write('bottom', b'here')
    expect(read('bottom') == b'here', 'two hundred directories deep')
    os.chdir(start)
    subprocess.run(['rm', '-rf', 'd' * 100], check=True)


def file_system():
    about = os.statvfs('.')
    expect(about.f_namemax == 255 and about.f_blocks > 0 and about.f_bfree <= about.f_blocks, f'statvfs: {about}')
    expect(0 < about.f_bavail * about.f_frsize < 1 << 50, f'statvfs: {about}')
    shown = subprocess.run(['findmnt', '-n', '-o', 'FSTYPE,SOURCE', '-T', '.'], check=True, capture_output=True, text=True).stdout.split()
    expect(shown == ['fuse.cumulus', 'v/main'], f'findmnt: {shown}')
    os.sync()


def users():
    """allow_other: modes, ACLs and the sticky bit hold for other users; allow_root and a user without rights."""
    with Lab() as lab:
        lab.up()
        os.chmod(lab.dir, 0o755)
        with Mounted(lab, '-o', 'allow_other') as top:
            os.chdir(top)
            try:
                permissions_of_others()
            finally:
                os.chdir('/')


def permissions_of_others():
    write('secret', b'secret')
    os.chmod('secret', 0o640)
    subprocess.run(['setfacl', '-m', 'u:1001:r', 'secret'], check=True)
    os.mkdir('sticky')
    os.chmod('sticky', 0o1777)
    write('sticky/mine', b'')
    os.mkdir('shared')
    os.chown('shared', 0, 2000)
    os.chmod('shared', 0o770)

    def other():
        fails(errno.EACCES, os.open, 'secret', os.O_RDONLY)
        fails(errno.EPERM, os.unlink, 'sticky/mine')
        fails(errno.EACCES, os.mkdir, 'new')
        fails(errno.EPERM, os.chmod, 'secret', 0o777)
        write('sticky/own', b'1')
        os.chmod('sticky/own', 0o6777)
        fails(errno.EACCES, os.listdir, 'shared')

    def friend():
        expect(read('secret') == b'secret', 'read by an ACL')
        fails(errno.EACCES, os.open, 'secret', os.O_WRONLY)
        with open('sticky/own', 'ab') as file:
            file.write(b'2')
        expect(not os.stat('sticky/own').st_mode & stat.S_ISUID, 'a write by another clears the set-id bits')

    def member():
        os.listdir('shared')
    as_user(1000, 1000, other)
    as_user(1001, 1001, friend)
    as_user(1002, 2000, member)


def killed_and_recovered():
    with Lab() as lab:
        lab.up()
        top = lab.path('mnt')
        os.mkdir(top)
        lab.run('mount', lab.volume, top, '-o', 'noatime')
        for i in range(200):
            write(f'{top}/f{i}', b'%d' % i * 1000)
        with open(f'{top}/durable', 'wb') as file:
            file.write(b'safe' * 100_000)
            file.flush()
            os.fsync(file.fileno())
        left_open = open(f'{top}/f1', 'rb')
        lab.kill_daemon()
        try:
            os.statvfs(top)  # while the kernel lets go of it this one may be answered ECONNABORTED
        except OSError:
            pass
        fails(errno.ENOTCONN, os.statvfs, top)
        fails(errno.ENOTCONN, left_open.close)
        lab.refused('mount', lab.volume, top, says=['--recover', top])
        lab.run('mount', '--recover', top)
        expect(read(f'{top}/durable') == b'safe' * 100_000, 'what was fsynced is gone after a kill')
        expect(len(os.listdir(top)) == 201, f'{len(os.listdir(top))} names after a kill')
        lab.refused('mount', '--recover', top, says='alive')
        lab.run('umount', top)
        lab.refused('mount', '--recover', top, says='nothing is known')
        lab.check_clean(data=True)


def unmounted_with_sync():
    """umount --sync: a second home has it all, with the first home lost."""
    with Lab() as lab:
        lab.up()
        top = lab.path('mnt')
        os.mkdir(top)
        lab.run('mount', lab.volume, top)
        shutil.copytree('/usr/include/linux', f'{top}/linux')
        with open(f'{top}/mapped', 'w+b') as file:
            file.truncate(5 << 20)
            view = mmap.mmap(file.fileno(), 5 << 20)
            view[4 << 20:(4 << 20) + 7] = b'written'
            view.close()
        lab.run('umount', top, '--sync')
        expect(lab.status()['dirty'] == 0, 'dirty after umount --sync')
        lab.run('volume', 'stop', lab.volume)
        second = lab.path('second')
        lab.homes.append(second)
        lab.run('volume', 'recover', lab.volume, '--miners', lab.list, '--code-stdin', text=lab.recovery_code + '\n', home=second)
        lab.run('mount', lab.volume, top, home=second)
        subprocess.run(['diff', '-r', '/usr/include/linux', f'{top}/linux'], check=True)
        expect(read(f'{top}/mapped')[4 << 20:(4 << 20) + 7] == b'written', 'what was written through a map is gone')
        lab.run('umount', top, home=second)


def written_by_map():
    """Written by mmap, unmapped, closed and unmounted at once: all there. And a snapshot includes what a map holds."""
    with Lab() as lab:
        lab.up()
        top = lab.path('mnt')
        os.mkdir(top)
        size = 8 << 20
        for command in (['umount'], None):
            lab.run('mount', lab.volume, top)
            pattern = os.urandom(size)
            with open(f'{top}/map', 'w+b') as file:
                file.truncate(size)
                view = mmap.mmap(file.fileno(), size)
                view[:] = pattern
                view.close()
            if command:
                lab.run(*command, top)
            else:
                subprocess.run(['umount', top], check=True)
            lab.run('mount', lab.volume, top)
            expect(read(f'{top}/map') == pattern, f'unmounted by {command or "umount(8)"}: other bytes')
            lab.run('umount', top)
        lab.run('mount', lab.volume, top)
        with open(f'{top}/map', 'r+b') as file:
            view = mmap.mmap(file.fileno(), size)
            view[:100] = b'm' * 100
            lab.run('snapshot', 'create', f'{lab.volume}/main@held')
            view[:100] = b'n' * 100
            view.close()
        expect(read(f'{top}/.snapshots/held/map')[:100] == b'm' * 100, 'a snapshot misses what a map held')
        lab.run('umount', top)


def snapshots():
    with Lab() as lab:
        lab.up()
        with Mounted(lab) as top:
            write(f'{top}/file', b'old')
            os.mkdir(f'{top}/dir')
            lab.run('snapshot', 'create', f'{lab.volume}/main@first')
            write(f'{top}/file', b'new and longer')
            write(f'{top}/dir/later', b'')
            expect(read(f'{top}/.snapshots/first/file') == b'old', 'browsing a snapshot')
            expect(os.listdir(f'{top}/.snapshots/first/dir') == [], 'a directory of a snapshot')
            expect('.snapshots' not in os.listdir(top), '.snapshots is listed')
            fails(errno.EROFS, write, f'{top}/.snapshots/first/file', b'')
            fails(errno.EROFS, os.mkdir, f'{top}/.snapshots/first/dir/x')
            expect(os.stat(f'{top}/file').st_ino != os.stat(f'{top}/.snapshots/first/file').st_ino, 'a snapshot looks like the live file')
            snapshots_come_and_go(lab, top)
            lab.refused('snapshot', 'rollback', f'{lab.volume}/main@first', says='in use')
            other = lab.path('snap')
            os.mkdir(other)
            lab.run('mount', lab.volume, other, '--snapshot', 'first')
            expect(read(f'{other}/file') == b'old', 'a mounted snapshot')
            fails(errno.EROFS, write, f'{other}/file', b'')
            lab.run('umount', other)
            lab.refused('mount', lab.volume, other, '--snapshot', 'second', says='second')
            lab.refused('mount', f'{lab.volume}/main', other, '--snapshot', 'first', '--outage-wait', 'soon', says='soon')
            lab.run('clone', f'{lab.volume}/main@first', f'{lab.volume}/copy')
            lab.run('mount', f'{lab.volume}/copy', other)
            write(f'{other}/file', b'of the clone')
            expect(read(f'{top}/file') == b'new and longer' and read(f'{other}/file') == b'of the clone', 'a clone is on its own')
            lab.run('umount', other)
        lab.run('snapshot', 'rollback', f'{lab.volume}/main@first')
        with Mounted(lab, '-o', 'list_snapshots', '--outage-wait', '5s') as top:
            expect(sorted(os.listdir(top)) == ['.snapshots', 'dir', 'file'] and os.listdir(f'{top}/.snapshots') == ['first'], 'list_snapshots')
            expect(read(f'{top}/file') == b'old' and os.listdir(f'{top}/dir') == [], 'rolled back')


def snapshots_come_and_go(lab, top):
    """What is looked at in .snapshots is what there is now."""
    daily, one = f'{top}/.snapshots/daily', f'{lab.volume}/main@daily'
    for content in (b'monday', b'tuesday'):
        expect(os.listdir(f'{top}/.snapshots') == ['first'], 'snapshots before')
        fails(errno.ENOENT, os.stat, daily)
        write(f'{top}/today', content)
        lab.run('snapshot', 'create', one)
        expect(read(f'{daily}/today') == content, 'the snapshot that has the name now')
        expect(sorted(os.listdir(f'{top}/.snapshots')) == ['daily', 'first'], 'a new snapshot is not listed')
        if content == b'monday':
            lab.run('snapshot', 'rm', one)
    os.unlink(f'{top}/today')
    lab.run('snapshot', 'rm', one)
    write(f'{top}/today', b'wednesday')
    lab.run('snapshot', 'create', one)  # nobody looked between
    expect(read(f'{daily}/today') == b'wednesday', 'a snapshot that was made again shows the old one')
    lab.run('snapshot', 'rm', one)
    fails(errno.ENOENT, os.stat, daily)
    os.unlink(f'{top}/today')
    os.mkdir(f'{top}/hidden')
    fails(errno.EBUSY, os.rename, f'{top}/hidden', f'{top}/.snapshots')
    os.rmdir(f'{top}/hidden')


def bad_input():
    with Lab() as lab:
        lab.up()
        top = lab.path('mnt')
        lab.refused('mount', lab.volume, top, says=[top, 'no such file'])
        os.mkdir(top)
        write(f'{top}/x', b'')
        lab.refused('mount', lab.volume, top, says='not empty')
        lab.refused('mount', lab.volume, f'{top}/x', says='not a directory')
        os.unlink(f'{top}/x')
        lab.refused('mount', 'nothing', top, says='nothing')
        lab.refused('mount', f'{lab.volume}/nothing', top, says='nothing')
        lab.refused('mount', lab.volume, top, '-o', 'allow_everybody', says='allow_everybody')
        lab.refused('mount', lab.volume, top, '--snapshot', 'a', '--at', '2026-01-01', says='not both')
        lab.refused('umount', top, says='nothing of Cumulus')
        lab.run('mount', lab.volume, top)
        lab.refused('mount', lab.volume, top, says='already')
        other = lab.path('other')
        os.mkdir(other)
        lab.refused('mount', lab.volume, other, says=['already', top])
        with open(f'{top}/busy', 'wb'):
            lab.refused('umount', top, says='in use')
        lab.run('fs', 'create', f'{lab.volume}/second')
        lab.run('mount', f'{lab.volume}/second', other)  # two at once
        write(f'{other}/here', b'')
        expect(os.listdir(top) == ['busy'], 'two file systems are one')
        lab.refused('fs', 'rm', f'{lab.volume}/second', says='in use')
        lab.run('umount', other)
        lab.run('fs', 'rm', f'{lab.volume}/second')
        lab.run('umount', top)


def ends():
    """SIGTERM, umount(8), umount -l and fusermount3 end a mount and leave nothing dead; a killed program leaves nothing held."""
    with Lab() as lab:
        lab.up()
        top = lab.path('mnt')
        os.mkdir(top)
        for number, end in enumerate((['umount', top], ['umount', '-l', top], ['fusermount3', '-u', top], 'SIGTERM', 'SIGINT')):
            lab.run('mount', lab.volume, top)
            expect(os.path.ismount(top), 'mounted')
            write(f'{top}/file{number}', b'here')
            if isinstance(end, str):
                os.kill(lab.daemon_pid(), getattr(signal, end))
                deadline = time.time() + 20
                while os.path.ismount(top) and time.time() < deadline:
                    time.sleep(0.02)
            else:
                subprocess.run(end, check=True)
            expect(not os.path.ismount(top) and os.listdir(top) == [], f'after {end}')
        lab.run('mount', lab.volume, top)
        expect(len(os.listdir(top)) == 5, 'a file is missing')
        process = lab.start('mount', lab.volume, lab.path('mnt2'))
        process.communicate()
        lab.run('umount', top)
        foreground = lab.start('mount', lab.volume, top, '--foreground')
        deadline = time.time() + 20
        while not os.path.ismount(top) and time.time() < deadline:
            time.sleep(0.02)
        expect(os.path.ismount(top), 'mounted in the foreground')
        foreground.send_signal(signal.SIGINT)
        expect(foreground.wait(30) == 0 and not os.path.ismount(top), 'Ctrl-C unmounts')


def helper():
    """mount -t cumulus, and fstab, through mount(8)'s helper."""
    with Lab() as lab:
        lab.up()
        top = lab.path('mnt')
        os.mkdir(top)
        placed = []
        try:
            for name in ('mount.cumulus', 'mount.fuse.cumulus', 'umount.fuse.cumulus'):
                path = f'/sbin/{name}'
                if not os.path.lexists(path):
                    os.symlink(os.path.join(os.path.abspath(lab.bin), 'cumulus'), path)
                    placed.append(path)
            subprocess.run(['mount', '-t', 'cumulus', lab.volume, top, '-o', f'home={lab.home},noatime,_netdev'], check=True)
            write(f'{top}/by-mount', b'1')
            subprocess.run(['umount', top], check=True)
            expect(not os.path.ismount(top), 'umount(8)')
            table = lab.path('fstab')
            write(table, f'{lab.volume}/main {top} cumulus home={lab.home},nofail,x-systemd.automount 0 0\n'.encode())
            subprocess.run(['mount', '-T', table, top], check=True)
            expect(read(f'{top}/by-mount') == b'1', 'mounted by fstab')
            subprocess.run(['umount', top], check=True)
        finally:
            for path in placed:
                os.unlink(path)


def unprivileged():
    """A user without root mounts through fusermount3."""
    with Lab() as lab:
        lab.up(create=False)
        device = os.stat('/dev/fuse').st_mode
        user = pwd.getpwnam('nobody')
        home, top = lab.path('user'), lab.path('user-mnt')
        for path in (home, top):
            os.mkdir(path)
            os.chown(path, user.pw_uid, user.pw_gid)
        os.chmod(lab.dir, 0o755)
        os.chmod(lab.net, 0o755)
        words = ['setpriv', '--reuid', str(user.pw_uid), '--regid', str(user.pw_gid), '--clear-groups', '--', 'env', f'CUMULUS_HOME={home}',
                 os.path.join(lab.bin, 'cumulus')]
        listing = lab.path('miners.toml')
        shutil.copy(lab.list, listing)
        os.chmod(listing, 0o644)
        try:
            os.chmod('/dev/fuse', 0o666)
            subprocess.run([*words, 'volume', 'create', 'u', '--miners', listing], check=True, capture_output=True)
            subprocess.run([*words, 'mount', 'u', top], check=True)

            def use():
                write(f'{top}/mine', b'1')
                expect(read(f'{top}/mine') == b'1', 'a file of a user')
            as_user(user.pw_uid, user.pw_gid, use)
            subprocess.run([*words, 'umount', top], check=True)
            expect(not os.path.ismount(top), 'unmounted by the user')
        finally:
            subprocess.run([*words, 'volume', 'stop', 'u'], capture_output=True)
            os.chmod('/dev/fuse', stat.S_IMODE(device))


if __name__ == '__main__':
    main(posix, users, killed_and_recovered, unmounted_with_sync, written_by_map, snapshots, bad_input, ends, helper, unprivileged)
