"""A real guest under QEMU: a Debian kernel with the programs of root.py, commands over virtio ports, and power that can
be cut. Every wait has a time-out; every process is ended by its id, also when the test itself is killed (the kernel's
parent-death signal). Standard library only.
"""
import base64
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'integration'))
from lab import LONG, SEED, Lab, Wrong, expect, main, sha_of  # noqa: E402,F401
import root  # noqa: E402

BIN = os.environ.get('CUMULUS_BIN', os.path.join(HERE, '../../build/release/bin'))
BUILT = os.environ.get('CUMULUS_GUEST', os.path.join(BIN, '../guest'))
PORTS = 4
HOST = '10.0.2.2'  # what QEMU's user network calls the machine it runs on


def bound_to_us(*words):
    """The command, such that it dies with this process."""
    return ['setpriv', '--pdeathsig', 'KILL', *map(str, words)]


def end(process):
    if process is not None and process.poll() is None:
        process.kill()
    if process is not None:
        process.wait()


def wait_for(condition, what, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        expect(time.monotonic() < deadline, f'{what}: not within {seconds:.0f} s')
        time.sleep(0.02)


def listening(path):
    """A unix socket is there a moment before anybody listens on it."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


class Channel:
    """One shell in the guest: one command at a time."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.left = b''
        self.number = 0

    def line(self, deadline, what):
        while b'\n' not in self.left:
            wait = deadline - time.monotonic()
            if wait <= 0 or not select.select([self.socket], [], [], wait)[0]:
                raise Wrong(f'guest: {what}: no answer in time; so far: {self.left[-500:]!r}')
            piece = self.socket.recv(1 << 16)
            if not piece:
                raise ConnectionError(f'guest: {what}: the guest is gone')
            self.left += piece
        line, _, self.left = self.left.partition(b'\n')
        return line

    def ready(self, deadline):
        expect(self.line(deadline, 'boot') == b'\x01END ready 0', 'guest: the agent says something else than ready')

    def begin(self, script):
        self.number += 1
        self.socket.sendall(f'{self.number} {base64.b64encode(script.encode()).decode()}\n'.encode())

    def lines(self, timeout, what):
        """Yields the command's lines as they come; at its end yields its exit code."""
        deadline = time.monotonic() + timeout
        marker = f'\x01END {self.number} '.encode()
        while True:
            line = self.line(deadline, what)
            if marker in line:
                rest, _, code = line.partition(marker)
                if rest:
                    yield rest.decode(errors='replace')
                yield int(code)
                return
            yield line.decode(errors='replace')


class Guest:
    """One machine. `disks` are QEMU -drive options without if= and id=, by the serial number the guest sees."""

    def __init__(self, directory, disks=None, forwards=None, memory='768M', accelerator=None, switch_to=''):
        self.directory, self.disks, self.forwards = directory, dict(disks or {}), dict(forwards or {})
        self.memory = memory
        self.accelerator = accelerator
        # no_timer_check: the emulated timer is late when the host is busy, and the kernel would panic over it.
        self.append = 'console=ttyS0 panic=-1 quiet no_timer_check' + (f' switch_to={switch_to}' if switch_to else '')
        self.qemu, self.channels, self.boots = None, [], 0

    def boot(self, seconds=120):
        kernel, first, programs = built()
        accelerator = self.accelerator or probed()
        self.boots += 1
        run = tempfile.mkdtemp(prefix='boot-', dir=self.directory)
        self.console = os.path.join(run, 'console')
        drives = {'programs': f'file={programs},format=raw,readonly=on', **self.disks}
        forwards = ''.join(f',hostfwd=tcp:127.0.0.1:{host}-:{inside}' for host, inside in self.forwards.items())
        words = ['qemu-system-x86_64', '-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-m', self.memory,
                 '-accel', accelerator, '-smp', 2, '-cpu', 'host' if accelerator == 'kvm' else 'max', '-M', 'pc',
                 '-kernel', kernel, '-initrd', first, '-append', self.append, '-serial', f'file:{self.console}', '-device', 'virtio-rng-pci',
                 '-netdev', f'user,id=net{forwards}', '-device', 'virtio-net-pci,netdev=net,romfile=', '-device', 'virtio-serial-pci']
        for number in range(PORTS):
            words += ['-chardev', f'socket,id=c{number},path={run}/port{number},server=on,wait=off',
                      '-device', f'virtserialport,chardev=c{number},name=agent{number}']
        for number, (serial, options) in enumerate(drives.items()):
            words += ['-drive', f'if=none,id=d{number},{options}', '-device', f'virtio-blk-pci,drive=d{number},serial={serial}']
        self.qemu = subprocess.Popen(bound_to_us(*words), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                     stderr=open(os.path.join(run, 'errors'), 'w'))
        deadline = time.monotonic() + seconds
        try:
            self.channels = []
            for number in range(PORTS):
                wait_for(lambda: self.connected(f'{run}/port{number}') or self.qemu.poll() is not None, 'QEMU starts', seconds)
                expect(self.qemu.poll() is None, f'QEMU ended: {open(os.path.join(run, "errors")).read()}')
            for channel in self.channels:
                channel.ready(deadline)
        except (Wrong, OSError) as error:
            said = open(os.path.join(run, 'errors')).read()
            shown = open(self.console, errors='replace').read()[-2000:] if os.path.exists(self.console) else ''
            self.cut()
            raise Wrong(f'guest: does not boot: {error}; QEMU says: {said}; its console: {shown}') from error
        return self

    def connected(self, path):
        """A socket is there a moment before it listens."""
        try:
            self.channels.append(Channel(path))
            return True
        except (FileNotFoundError, ConnectionRefusedError):
            return False

    def attempt(self, script, timeout=120, port=0):
        """(exit code, output) of a shell script in the guest."""
        channel = self.channels[port]
        channel.begin(script)
        *out, code = channel.lines(timeout, script[:120])
        return code, '\n'.join(out)

    def run(self, script, timeout=120, port=0):
        code, out = self.attempt(script, timeout, port)
        expect(code == 0, f'in the guest: {script}: exit code {code}: {out[-2000:]}')
        return out

    def cut(self):
        """The power fails: QEMU is killed and what the guest had in memory is gone."""
        end(self.qemu)
        for channel in self.channels:
            channel.socket.close()
        self.channels = []

    def power_off(self, words='umount -r -a -t ext4,xfs; sync; poweroff -f', seconds=60):
        """An orderly end: unmounts, writes out, and leaves."""
        self.channels[0].begin(words)
        try:
            self.qemu.wait(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            raise Wrong(f'guest: does not power off; its console: {open(self.console, errors="replace").read()[-2000:]}') from error
        self.cut()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is not None and self.qemu is not None and os.path.exists(self.console):
            print('--- the guest\'s console', open(self.console, errors='replace').read()[-3000:], sep='\n', file=sys.stderr)
        self.cut()
        return False


def built():
    extra = [path for path in [os.path.join(BIN, 'libforget_sync.so')] if os.path.exists(path)]
    return root.build(BUILT, BIN, extra)


def probed():
    """kvm where it boots the guest's kernel, else software emulation: a /dev/kvm can exist and still not run it."""
    built()
    note = os.path.join(BUILT, 'accelerator')
    if not os.path.exists(note):
        found = 'tcg'
        if os.access('/dev/kvm', os.R_OK | os.W_OK):
            work = tempfile.mkdtemp(prefix='cumulus-probe-')
            guest = Guest(work, accelerator='kvm')
            try:
                guest.boot(seconds=10)
                found = 'kvm'
            except Wrong:
                pass
            finally:
                guest.cut()
                shutil.rmtree(work)
        with open(note + '.new', 'w') as file:
            file.write(found)
        os.rename(note + '.new', note)
    return open(note).read()
