#!/usr/bin/env python3
"""Random sequences of system calls, as several users, on the mount and on ext4 at once: each call's outcome, and what the
trees look like after it, must be the same. What SEMANTICS.md says that we do otherwise is left out here.
CUMULUS_TEST_ROUNDS sets the number of sequences."""
import hashlib
import os
import random
import stat
import subprocess
import time

import posix_calls as posix
from lab import LONG, SEED, Lab, Wrong, expect, main

ROUNDS = int(os.environ.get('CUMULUS_TEST_ROUNDS', 150 if LONG else 3))
STEPS = 250
TICK = 0.009  # longer than a step of either side's clock
NAMES = ['a', 'b', 'c', 'd', 'e']
FOLDERS = ['d0', 'd1', 'd2', 'd3', '.']
SLOTS = 5
SET_TIMES = [0, 10**18 + 123_456_789, 2 * 10**18 + 1]
TIMES = ('mtime', 'ctime')  # when access times move is the mount's choice


def peer_folder(lab):
    """A folder on ext4: the disk's own where it is ext4, an image's elsewhere."""
    kind = subprocess.run(['stat', '-f', '-c', '%T', lab.dir], check=True, capture_output=True, text=True).stdout.strip()
    top = lab.path('peer')
    os.mkdir(top)
    if kind != 'ext2/ext3':
        image = lab.path('peer.img')
        subprocess.run(['truncate', '-s', '256M', image], check=True)
        subprocess.run(['mkfs.ext4', '-q', image], check=True)
        subprocess.run(['mount', '-o', 'loop', image, top], check=True)
    return top


class Side:
    """One of the two trees, and what is open in it."""

    def __init__(self, top):
        self.top, self.slots = top, {}

    def start(self):
        """The same small tree everywhere; deep enough that nothing climbs out of it."""
        os.makedirs(f'{self.top}/r/s/t')
        os.chdir(f'{self.top}/r/s/t')
        os.chmod('.', 0o777)
        for name, owner, group, mode in (('d0', 0, 0, 0o755), ('d1', 0, 0, 0o1777), ('d2', 0, 2000, 0o2777), ('d3', 1001, 1001, 0o700)):
            os.mkdir(name)
            os.chown(name, owner, group)
            os.chmod(name, mode)

    def end(self):
        for descriptor in self.slots.values():
            os.close(descriptor)
        self.slots.clear()
        os.chdir('/')
        subprocess.run(['rm', '-rf', f'{self.top}/r'], check=True)

    def fd(self, slot):
        return self.slots[slot]

    def keep(self, slot, descriptor):
        if slot in self.slots:
            os.close(self.slots.pop(slot))
        self.slots[slot] = descriptor

    # --- what there is ---
    def tree(self):
        found, inodes = {}, {}
        for where, folders, names in os.walk('.'):
            folders.sort()
            if where == '.':
                found['.'] = self.about(os.lstat('.'), inodes)
            for name in sorted(folders + names):
                path = os.path.join(where, name)
                about = os.lstat(path)
                found[path] = self.about(about, inodes)
                if stat.S_ISLNK(about.st_mode):
                    found[path]['target'] = os.readlink(path)
        for slot, descriptor in self.slots.items():
            found[f'slot {slot}'] = self.about(os.fstat(descriptor), inodes)
        return found

    @staticmethod
    def about(about, inodes):
        return {'mode': oct(about.st_mode), 'uid': about.st_uid, 'gid': about.st_gid, 'nlink': about.st_nlink, 'rdev': about.st_rdev,
                'size': about.st_size if not stat.S_ISDIR(about.st_mode) else 0, 'same': inodes.setdefault(about.st_ino, len(inodes)),
                'mtime': about.st_mtime_ns, 'ctime': about.st_ctime_ns}

    def contents(self):
        found = {}
        for where, folders, names in os.walk('.'):
            for name in folders + names:
                path = os.path.join(where, name)
                attributes = {key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)}
                bytes_of = ''
                if stat.S_ISREG(os.lstat(path).st_mode):
                    with open(path, 'rb') as file:
                        bytes_of = hashlib.sha256(file.read()).hexdigest()
                found[path] = (attributes, bytes_of)
        return found


# --- the calls: each is a name, its words, and what it does on a side ---
def opened(side, slot, path, flags, mode):
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    side.keep(slot, descriptor)
    return 'opened'


