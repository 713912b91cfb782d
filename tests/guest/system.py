"""A whole Debian system with systemd as a disk image, made by mmdebstrap without root, and a disk with a package to install.
Both are made once a build tree. The guest's kernel and initramfs (root.py) start it: they hand over to its /sbin/init."""
import fcntl
import glob
import os
import shutil
import tempfile

from root import HERE, mark, run

PACKAGE = 'hello'
UNIT = '''[Unit]
Description=Commands from the host
[Service]
ExecStart=/bin/sh -c 'for port in /sys/class/virtio-ports/*; do sh /usr/local/sbin/answer /dev/$${port##*/} & done; wait'
[Install]
WantedBy=multi-user.target
'''


def file_system(folder_or_tar, path, size):
    """An ext4 image of a folder or a tar archive; device files and owners without being root."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as work:
        if os.path.isdir(folder_or_tar):
            unpack = f'cp -a "{folder_or_tar}/." "{work}"'
        else:
            unpack = f'tar -C "{work}" -xf "{folder_or_tar}"'
        run('fakeroot', 'sh', '-ec', f'{unpack}; mke2fs -q -F -t ext4 -d "{work}" "{path}.new" {size >> 10}k')
    os.rename(path + '.new', path)


def build_system(directory, size=1 << 30):
    """Paths of the system's raw image and of the package's disk."""
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, f'system-{mark([os.path.join(HERE, "answer.sh"), __file__])}')
    package = os.path.join(directory, 'package')
    with open(os.path.join(directory, 'system.lock'), 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(path):
            for old in glob.glob(os.path.join(directory, 'system-*')):
                os.remove(old)
            with tempfile.TemporaryDirectory(dir=directory) as work:
                with open(os.path.join(work, 'cumulus-agent.service'), 'w') as file:
                    file.write(UNIT)
                shutil.copyfile(os.path.join(HERE, 'answer.sh'), os.path.join(work, 'answer'))
                tar = os.path.join(work, 'system.tar')
                run('mmdebstrap', '--quiet', '--variant=apt', '--include=systemd-sysv,udev',
                    f'--customize-hook=copy-in {work}/cumulus-agent.service /etc/systemd/system',
                    f'--customize-hook=copy-in {work}/answer /usr/local/sbin',
                    '--customize-hook=chroot "$1" systemctl enable cumulus-agent', 'bookworm', tar)
                file_system(tar, path, size)
        if not os.path.exists(package):
            with tempfile.TemporaryDirectory(dir=directory) as work:
                run('apt-get', 'download', '-q', '-o', 'APT::Sandbox::User=root', PACKAGE, cwd=work)
                file_system(work, package, 32 << 20)
    return path, package
