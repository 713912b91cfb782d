"""A disk's server is killed (kill -9) under load, again and again: what was flushed is there, nothing is torn within 4 KiB; and
clients that connect again go on: libnbd, which sends what was not answered once more, and QEMU's own (reconnect-delay)."""
import os
import random
import select
import signal
import struct
import subprocess
import threading
import time

import nbd
from lab import LONG, Lab, expect, main
from nbd_test import Disk

BLOCK = 4096
BLOCKS = 1024
DEPTH = 24


def content(stamp):
    return struct.pack('>Q', stamp) * (BLOCK // 8)


class Load:
    """Writes of 4 KiB on two connections, many in flight, a flush or FUA now and then; knows for each block what must be there.
    A block has one write in flight at most, so that its newest answered write is known."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.stamp = self.flushes = self.life = 0
        self.answered = dict.fromkeys(range(BLOCKS), 0)
        self.durable = dict(self.answered)
        self.unanswered = {}  # block -> stamps that may be there too

    def connect(self, disk):
        self.handles = [disk.connect(), disk.connect()]
        self.in_flight, self.lost = 0, None
        self.life += 1  # what was in flight on the connections before is called back when they are freed

    def run(self, enough):
        """Until enough(self), when nothing is left in flight, or until the server is gone."""
        while not self.lost and not (enough(self) and self.in_flight == 0):
            try:
                while self.in_flight < DEPTH and not enough(self):
                    self.send(self.random.choice(self.handles))
                self.wait()
            except nbd.Error as error:
                self.lost = error

    def send(self, handle):
        if self.random.randrange(30) == 0:
            promised = dict(self.answered)
            self.in_flight += 1
            life = self.life
            handle.aio_flush(completion=lambda error: self.flushed(promised, life, error))
        else:
            block = self.random.randrange(BLOCKS)
            if block not in self.unanswered:
                self.stamp += 1
                self.write(handle, block, self.stamp)

    def write(self, handle, block, stamp):
        fua = nbd.CMD_FLAG_FUA if self.random.randrange(20) == 0 else 0
        self.unanswered[block] = {*self.unanswered.get(block, ()), stamp}
        self.in_flight += 1
        life = self.life
        buffer = nbd.Buffer.from_bytearray(bytearray(content(stamp)))
        handle.aio_pwrite(buffer, block * BLOCK, completion=lambda error: self.wrote(block, stamp, fua, life, error), flags=fua)

    def done(self, life, error):
        if life != self.life:
            return False
        self.in_flight -= 1
        if error.value:
            self.lost = f'error {error.value}'
        return error.value == 0

    def wrote(self, block, stamp, fua, life, error):
        if not self.done(life, error):
            return 1
        self.answered[block] = stamp
        del self.unanswered[block]
        if fua:
            self.durable[block] = stamp
        return 1

    def flushed(self, promised, life, error):
        if not self.done(life, error):
            return 1
        self.flushes += 1
        for block, stamp in promised.items():
            self.durable[block] = max(self.durable[block], stamp)
        return 1

    def wait(self):
        poll = select.poll()
        by_descriptor = {handle.aio_get_fd(): handle for handle in self.handles}
        for descriptor, handle in by_descriptor.items():
            way = handle.aio_get_direction()
            poll.register(descriptor, (select.POLLIN if way & nbd.AIO_DIRECTION_READ else 0)
                          | (select.POLLOUT if way & nbd.AIO_DIRECTION_WRITE else 0))
        for descriptor, events in poll.poll(1000):
            handle = by_descriptor[descriptor]
            if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                handle.aio_notify_read()
            if events & select.POLLOUT and handle.aio_get_direction() & nbd.AIO_DIRECTION_WRITE:
                handle.aio_notify_write()
            if handle.aio_is_dead() or handle.aio_is_closed():
                self.lost = 'the connection ended'

    def compare(self, disk, answered_are_there):
        """Every block is whole and some version that it may have; from now on that is what it is."""
        reader = disk.connect()
        bytes_of = reader.pread(BLOCKS * BLOCK, 0)
        reader.shutdown()
        older = 0
        for block in range(BLOCKS):
            words = set(struct.unpack('>512Q', bytes_of[block * BLOCK:(block + 1) * BLOCK]))
            expect(len(words) == 1, f'block {block} is torn: {sorted(words)[:3]}')
            found = words.pop()
            least = self.answered[block] if answered_are_there else self.durable[block]
            expect(found >= least, f'block {block}: {found}, but {least} was {"answered" if answered_are_there else "flushed"}')
            newest = max({self.answered[block], *self.unanswered.get(block, ())})
            expect(found <= newest, f'block {block}: {found}, which nobody wrote there')
            older += found < self.answered[block]
            if not answered_are_there:
                self.answered[block] = self.durable[block] = found
        if not answered_are_there:
            self.unanswered = {}
        return older


def kill_under_load(lab, disk, load):
    """kill -9 at any moment while requests are in flight on both connections; returns when the daemon is gone."""
    load.connect(disk)
    pid = lab.daemon_pid()
    killer = threading.Timer(load.random.uniform(0.02, 0.3), os.kill, (pid, signal.SIGKILL))
    killer.start()
    load.run(lambda _: False)
    killer.join()
    lab.gone(pid)


def killed():
    """kill -9 under writes and flushes on two connections: every flushed write is there, none torn within 4 KiB."""
    with Lab().up() as lab:
        disk = Disk(lab)
        load = Load(lab.random.random())
        lives = 100 if LONG else 4
        lost = 0
        for _ in range(lives):
            kill_under_load(lab, disk, load)
            disk.serve()
            lost += load.compare(disk, answered_are_there=False)
        expect(load.flushes > lives, f'{load.flushes} flushes were answered: the test proves little')
        lab.check_clean()
        print(f'  {lives} kills, {load.stamp} writes, {load.flushes} flushes answered; {lost} writes that nobody had flushed were lost')


def libnbd_reconnects():
    """A client that connects again and sends what was not answered once more has lost nothing that was answered, flushed or not."""
    with Lab().up() as lab:
        disk = Disk(lab, '--reconnect-safe')
        load = Load(lab.random.random())
        lives = 30 if LONG else 4
        for _ in range(lives):
            kill_under_load(lab, disk, load)
            disk.serve('--reconnect-safe')
            load.compare(disk, answered_are_there=True)
            load.connect(disk)
            for block, stamps in list(load.unanswered.items()):
                load.write(load.handles[0], block, max(stamps))
            load.run(lambda _: True)
            expect(not load.unanswered and not load.lost, f'what was sent again was not answered: {load.unanswered}, {load.lost}')
            load.handles[1].flush()
            load.compare(disk, answered_are_there=True)
        lab.check_clean()
        print(f'  {lives} kills, {load.stamp} writes, {load.flushes} flushes answered')


def qemu_reconnects():
    """QEMU's client, with the server killed under it: no command fails, and the disk holds what was written."""
    with Lab().up() as lab:
        disk = Disk(lab, '--reconnect-safe')
        where = (f'driver=raw,file.driver=nbd,file.server.type=unix,file.server.path={disk.socket},file.export=disk,'
                 'file.reconnect-delay=120,cache.direct=on')
        client = subprocess.Popen(['qemu-io', '--image-opts', where], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, bufsize=1)
        said, answered, model = [], threading.Semaphore(0), {}

        def read():
            for line in client.stdout:
                said.append(line)
                if 'wrote' in line or 'error' in line.lower():
                    answered.release()
        reader = threading.Thread(target=read)
        reader.start()

        def command(words):
            client.stdin.write(words + '\n')
            client.stdin.flush()

        def write():
            block, pattern = lab.random.randrange(BLOCKS), lab.random.randrange(1, 256)
            model[block] = pattern
            if lab.random.randrange(8) == 0:
                command('flush')
            command(f'write {lab.random.choice(["", "-f"])} -P {pattern} {block * BLOCK} {BLOCK}')
            until = time.monotonic() + 60
            while not answered.acquire(timeout=0.2):
                expect(time.monotonic() < until and client.poll() is None, f'QEMU answers no more: {said[-3:]}')
                command('')  # a line that came with the one before is looked at when the next one comes
            return not said or 'error' not in said[-1].lower()
        lives = 20 if LONG else 3
        for _ in range(lives):
            pid = lab.daemon_pid()
            killer = threading.Timer(lab.random.uniform(0.05, 0.3), os.kill, (pid, signal.SIGKILL))
            killer.start()
            server = threading.Thread(target=lambda: (killer.join(), lab.gone(pid), disk.serve('--reconnect-safe')))
            server.start()
            while server.is_alive():
                expect(write(), f'the client saw the server die: {said[-1]}')
            for _ in range(20):
                write()
        command('flush')
        client.stdin.close()
        expect(client.wait(120) == 0, f'qemu-io: {said[-5:]}')
        reader.join()
        expect(not [line for line in said if 'error' in line.lower()], 'the client saw the server die')
        bytes_of = disk.connect().pread(BLOCKS * BLOCK, 0)
        for block, pattern in model.items():
            found = bytes_of[block * BLOCK:(block + 1) * BLOCK]
            expect(found == bytes([pattern]) * BLOCK, f'block {block}: {found[:8]}, {pattern} was written')
        lab.check_clean()
        print(f'  {lives} kills, {sum("wrote" in line for line in said)} writes')


if __name__ == '__main__':
    main(killed, libnbd_reconnects, qemu_reconnects)
