#!/usr/bin/env python3
"""Several programs do everything at once in one small tree, each in the others' way. No call may fail but as POSIX lets it; afterwards
the tree must fit together: links are as many as there are names, listings say what stat says, files read as long as they are, the
same after umount and from the miners, and nothing is left in use when all is removed. By default and with write-back.
CUMULUS_TEST_ROUNDS sets the seconds."""
import collections
import errno
import mmap
import os
import random
import stat
import subprocess
import sys
import time
import traceback

import posix_calls as posix
from lab import LONG, SEED, Lab, expect, main, sha_of

SECONDS = float(os.environ.get('CUMULUS_TEST_ROUNDS', 120 if LONG else 3))
PROGRAMS = 6
NAMES = ['a', 'b', 'c', 'd']
FORESEEN = {getattr(errno, name) for name in ('ENOENT', 'EEXIST', 'ENOTDIR', 'EISDIR', 'ENOTEMPTY', 'EINVAL', 'ELOOP', 'EXDEV', 'ENXIO',
                                              'EBUSY', 'ENODATA', 'EPERM', 'EBADF', 'ESPIPE', 'EAGAIN', 'ENODEV')}


class Program:
    """One of those at work. Looks at nothing first: its names may be anything by the time."""

    def __init__(self, top, seed):
        self.top, self.random = top, random.Random(seed)
        self.done, self.failed = collections.Counter(), collections.Counter()

    def path(self):
        return os.path.join(self.top, *(self.random.choice(NAMES) for _ in range(self.random.choice([1, 1, 2, 2, 2, 3]))))

    def step(self):
        what = self.random.choices([self.write, self.mkdir, self.rmdir, self.unlink, self.rename, self.link, self.symlink, self.mknod, self.truncate,
                                    self.chmod, self.xattr, self.list, self.read, self.holes, self.copy, self.nameless, self.unlinked, self.fsync],
                                   [14, 10, 4, 8, 12, 7, 4, 3, 4, 4, 4, 6, 6, 3, 3, 4, 3, 2])[0]
        try:
            what()
            self.done[what.__name__] += 1
        except OSError as error:
            if error.errno not in FORESEEN:
                raise
            self.failed[what.__name__] += 1

    def open(self, flags):
        return os.open(self.path(), flags | os.O_NONBLOCK, 0o644)

    def with_file(self, flags, act):
        descriptor = self.open(flags)
        try:
            return act(descriptor)
        finally:
            os.close(descriptor)

    def write(self):
        flags = self.random.choice([0, os.O_CREAT, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_CREAT | os.O_TRUNC, os.O_CREAT | os.O_APPEND])
        size, at = self.random.choice([0, 10, 4096, 10_000, 100_000]), self.random.choice([0, 0, 4096, 50_001])
        self.with_file(flags | os.O_WRONLY, lambda fd: os.pwrite(fd, self.random.randbytes(size), at))

    def mkdir(self):
        os.mkdir(self.path())

    def rmdir(self):
        os.rmdir(self.path())

    def unlink(self):
        os.unlink(self.path())

    def rename(self):
        posix.rename(self.path(), self.path(), self.random.choice([0, 0, 0, posix.RENAME_NOREPLACE, posix.RENAME_EXCHANGE]))

    def link(self):
        posix.link(self.path(), self.path())

    def symlink(self):
        os.symlink(self.random.choice(['a', '../b', 'c/d', 'nowhere']), self.path())

    def mknod(self):
        posix.mknod(self.path(), self.random.choice([stat.S_IFIFO, stat.S_IFSOCK]) | 0o600)

    def truncate(self):
        os.truncate(self.path(), self.random.choice([0, 1, 5000, 200_000]))

    def chmod(self):
        os.chmod(self.path(), self.random.choice([0o600, 0o644, 0o755]))
        os.utime(self.path())

    def xattr(self):
        path = self.path()
        os.setxattr(path, 'user.' + self.random.choice(NAMES), self.random.randbytes(self.random.choice([0, 10, 3000])))
        os.listxattr(path)
        os.removexattr(self.path(), 'user.' + self.random.choice(NAMES))

    def list(self):
        with os.scandir(os.path.dirname(self.path())) as entries:
            names = [entry.name for entry in entries]
        expect(len(names) == len(set(names)), f'names are listed twice: {names}')

    def read(self):
        self.with_file(os.O_RDONLY, lambda fd: [os.pread(fd, 1 << 17, 0), os.fstat(fd)])

    def holes(self):
        def act(descriptor):
            mode = self.random.choice([0, posix.KEEP_SIZE, posix.PUNCH_HOLE | posix.KEEP_SIZE, posix.ZERO_RANGE])
            posix.fallocate(descriptor, mode, self.random.choice([0, 4096, 30_000]), self.random.choice([100, 4096, 60_000]))
            os.lseek(descriptor, 0, self.random.choice([os.SEEK_DATA, os.SEEK_HOLE]))
        self.with_file(os.O_RDWR, act)

    def copy(self):
        self.with_file(os.O_RDONLY, lambda source: self.with_file(os.O_WRONLY | os.O_CREAT, lambda to: posix.copy_range(source, 0, to, 0, 50_000)))

    def nameless(self):
        descriptor = os.open(os.path.dirname(self.path()), os.O_TMPFILE | os.O_RDWR, 0o644)
        try:
            os.write(descriptor, b't' * 5000)
            with mmap.mmap(descriptor, 5000) as shared:
                shared[100:4900] = b'm' * 4800
            if self.random.random() < 0.5:
                posix.name_nameless(descriptor, self.path())
        finally:
            os.close(descriptor)

    def unlinked(self):
        """Read and written after its last name has gone."""
        path = self.path() + f'.{os.getpid()}'
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            os.unlink(path)
            os.write(descriptor, b'u' * 9000)
            expect(os.fstat(descriptor).st_nlink == 0 and os.pread(descriptor, 9000, 0) == b'u' * 9000, 'an unlinked file differs')
        except FileNotFoundError:
            pass  # the folder has moved away, and will be found with this file in it
        finally:
            os.close(descriptor)

    def fsync(self):
        self.with_file(os.O_RDONLY, os.fsync)


