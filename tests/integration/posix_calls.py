"""System calls as they are: what Python's own functions smooth over, and calls as other users. A call gives its value or
its errno. The identity is the calling thread's: raw system calls change no other."""
import ctypes
import errno
import os
import struct

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_SYMLINK_NOFOLLOW, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_EACCESS, AT_EMPTY_PATH = -100, 0x100, 0x200, 0x400, 0x200, 0x1000
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
_SYSCALLS = {'setgroups': 116, 'setresuid': 117, 'setresgid': 119, 'mknodat': 259, 'linkat': 265, 'utimensat': 280,
             'fallocate': 285, 'renameat2': 316, 'copy_file_range': 326, 'faccessat2': 439, 'truncate': 76}
# Linux's numbers, for the two machines that Debian has most of.
if os.uname().machine == 'aarch64':
    _SYSCALLS = {'setgroups': 159, 'setresuid': 147, 'setresgid': 149, 'mknodat': 33, 'linkat': 37, 'utimensat': 88,
                 'fallocate': 47, 'renameat2': 276, 'copy_file_range': 285, 'faccessat2': 439, 'truncate': 45}

USERS = {'root': (0, 0, []), 'ann': (1001, 1001, [1001, 2000]), 'bob': (1002, 1002, [3000])}


def raw(name, *words):
    made = [ctypes.c_char_p(w) if isinstance(w, bytes) else ctypes.c_long(w) if isinstance(w, int) else w for w in words]
    value = LIBC.syscall(ctypes.c_long(_SYSCALLS[name]), *made)
    if value < 0:
        raise OSError(ctypes.get_errno(), name)
    return value


def become(user):
    """The effective ids and groups of `user`; the way back stays open, for the real ids are root's."""
    uid, gid, groups = USERS[user]
    raw('setresuid', -1, 0, -1)
    raw('setgroups', len(groups), (ctypes.c_uint32 * len(groups))(*groups))
    raw('setresgid', -1, gid, -1)
    raw('setresuid', -1, uid, -1)


def outcome(call, *words):
    """('ok', value) or (errno's name, None)"""
    try:
        return 'ok', call(*words)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno)), None


def path_bytes(path):
    return path if isinstance(path, bytes) else os.fsencode(path)


def rename(old, new, flags=0):
    raw('renameat2', AT_FDCWD, path_bytes(old), AT_FDCWD, path_bytes(new), flags)


def link(old, new, follow=False):
    raw('linkat', AT_FDCWD, path_bytes(old), AT_FDCWD, path_bytes(new), AT_SYMLINK_FOLLOW if follow else 0)


def name_nameless(descriptor, new):
    """An O_TMPFILE gets a name."""
    link(f'/proc/self/fd/{descriptor}', new, True)


def mknod(path, mode, device=0):
    raw('mknodat', AT_FDCWD, path_bytes(path), mode, device)


def truncate(path, size):
    raw('truncate', path_bytes(path), size)


def fallocate(descriptor, mode, offset, length):
    raw('fallocate', descriptor, mode, offset, length)


def copy_range(source, source_offset, target, target_offset, length):
    at, to = ctypes.c_int64(source_offset), ctypes.c_int64(target_offset)
    return raw('copy_file_range', source, ctypes.byref(at), target, ctypes.byref(to), length, 0)


def times(path, accessed, modified, nofollow=False):
    """Each time is nanoseconds, UTIME_NOW or UTIME_OMIT; both None: a null pointer. A descriptor may stand for the path."""
    both = None
    if accessed is not None:
        pair = [(0, one) if one in (UTIME_NOW, UTIME_OMIT) else divmod(one, 10**9) for one in (accessed, modified)]
        both = ctypes.create_string_buffer(struct.pack('<qqqq', *pair[0], *pair[1]))
    if isinstance(path, int):
        raw('utimensat', path, None, both, 0)
    else:
        raw('utimensat', AT_FDCWD, path_bytes(path), both, AT_SYMLINK_NOFOLLOW if nofollow else 0)


def access(path, mode):
    """By the effective ids."""
    raw('faccessat2', AT_FDCWD, path_bytes(path), mode, AT_EACCESS)


def acl(owner, group, other, users=(), groups=(), mask=None):
    """A POSIX ACL as its extended attribute holds it: users and groups are (id, permissions)."""
    nobody = 0xffffffff
    entries = [(0x01, owner, nobody), *((0x02, p, i) for i, p in users), (0x04, group, nobody), *((0x08, p, i) for i, p in groups)]
    if users or groups or mask is not None:
        entries.append((0x10, 7 if mask is None else mask, nobody))
    entries.append((0x20, other, nobody))
    return struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *entry) for entry in entries)
