"""A writer of blocks that knows what it was promised: 4 KiB blocks that say their number and version, written in any order over
NBD from the host, flushed or with FUA. After a crash each block must be whole, and at least as new as its last flush."""
import random
import struct
import threading

import nbd

from guest import Wrong, expect

BLOCK = 4096
COUNT = 256


def content(block, version):
    if version == 0:
        return bytes(BLOCK)
    return struct.pack('<QQ', block, version) + random.Random(block << 32 | version).randbytes(BLOCK - 16)


class Blocks:
    def __init__(self, uri, seed):
        self.uri, self.random = uri, random.Random(seed)
        self.written, self.flushed = {}, {}  # block -> version
        self.version, self.flushes = 0, 0
        self.enough, self.problem = threading.Event(), None

    def connect(self):
        handle = nbd.NBD()
        handle.connect_uri(self.uri)
        return handle

    def write_until_cut(self):
        """Writes until the connection breaks."""
        handle = self.connect()
        try:
            while True:
                for _ in range(self.random.randint(1, 16)):
                    self.version += 1
                    block = self.random.randrange(COUNT)
                    alone = self.random.random() < 0.1
                    self.written[block] = self.version
                    handle.pwrite(content(block, self.version), block * BLOCK, nbd.CMD_FLAG_FUA if alone else 0)
                    if alone:
                        self.flushed[block] = self.version
                promised = dict(self.written)
                handle.flush()
                self.flushed.update(promised)
                self.flushes += 1
                if self.flushes % 5 == 0:
                    self.enough.set()
        except nbd.Error as error:
            if error.errno in ('EIO', 'ENOSPC', 'EPERM', 'EINVAL'):
                self.problem = f'the export refused: {error.string}'
                self.enough.set()

    def start(self):
        self.enough.clear()
        self.thread = threading.Thread(target=self.write_until_cut)
        self.thread.start()
        expect(self.enough.wait(120) and self.problem is None, f'no flush was answered: {self.problem}')

    def join(self):
        self.thread.join(30)
        expect(not self.thread.is_alive(), 'the client still waits for a server that is gone')
        expect(self.problem is None, self.problem)

    def compare(self):
        handle = self.connect()
        for block in range(COUNT):
            found = bytes(handle.pread(BLOCK, block * BLOCK))
            version = struct.unpack_from('<QQ', found)[1]
            promised, newest = self.flushed.get(block, 0), self.written.get(block, 0)
            if found != content(block, version):
                raise Wrong(f'block {block} is torn, or bytes that nobody wrote (it says version {version})')
            expect(promised <= version <= newest, f'block {block}: version {version}; flushed was {promised}, written {newest}')
            self.written[block] = self.flushed[block] = version  # from now on it stays so
        handle.shutdown()
