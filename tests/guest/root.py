#!/usr/bin/env python3
"""Builds what the guest boots: a Debian cloud kernel, a small initramfs (busybox, the kernel modules, the agent) and a
read-only disk with the programs that the tests run inside, each with its shared libraries, all from Debian packages.
The kernel package is downloaded and unpacked, never installed. What is built lies in the build tree and is kept; only
the programs' disk is made again, when a program has changed.

    root.py DIR BIN     DIR: where it lies; BIN: where cumulus and cumulus-miner are
"""
import fcntl
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
KERNEL_PACKAGE = 'linux-image-cloud-amd64'
MODULES = ['virtio_pci', 'virtio_blk', 'virtio_net', 'virtio_console', 'virtio-rng', 'fuse', 'xfs', 'nbd']
# What tests run in the guest besides cumulus; busybox has the rest.
PROGRAMS = ['mkfs.ext4', 'e2fsck', 'resize2fs', 'mkfs.xfs', 'xfs_repair', 'fio', 'fstrim', 'fsfreeze', 'fusermount3', 'strace']
OPTIONAL = {'strace'}
OURS = ['cumulus', 'cumulus-miner']


def run(*words, **how):
    return subprocess.run(list(words), check=True, timeout=600, **how)


def find_program(name):
    found = shutil.which(name, path=os.environ.get('PATH', '') + ':/usr/sbin:/sbin:/usr/bin:/bin')
    if not found and name not in OPTIONAL:
        raise SystemExit(f'root.py: {name} is not installed: run packaging/deps test')
    return found


