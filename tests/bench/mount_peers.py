"""What a mount is measured beside: libfuse's own pass-through example, and gocryptfs, over the same disk."""
import os
import shutil
import subprocess
import time

from lab import expect

EXAMPLES = '/usr/share/doc/libfuse3-dev/examples'


class Peer:
    """Serves `dir` from files in `source`."""

    def __init__(self, lab, name):
        self.source, self.dir = lab.path(f'{name}-below'), lab.path(name)
        os.mkdir(self.source)
        os.mkdir(self.dir)

    def start(self, *command):
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not os.path.ismount(self.dir):
            expect(self.process.poll() is None, f'{command[0]} ended: {self.process.returncode}')
            time.sleep(0.05)

    def end(self):
        subprocess.run(['umount', self.dir], check=False)
        self.process.wait()
        shutil.rmtree(self.source)
        os.rmdir(self.dir)


class PassThrough(Peer):
    """Compiled from the examples that Debian's libfuse3-dev ships."""
    FILES_MAX = 15_000  # it keeps one open for each that the kernel knows

    def __init__(self, lab):
        super().__init__(lab, 'through')
        program = lab.path('passthrough')
        flags = subprocess.run(['pkg-config', '--cflags', '--libs', 'fuse3'], capture_output=True, text=True, check=True).stdout.split()
        packed = os.path.join(EXAMPLES, 'passthrough_ll.c')
        expect(os.path.exists(packed), f'{packed} is missing: apt-get install libfuse3-dev')
        subprocess.run(['gcc', '-O2', '-w', f'-I{EXAMPLES}', packed, '-o', program, *flags], check=True)
        self.start(program, '-f', '-o', f'source={self.source},cache=auto,timeout=1', self.dir)


class Gocryptfs(Peer):
    """Encrypts files onto the same disk: no network, no parity, no log."""

    def __init__(self, lab):
        super().__init__(lab, 'gocryptfs')
        expect(shutil.which('gocryptfs'), 'gocryptfs is missing: packaging/deps bench')
        word = lab.path('gocryptfs-word')
        with open(word, 'w') as file:
            file.write('word\n')
        subprocess.run(['gocryptfs', '-q', '-init', '-scryptn', '10', '-passfile', word, self.source], check=True)
        self.start('gocryptfs', '-fg', '-q', '-nosyslog', '-passfile', word, self.source, self.dir)