def at_once(top):
    """Every program in a process of its own, for the time that was asked for."""
    children = []
    for number in range(PROGRAMS):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                program, end = Program(top, SEED * PROGRAMS + number), time.monotonic() + SECONDS
                while time.monotonic() < end:
                    program.step()
                few = [what for what, times in program.failed.items() if program.done[what] == 0 and times > 200]
                expect(not few, f'never once done: {few}')
                print(f'  {program.done.total()} calls done, {program.failed.total()} refused', flush=True)
                code = 0
            except BaseException:
                traceback.print_exc()
                sys.stderr.flush()
            os._exit(code)
        children.append(child)
    wrong = [child for child in children if os.waitpid(child, 0)[1] != 0]
    expect(not wrong, f'{len(wrong)} programs failed')


def look(top):
    """path -> what is there; checks on the way that it fits together."""
    found, names, links = {}, collections.Counter(), {}
    for where, folders, _ in os.walk(top):
        about = os.lstat(where)
        with os.scandir(where) as entries:
            listed = [(entry.path, entry.inode(), entry.is_dir(follow_symlinks=False), entry.is_file(follow_symlinks=False), entry.is_symlink()) for entry in entries]
        expect(about.st_nlink == 2 + sum(one[2] for one in listed), f'{where}: {about.st_nlink} links, {listed}')
        for path, inode, folder, file, symlink in listed:
            about = os.lstat(path)
            mode = about.st_mode
            expect((inode, folder, file, symlink) == (about.st_ino, stat.S_ISDIR(mode), stat.S_ISREG(mode), stat.S_ISLNK(mode)), f'{path}: listed as {inode}, {folder}, {file}: {about}')
            words = [oct(mode), about.st_size if not folder else 0, about.st_mtime_ns, about.st_nlink]
            if not folder:
                names[inode] += 1
                links[inode] = about.st_nlink
            if file:
                words += [sha_of(path), sorted(os.listxattr(path))]
                expect(len(open(path, 'rb').read()) == about.st_size, f'{path} is not as long as {about.st_size}')
            found[os.path.relpath(path, top)] = words
    wrong = {inode: (links[inode], count) for inode, count in names.items() if links[inode] != count}
    expect(not wrong, f'links and names differ: {wrong}')
    return found, len(names)


def in_use(top):
    about = os.statvfs(top)
    return about.f_files - about.f_ffree


def all_at_once(options):
    with Lab() as lab:
        top = lab.path('m')
        os.mkdir(top)
        lab.up().run('mount', lab.volume, top, *options)
        empty = in_use(top)
        inside = os.path.join(top, 'inside')  # no link leads out of the mount
        os.mkdir(inside)
        at_once(inside)
        before, _ = look(top)
        expect(before, 'nothing is left: the test proved little')
        lab.run('umount', top, '--sync')
        lab.drop_cache()
        lab.check_clean(data=True)
        lab.run('mount', lab.volume, top, *options)
        after, files = look(top)
        for words in [*before.values(), *after.values()] if options else []:
            words[2] = None  # the kernel's write-back cache keeps a time of its own (fs/SEMANTICS.md)
        changed = [path for path in sorted(set(before) | set(after)) if before.get(path) != after.get(path)]
        expect(not changed, f'after umount and mount: {[(path, before.get(path), after.get(path)) for path in changed[:3]]}')
        folders = sum(one[0].startswith('0o4') for one in after.values())
        expect(in_use(top) == empty + files + folders, f'{in_use(top)} inodes are in use: {empty} before, {files} files and {folders} folders now')
        subprocess.run(f'rm -rf {top}/*', shell=True, check=True)
        deadline = time.monotonic() + 20
        while in_use(top) != empty and time.monotonic() < deadline:
            time.sleep(0.05)
        expect(in_use(top) == empty, f'{in_use(top) - empty} inodes are in use after everything was removed')
        lab.run('umount', top)


def stress_by_default():
    all_at_once([])


def stress_with_writeback():
    all_at_once(['-o', 'writeback'])


if __name__ == '__main__':
    main(stress_by_default, stress_with_writeback)