def libraries(program):
    """Shared libraries of a program, and its loader, as the dynamic linker finds them."""
    shown = subprocess.run(['ldd', program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=60).stdout
    return sorted(set(re.findall(r'(/\S+\.so\S*)', shown)))


def kernel(directory):
    """Unpacks the newest cloud kernel of the release into directory/kernel, once; returns the folder."""
    target = os.path.join(directory, 'kernel')
    if not os.path.isdir(target):
        shown = run('apt-cache', 'depends', '--important', KERNEL_PACKAGE, stdout=subprocess.PIPE, text=True).stdout
        package = re.search(r'Depends: (linux-image-\S+)', shown)
        if not package:
            raise SystemExit(f'root.py: apt-cache knows no {KERNEL_PACKAGE}: run apt-get update')
        with tempfile.TemporaryDirectory(dir=directory) as work:
            run('apt-get', 'download', '-q', '-o', 'APT::Sandbox::User=root', package[1], cwd=work, stdout=subprocess.DEVNULL)
            run('dpkg-deb', '-x', glob.glob(os.path.join(work, '*.deb'))[0], os.path.join(work, 'unpacked'))
            os.rename(os.path.join(work, 'unpacked'), target)
    return target


def modules_in_order(top):
    """Paths of MODULES and all that they need, each after what it needs: the packages bring no modules.dep."""
    by_name = {os.path.basename(path)[:-3].replace('-', '_'): path for path in glob.glob(f'{top}/**/*.ko', recursive=True)}
    order = []

    def add(name):
        path = by_name.get(name.replace('-', '_'))
        if path is None or path in order:
            return  # built into the kernel, or there already
        needs = re.search(rb'\0depends=([^\0]*)\0', b'\0' + open(path, 'rb').read())
        for need in needs[1].decode().split(',') if needs else []:
            if need:
                add(need)
        order.append(path)

    for name in MODULES:
        add(name)
    return order


class Archive:
    """A cpio archive as the kernel unpacks it ("newc"; Documentation/driver-api/early-userspace/buffer-format)."""

    def __init__(self, path):
        self.file = open(path, 'wb')
        self.inode = 0

    def add(self, name, mode, content=b''):
        self.inode += 1
        fields = [self.inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
        self.file.write(b'070701' + b''.join(b'%08X' % field for field in fields) + name.encode() + b'\0')
        self.pad()
        self.file.write(content)
        self.pad()

    def pad(self):
        self.file.write(b'\0' * (-self.file.tell() % 4))

    def folder(self, name):
        self.add(name, 0o040755)

    def link(self, name, target):
        self.add(name, 0o120777, target.encode())

    def program(self, name, path):
        self.add(name, 0o100755, open(path, 'rb').read())

    def close(self):
        self.add('TRAILER!!!', 0)
        self.file.close()


def initramfs(kernel_folder, path):
    archive = Archive(path + '.new')
    for name in ['bin', 'dev', 'etc', 'modules', 'proc', 'root', 'run', 'sys', 'tmp', 'usr', 'mnt', 'var']:
        archive.folder(name)
    busybox = find_program('busybox')
    archive.program('bin/busybox', busybox)
    for applet in run(busybox, '--list', stdout=subprocess.PIPE, text=True).stdout.split():
        if applet != 'busybox':
            archive.link(f'bin/{applet}', 'busybox')
    for link in ['lib', 'lib64', 'sbin']:
        archive.link(link, f'usr/{link}')
    archive.add('etc/passwd', 0o100644, b'root:x:0:0:root:/root:/bin/sh\n')
    archive.add('etc/group', 0o100644, b'root:x:0:\n')
    order = modules_in_order(kernel_folder)
    for module in order:
        archive.program(f'modules/{os.path.basename(module)}', module)
    archive.add('modules/order', 0o100644, ''.join(f'{os.path.basename(module)}\n' for module in order).encode())
    archive.program('init', os.path.join(HERE, 'agent.sh'))
    archive.program('answer', os.path.join(HERE, 'answer.sh'))
    archive.close()
    os.rename(path + '.new', path)


def programs_disk(sources, path):
    """An ext4 file system with usr/{bin,lib,...}; ours without debugging symbols."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as work:
        os.makedirs(os.path.join(work, 'bin'))
        os.symlink('bin', os.path.join(work, 'sbin'))
        os.symlink('lib', os.path.join(work, 'lib64'))
        for name, source in sources.items():
            target = os.path.join(work, 'bin', name)
            if name in OURS or name.endswith('.so'):
                run('strip', '-o', target, source)
            else:
                shutil.copyfile(source, target)
            os.chmod(target, 0o755)
            for library in libraries(source):
                place = os.path.join(work, re.sub('^(/usr)?/lib64/', 'lib/', library) if '/lib64/' in library
                                     else re.sub('^(/usr)?/', '', library))
                if not os.path.exists(place):
                    os.makedirs(os.path.dirname(place), exist_ok=True)
                    shutil.copy(library, place)
        size = sum(os.path.getsize(os.path.join(where, name)) for where, _, names in os.walk(work) for name in names
                   if not os.path.islink(os.path.join(where, name)))
        run('mke2fs', '-q', '-F', '-t', 'ext4', '-O', '^has_journal', '-m', '0', '-d', work, path + '.new',
            f'{size // 1024 * 5 // 4 + 8192}k', stdout=subprocess.DEVNULL)
    os.rename(path + '.new', path)


def build(directory, binaries, extra=()):
    """Everything, or what has changed of it; returns the paths of kernel, initramfs and programs' disk."""
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, 'lock'), 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        top = kernel(directory)
        image = glob.glob(os.path.join(top, 'boot/vmlinuz-*'))[0]
        sources = {name: path for name in PROGRAMS if (path := find_program(name))}
        sources.update({name: os.path.join(binaries, name) for name in OURS})
        sources.update({os.path.basename(path): path for path in extra})
        first = os.path.join(directory, f'initramfs-{mark([image, *(os.path.join(HERE, name) for name in ["agent.sh", "answer.sh"]), __file__])}')
        disk = os.path.join(directory, f'programs-{mark([*sources.values(), __file__])}')
        for path, prefix, make in [(first, 'initramfs-', lambda: initramfs(top, first)),
                                   (disk, 'programs-', lambda: programs_disk(sources, disk))]:
            if not os.path.exists(path):
                for old in glob.glob(os.path.join(directory, prefix + '*')):
                    os.remove(old)  # a guest that runs from it keeps it open
                make()
    return image, first, disk


def mark(paths):
    digest = hashlib.sha256()
    for path in paths:
        found = os.stat(path)
        digest.update(f'{path} {found.st_size} {found.st_mtime_ns}\n'.encode())
    return digest.hexdigest()[:16]


if __name__ == '__main__':
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    print(*build(sys.argv[1], sys.argv[2], sys.argv[3:]), sep='\n')
