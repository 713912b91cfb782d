"""What serves a guest's disk over NBD: ours, and nbdkit's for comparison and canaries. All have the same verbs: start, kill
(-9), drive (QEMU's words), uri, allocated (bytes that base:allocation does not show as holes)."""
import json
import os
import subprocess

from guest import bound_to_us, end, listening, wait_for

RECONNECT_SECONDS = 120


class Export:
    name = ''

    def __init__(self, directory, disk):
        self.disk = disk
        self.socket = os.path.join(directory, f'{disk}.socket')

    def drive(self, cache='none'):
        return (f'driver=raw,file.driver=nbd,file.server.type=unix,file.server.path={self.socket},file.export={self.name},'
                f'file.reconnect-delay={RECONNECT_SECONDS},discard=unmap,cache={cache}')

    @property
    def uri(self):
        return f'nbd+unix:///{self.name}?socket={self.socket}'

    def extents(self):
        shown = subprocess.run(['nbdinfo', '--json', '--map', self.uri], check=True, stdout=subprocess.PIPE, timeout=120).stdout
        return json.loads(shown)

    def allocated(self):
        return sum(extent['length'] for extent in self.extents() if not extent['type'] & 1)


class Nbdkit(Export):
    """nbdkit with a plugin: `file` keeps what it is told, `memory` forgets all when it is killed."""

    def __init__(self, directory, disk, size, plugin='file'):
        super().__init__(directory, disk)
        self.process = None
        if plugin == 'file':
            path = os.path.join(directory, f'{disk}.raw')
            with open(path, 'wb') as file:
                file.truncate(size)
            self.words = ['file', path]
        else:
            self.words = ['memory', str(size)]

    def start(self):
        if os.path.exists(self.socket):
            os.remove(self.socket)
        self.process = subprocess.Popen(bound_to_us('nbdkit', '--foreground', '--unix', self.socket, *self.words))
        wait_for(lambda: listening(self.socket), 'nbdkit serves')
        return self

    def kill(self):
        end(self.process)


class Cumulus(Export):
    """An image of the laboratory's volume. Killing it kills the volume's daemon, and with it every export of the volume."""

    def __init__(self, lab, disk, size, create=True):
        super().__init__(lab.dir, disk)
        self.lab, self.name = lab, disk
        if create:
            lab.run('image', 'create', f'{lab.volume}/{disk}', '--size', size)

    def start(self):
        self.lab.run('nbd', 'serve', f'{self.lab.volume}/{self.disk}', '--socket', self.socket, '--reconnect-safe')
        wait_for(lambda: listening(self.socket), 'the export is served')
        return self

    def kill(self):
        self.lab.kill_daemon()