def made(_, path, size, mode):
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_NONBLOCK, mode)
    try:
        return os.write(descriptor, bytes(range(251)) * (size // 251) + b'x') if size else 0
    finally:
        os.close(descriptor)


def closed(side, slot):
    os.close(side.slots.pop(slot))


def on_slot(call):
    return lambda side, slot, *words: call(side.fd(slot), *words)


def on_path(call):
    return lambda side, *words: call(*words)


def read_link_or_list(_, path):
    return os.readlink(path)


def sought(descriptor, offset, whence):
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        return 'a folder: offsets are whatever a file system likes'
    return os.lseek(descriptor, offset, whence)


def nameless(side, slot, path, mode):
    side.keep(slot, os.open(path, os.O_TMPFILE | os.O_RDWR, mode))


CALLS = {
    'open': opened, 'make': made, 'close': closed, 'nameless': nameless, 'readlink': read_link_or_list,
    'mkdir': on_path(os.mkdir), 'rmdir': on_path(os.rmdir), 'unlink': on_path(os.unlink), 'rename': on_path(posix.rename),
    'link': on_path(posix.link), 'symlink': on_path(os.symlink), 'mknod': on_path(posix.mknod),
    'chmod': on_path(os.chmod), 'fchmod': on_slot(os.fchmod), 'chown': on_path(os.chown), 'lchown': on_path(os.lchown),
    'fchown': on_slot(os.fchown), 'times': on_path(posix.times), 'futimens': on_slot(posix.times),
    'truncate': on_path(posix.truncate), 'ftruncate': on_slot(os.ftruncate), 'access': on_path(posix.access),
    'stat': on_path(lambda path: oct(os.stat(path).st_mode)), 'listdir': on_path(lambda path: sorted(os.listdir(path))),
    'write': on_slot(lambda fd, size: os.write(fd, b'w' * size)), 'pwrite': on_slot(lambda fd, size, at: os.pwrite(fd, b'p' * size, at)),
    'read': on_slot(os.read), 'pread': on_slot(os.pread), 'seek': on_slot(sought), 'fsync': on_slot(os.fsync),
    'fallocate': on_slot(posix.fallocate), 'name_nameless': on_slot(posix.name_nameless),
    'copy_range': lambda side, a, at, b, to, length: posix.copy_range(side.fd(a), at, side.fd(b), to, length),
    'setxattr': on_path(os.setxattr), 'getxattr': on_path(os.getxattr), 'removexattr': on_path(os.removexattr),
    'listxattr': on_path(lambda path: sorted(name for name in os.listxattr(path) if not name.startswith('trusted.'))),  # which ours shows to all
}


class Writer:
    """Thinks up calls. Knows nothing of what is there, but that slots are filled."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.number = 0

    def path(self):
        r = self.random
        draw = r.random()
        path = f'{r.choice(FOLDERS)}/{r.choice(NAMES)}'
        if draw < 0.25:
            path += '/' + r.choice(NAMES)
        elif draw < 0.28:
            path += r.choice(['/', '/.', '/..', '//', '/./x'])
        elif draw < 0.30:
            path = r.choice(['d1/' + 'n' * 255, 'd1/' + 'n' * 256, '.', 'd0/..', '', 'd1/' + './' * 2050 + 'a', 'd1/' + './' * 2030 + 'a', '/dev/null/x'])
        return path

    def mode(self):
        return self.random.choice([0, 0o400, 0o600, 0o644, 0o666, 0o755, 0o777, 0o2755, 0o4755, 0o6777, 0o2644, 0o1777, 0o070, 0o7777])

    def owner(self):
        return self.random.choice([-1, -1, 0, 1001, 1002])

    def group(self):
        return self.random.choice([-1, -1, 0, 1001, 1002, 2000, 3000])

    def slot(self, slots):
        return self.random.choice(sorted(slots))

    def size(self):
        return self.random.choice([0, 1, 100, 4095, 4096, 4097, 10_000, 70_000])

    def time(self):
        return self.random.choice([posix.UTIME_NOW, posix.UTIME_OMIT, *SET_TIMES])

    def flags(self):
        r = self.random
        flags = r.choice([os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR])
        for bit in (os.O_CREAT, os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_NOFOLLOW, os.O_DIRECTORY, os.O_NOATIME, os.O_SYNC, os.O_DSYNC, os.O_PATH):
            if r.random() < (0.5 if bit == os.O_CREAT else 0.12 if bit != os.O_PATH else 0.02):
                flags |= bit
        return flags

    def xattr(self):
        r = self.random
        name = r.choice(['user.a', 'user.b', 'user.' + 'n' * 250, 'user.' + 'n' * 251, 'user.', 'trusted.t', 'security.s', 'odd.x', 'system.odd',
                         'system.posix_acl_access', 'system.posix_acl_access', 'system.posix_acl_default'])
        value = r.choice([b'', b'1', b'value' * 10])
        if name.startswith('system.posix'):
            bits = [r.randrange(8) for _ in range(6)]
            users = [(1001, bits[3])] if r.random() < 0.6 else []
            groups = [(2000, bits[4])] if r.random() < 0.4 else []
            value = r.choice([posix.acl(*bits[:3], users, groups, bits[5] if users or groups else None)] * 6 + [b'', b'\2\0\0\0', b'junk'])
        return name, value

    def next(self, slots):
        r = self.random
        named = [('open', 9), ('make', 6), ('mkdir', 7), ('rmdir', 4), ('unlink', 5), ('rename', 12), ('link', 6), ('symlink', 5), ('mknod', 4),
                 ('chmod', 6), ('chown', 6), ('lchown', 2), ('times', 6), ('truncate', 4), ('access', 2), ('stat', 2), ('listdir', 2),
                 ('readlink', 1), ('nameless', 2), ('setxattr', 7), ('getxattr', 2), ('removexattr', 2), ('listxattr', 1)]
        if slots:
            named += [('close', 2), ('fchmod', 2), ('fchown', 2), ('futimens', 2), ('ftruncate', 3), ('write', 4), ('pwrite', 4), ('read', 3), ('pread', 3),
                      ('seek', 2), ('fsync', 1), ('fallocate', 5), ('name_nameless', 2), ('copy_range', 4)]
        names, weights = zip(*named)
        what = r.choices(names, weights)[0]
        self.number += 1
        return what, getattr(self, 'for_' + what, lambda _: (self.path(),))(slots)

    def for_open(self, _):
        return self.random.randrange(SLOTS), self.path(), self.flags(), self.mode()

    def for_make(self, _):
        return self.path(), self.size(), self.mode()

    def for_mkdir(self, _):
        return self.path(), self.mode()

    def for_rename(self, _):
        return self.path(), self.path(), self.random.choice([0, 0, 0, 0, posix.RENAME_NOREPLACE, posix.RENAME_EXCHANGE, 3, 8])

    def for_link(self, _):
        return self.path(), self.path(), self.random.random() < 0.3

    def for_symlink(self, _):
        return self.random.choice(['a', 'b', '../d1/b', '../d0/a', 'nowhere', '.', 'd0', 'x' * 255, 'c/a', 'd/', 'y' * 4000]), self.path()

    def for_mknod(self, _):
        kind = self.random.choice([stat.S_IFIFO, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFREG, stat.S_IFDIR, 0])
        return self.path(), kind | self.mode(), os.makedev(1, 3) if kind == stat.S_IFCHR else os.makedev(259, 1000) if kind == stat.S_IFBLK else 0

    def for_chmod(self, _):
        return self.path(), self.mode()

    def for_chown(self, _):
        return self.path(), self.owner(), self.group()

    for_lchown = for_chown

    def for_times(self, _):
        if self.random.random() < 0.2:
            return self.path(), None, None, self.random.random() < 0.3
        return self.path(), self.time(), self.time(), self.random.random() < 0.3

    def for_truncate(self, _):
        return self.path(), self.random.choice([self.size(), self.size(), -1, 1 << 20])

    def for_access(self, _):
        return self.path(), self.random.randrange(8)

    def for_nameless(self, _):
        return self.random.randrange(SLOTS), self.random.choice(FOLDERS + [self.path()]), self.mode()

    def for_setxattr(self, _):
        return self.path(), *self.xattr(), self.random.choice([0, 0, 0, os.XATTR_CREATE, os.XATTR_REPLACE])

    def for_getxattr(self, _):
        return self.path(), self.xattr()[0]

    for_removexattr = for_getxattr

    def for_close(self, slots):
        return (self.slot(slots),)

    for_fsync = for_close

    def for_fchmod(self, slots):
        return self.slot(slots), self.mode()

    def for_fchown(self, slots):
        return self.slot(slots), self.owner(), self.group()

    def for_futimens(self, slots):
        return self.slot(slots), self.time(), self.time()

    def for_ftruncate(self, slots):
        return self.slot(slots), self.random.choice([self.size(), self.size(), -1, 1 << 20])

    def for_write(self, slots):
        return self.slot(slots), self.size()

    def for_pwrite(self, slots):
        return self.slot(slots), self.size(), self.random.choice([0, 10, 5000, 100_000])

    def for_read(self, slots):
        return self.slot(slots), self.size()

    def for_pread(self, slots):
        return self.slot(slots), self.size(), self.size()

    def for_seek(self, slots):
        return self.slot(slots), self.random.choice([0, -1, 5, 4096]), self.random.choice([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END])

    def for_fallocate(self, slots):
        mode = self.random.choice([0, 0, posix.KEEP_SIZE, posix.PUNCH_HOLE | posix.KEEP_SIZE, posix.PUNCH_HOLE, posix.ZERO_RANGE, posix.ZERO_RANGE | posix.KEEP_SIZE])
        return self.slot(slots), mode, self.random.choice([0, 1, 4096, 5000, -1]), self.random.choice([0, 1, 4096, 10_000, 100_000, -5])

    def for_name_nameless(self, slots):
        return self.slot(slots), self.path()

    def for_copy_range(self, slots):
        return self.slot(slots), self.size(), self.slot(slots), self.size(), self.size()


# --- comparing ---
def moved(what, before, after):
    """path -> which of its times have changed, and those to a time of the past or future; what has come and gone is known otherwise."""
    return {path: {key: now[key] if now[key] in SET_TIMES else 'now' for key in TIMES if path not in before or before[path][key] != now[key]}
            for path, now in after.items() if what != 'write' or not stat.S_ISFIFO(int(now['mode'], 8))}  # a fifo's bytes are the kernel's


def without_times(tree):
    return {path: {key: value for key, value in about.items() if key not in TIMES} for path, about in tree.items()}


def shown(ours, theirs):
    other = [path for path in sorted(set(ours) | set(theirs)) if ours.get(path) != theirs.get(path)]
    return '; '.join(f'{path}: ours {ours.get(path)}, ext4 {theirs.get(path)}' for path in other)[:2000]


class Comparison:
    def __init__(self, ours, theirs, seed, writeback):
        self.sides, self.seed, self.writeback = (Side(ours), Side(theirs)), seed, writeback
        self.writer, self.random, self.story = Writer(seed), random.Random(seed), []
        self.timed = seed % 2 == 0

    def run(self, steps):
        """What differs, or an empty text."""
        for side in self.sides:
            side.start()
        try:
            for _ in range(steps):
                difference = self.step()
                if difference:
                    return difference
            return self.compare_contents()
        finally:
            os.umask(0o022)
            for side in self.sides:
                side.end()

    def on_each(self, call):
        results = []
        for side in self.sides:
            os.chdir(f'{side.top}/r/s/t')
            results.append(call(side))
        return results

    def step(self):
        slots = self.sides[0].slots
        what, words = self.writer.next(slots)
        user, umask = self.random.choice(['root', 'ann', 'bob', 'ann']), self.random.choice([0o022, 0, 0o077, 0o027])
        # The kernel asks nobody's leave for a chown to nobody new, nor says that it is one: SEMANTICS.md has what comes of it.
        if words[-2:] == (-1, -1):
            user = 'root'
        before = self.on_each(Side.tree) if self.timed else None
        if self.timed:
            time.sleep(TICK)

        def act(side):
            os.umask(umask)
            posix.become(user)
            try:
                return posix.outcome(CALLS[what], side, *words)
            finally:
                posix.become('root')
        ours, theirs = self.on_each(act)
        self.story.append(f'{user} umask {umask:o}: {what}{words} -> {ours[0]}'.replace('y' * 4000, 'y...').replace('./' * 2030, './...'))
        if ours != theirs:
            return f'ours {ours}, ext4 {theirs}'
        trees = self.on_each(Side.tree)
        plain = [without_times(tree) for tree in trees]
        if plain[0] != plain[1]:
            return shown(*plain)
        # With write-back the times are the kernel's: an ACL that says no more than the mode moves the ctime, a truncation to the same
        # size no time.
        own = self.writeback and (what == 'truncate' or any(str(word).startswith('system.posix_acl') for word in words))
        if self.timed and not own:
            times = [moved(what, *pair) for pair in zip(before, trees)]
            if times[0] != times[1]:
                return 'changed times: ' + shown(*times)
        return self.compare_contents() if self.writer.number % 50 == 0 else ''

    def compare_contents(self):
        ours, theirs = self.on_each(Side.contents)
        return 'contents: ' + shown(ours, theirs) if ours != theirs else ''


def as_ext4_does():
    with Lab() as lab:
        lab.up()
        os.chmod(lab.dir, 0o755)
        theirs, ours = peer_folder(lab), lab.path('mnt')
        os.mkdir(ours)
        for options in ('allow_other', 'allow_other,writeback'):
            lab.run('mount', lab.volume, ours, '-o', options)
            for number in range(ROUNDS):
                one = Comparison(ours, theirs, SEED + number, 'writeback' in options)
                difference = one.run(STEPS)
                if difference and os.environ.get('CUMULUS_SHOW_ALL'):
                    print(f'--- {options} seed {one.seed} step {len(one.story)}: {one.story[-1]}: {difference[:600]}', flush=True)
                elif difference:
                    told = '\n'.join(one.story[-40:])
                    raise Wrong(f'{options}: CUMULUS_SEED={one.seed} differs after {len(one.story)} calls:\n{told}\n{difference}')
            lab.run('umount', ours)
        lab.check_clean()
        if subprocess.run(['mountpoint', '-q', theirs]).returncode == 0:
            subprocess.run(['umount', theirs], check=True)


if __name__ == '__main__':
    main(as_ext4_does)
