#!/usr/bin/env python3
"""Every way to change and read the bytes of a file, at random, against a plain model: writes, shared maps, direct I/O,
truncation, holes, zeroing, preallocation, copies by reference, dropped pages, reopening. The daemon is killed in the
midst: each page must then be as it was at the last fsync or at a moment since. By default and with write-back.
CUMULUS_TEST_ROUNDS sets how many daemons are killed (60 in the long form)."""
import errno
import mmap
import os
import random
import signal
import threading

import posix_calls as posix
from lab import LONG, SEED, Lab, Wrong, expect, main

ROUNDS = int(os.environ.get('CUMULUS_TEST_ROUNDS', 60 if LONG else 2))
FILES = 3
MOST = 300_000  # bytes of a file
UNSYNCED = 40  # operations after which somebody calls fsync: each keeps a state
PAGE = 4096
GONE = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)  # what a killed daemon leaves


class Model:
    """A file's bytes, and what they were at each moment since they were last made durable."""

    def __init__(self):
        self.bytes, self.states, self.mapped = b'', [b''], False

    def becomes(self, data):
        self.bytes = bytes(data)
        self.states.append(self.bytes)

    def synced(self):
        self.states, self.mapped = [self.bytes], False

    def put(self, at, data):
        self.becomes(self.bytes[:at].ljust(at, b'\0') + data + self.bytes[at + len(data):])

    def resize(self, size):
        self.becomes(self.bytes[:size].ljust(size, b'\0'))

    @staticmethod
    def between(found, before, after):
        if not min(len(before), len(after)) <= len(found) <= max(len(before), len(after)):
            return False
        before, after = before.ljust(len(found), b'\0'), after.ljust(len(found), b'\0')
        return all(found[at:at + PAGE] in (before[at:at + PAGE][:len(found) - at], after[at:at + PAGE][:len(found) - at]) for at in range(0, len(found), PAGE))

    def judge(self, found, exact, told):
        """After a kill. It is between one operation and the next (`exact`: the kernel may hand a write over in parts); with write-back each
        page by itself is of one moment, and where it was written through a map, each byte."""
        sizes = [len(state) for state in self.states]
        if exact and not self.mapped:
            expect(any(self.between(found, *pair) for pair in zip(self.states, self.states[1:] + self.states[-1:])),
                   f'{told}: {len(found)} bytes are like none of {len(self.states)} moments since the last fsync, {sizes}')
        expect(min(sizes) <= len(found) <= max(sizes), f'{told}: {len(found)} bytes, since the last fsync there were {sizes}')
        padded = [state.ljust(MOST + PAGE, b'\0') for state in self.states]
        for at in range(0, len(found), PAGE):
            page = found[at:at + PAGE]
            if any(state[at:at + len(page)] == page for state in padded):
                continue
            expect(self.mapped, f'{told}: page {at // PAGE} is like at no moment since the last fsync')
            for index, byte in enumerate(page):
                expect(any(state[at + index] == byte for state in padded), f'{told}: byte {at + index} is {byte}, as at no moment since the last fsync')


class Worker:
    """Files of its own in one folder; everything that it reads it compares."""

    def __init__(self, top, seed):
        self.random, self.top, self.story = random.Random(seed), top, []
        self.models, self.fds, self.direct = [Model() for _ in range(FILES)], [None] * FILES, [None] * FILES
        self.counter, self.killed, self.mapping = {}, False, threading.Lock()

    def path(self, number):
        return os.path.join(self.top, f'f{number}')

    def again(self, number):
        """The same file on the same mount, also when another is there already."""
        return f'/proc/self/fd/{self.fds[number]}'

    def open(self):
        for number in range(FILES):
            self.fds[number] = os.open(self.path(number), os.O_RDWR | os.O_CREAT, 0o644)
            self.direct[number] = os.open(self.path(number), os.O_RDWR | os.O_DIRECT)

    def close(self):
        for number in range(FILES):
            for descriptor in (self.fds[number], self.direct[number]):
                try:
                    os.close(descriptor)
                except OSError as error:
                    expect(error.errno in GONE, f'close: {error}')

    # --- the operations; each tells its words before it acts ---
    def step(self):
        number = self.random.randrange(FILES)
        model = self.models[number]
        if len(model.states) > UNSYNCED:
            return self.fsync(number)
        if self.killed:
            raise OSError(errno.ENOTCONN, 'killed')
        what = self.random.choices([self.write, self.append, self.direct_write, self.map_write, self.truncate, self.punch, self.zero, self.allocate,
                                    self.copy, self.read, self.direct_read, self.map_read, self.drop_pages, self.reopen, self.fsync, self.look],
                                   [20, 5, 8, 10, 9, 7, 6, 4, 9, 12, 4, 6, 4, 2, 3, 4])[0]
        self.counter[what.__name__] = self.counter.get(what.__name__, 0) + 1
        if what not in (self.map_write, self.map_read):
            return what(number)
        with self.mapping:  # a map whose daemon is gone ends its program
            if self.killed:
                raise OSError(errno.ENOTCONN, 'killed')
            return what(number)

    def kill(self, pid):
        with self.mapping:
            self.killed = True
            os.kill(pid, signal.SIGKILL)

    def tell(self, *words):
        self.story.append(' '.join(map(str, words)))

    def range(self, most=MOST, unit=1):
        """Often about a page's or a chunk's edge."""
        at = self.random.randrange(most - unit)
        if self.random.random() < 0.3:
            at = at // PAGE * PAGE
        length = self.random.choice([1, 7, 511, 512, PAGE - 1, PAGE, PAGE + 1, 20_000, 65_536, 130_000, self.random.randrange(1, 100_000)])
        at, length = at // unit * unit, -(-length // unit) * unit
        return at, max(unit, min(length, (most - at) // unit * unit))

    def data(self, length):
        return self.random.randbytes(length)

    def all_of(self, done, length):
        if done != length and self.killed:
            raise OSError(errno.ENOTCONN, 'killed')
        expect(done == length, f'{done} bytes instead of {length}')

    def write(self, number):
        at, length = self.range()
        self.tell('write', number, at, length)
        model, data = self.models[number], self.data(length)
        self.models[number].put(at, data)
        self.all_of(os.pwrite(self.fds[number], data, at), length)
        self.check_size(number)

    def append(self, number):
        model = self.models[number]
        length = min(self.range()[1], MOST - len(model.bytes))
        if length <= 0:
            return self.truncate(number)
        self.tell('append', number, length)
        data = self.data(length)
        model.put(len(model.bytes), data)
        descriptor = os.open(self.again(number), os.O_WRONLY | os.O_APPEND)
        try:
            self.all_of(os.write(descriptor, data), length)
        finally:
            os.close(descriptor)

    def direct_write(self, number):
        at, length = self.range(MOST, PAGE)
        self.tell('direct_write', number, at, length)
        data = self.data(length)
        self.models[number].put(at, data)
        with mmap.mmap(-1, length) as aligned:
            aligned[:] = data
            self.all_of(os.pwritev(self.direct[number], [aligned], at), length)

    def map_write(self, number):
        model = self.models[number]
        if not model.bytes:
            return self.write(number)
        at, length = self.range(max(len(model.bytes), 2))
        length = min(length, len(model.bytes) - at)
        self.tell('map_write', number, at, length)
        data = self.data(length)
        model.put(at, data)
        model.mapped = True
        with mmap.mmap(self.fds[number], len(model.bytes)) as shared:
            shared[at:at + length] = data
            then = self.random.random()
            if then < 0.3:
                shared.flush()
            elif then < 0.6:
                self.look(number)

    def truncate(self, number):
        model = self.models[number]
        size = self.random.choice([0, 1, PAGE, len(model.bytes) // 2, max(0, len(model.bytes) - 1), self.random.randrange(MOST)])
        self.tell('truncate', number, size)
        model.resize(size)
        os.ftruncate(self.fds[number], size)
        self.check_size(number)

    def punch(self, number):
        at, length = self.range()
        self.tell('punch', number, at, length)
        model = self.models[number]
        end = min(at + length, len(model.bytes))
        if at < end:
            model.put(at, bytes(end - at))
        posix.fallocate(self.fds[number], posix.PUNCH_HOLE | posix.KEEP_SIZE, at, length)

    def zero(self, number):
        at, length = self.range()
        keep = self.random.random() < 0.5
        self.tell('zero', number, at, length, keep)
        model = self.models[number]
        end = min(at + length, len(model.bytes)) if keep else at + length
        if at < end:
            model.put(at, bytes(end - at))
        posix.fallocate(self.fds[number], posix.ZERO_RANGE | (posix.KEEP_SIZE if keep else 0), at, length)
        self.check_size(number)

    def allocate(self, number):
        at, length = self.range()
        self.tell('allocate', number, at, length)
        self.models[number].resize(max(len(self.models[number].bytes), at + length))
        posix.fallocate(self.fds[number], 0, at, length)
        self.check_size(number)

    def copy(self, number):
        source = self.random.randrange(FILES)
        at, length = self.range()
        to = self.random.choice([at, self.range()[0]])
        length = max(0, min(length, len(self.models[source].bytes) - at, MOST - to))
        if length == 0 or (source == number and abs(at - to) < length):
            return self.read(number)
        self.tell('copy', source, at, number, to, length)
        self.models[number].put(to, self.models[source].bytes[at:at + length])
        self.all_of(posix.copy_range(self.fds[source], at, self.fds[number], to, length), length)
        self.check_size(number)

    def read(self, number):
        at, length = self.range()
        self.tell('read', number, at, length)
        got = os.pread(self.fds[number], length, at)
        if len(got) < len(self.models[number].bytes[at:at + length]):
            # What was cached, and no more, when the daemon was killed in the middle: then the rest says so.
            os.pread(self.fds[number], length - len(got), at + len(got))
        self.compare(number, got, at, length)

    def direct_read(self, number):
        at, length = self.range(MOST, PAGE)
        self.tell('direct_read', number, at, length)
        with mmap.mmap(-1, length) as aligned:
            got = os.preadv(self.direct[number], [aligned], at)
            self.compare(number, aligned[:got], at, length)

    def map_read(self, number):
        size = len(self.models[number].bytes)
        if size == 0:
            return self.read(number)
        self.tell('map_read', number)
        with mmap.mmap(self.fds[number], size, prot=mmap.PROT_READ) as shared:
            self.compare(number, shared[:], 0, size)

    def drop_pages(self, number):
        self.tell('drop_pages', number)
        if self.random.random() < 0.5:
            self.fsync(number)
        os.posix_fadvise(self.fds[number], 0, 0, os.POSIX_FADV_DONTNEED)
        self.compare(number, os.pread(self.fds[number], MOST, 0), 0, MOST)

    def reopen(self, number):
        self.tell('reopen', number)
        opened = os.open(self.again(number), os.O_RDWR)
        os.close(self.fds[number])
        self.fds[number] = opened

    def fsync(self, number):
        self.tell('fsync', number)
        (os.fsync if self.random.random() < 0.5 else os.fdatasync)(self.fds[number])
        self.models[number].synced()

    def look(self, number):
        """Holes hold nothing: between what SEEK_DATA and SEEK_HOLE name there are only zeros."""
        model, at, descriptor = self.models[number], 0, self.fds[number]
        self.tell('look', number)
        while at < len(model.bytes):
            try:
                data = os.lseek(descriptor, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                data = len(model.bytes)
            expect(not any(model.bytes[at:data]), f'{at} to {data} is no hole')
            at = os.lseek(descriptor, data, os.SEEK_HOLE) if data < len(model.bytes) else data
            expect(at > data or data == len(model.bytes), f'an empty stretch of data at {data}')
        self.check_size(number)

    def check_size(self, number):
        size = os.fstat(self.fds[number]).st_size
        expect(size == len(self.models[number].bytes), f'{size} bytes instead of {len(self.models[number].bytes)}')

    def compare(self, number, got, at, length):
        expected = self.models[number].bytes[at:at + length]
        expect(len(got) == len(expected), f'read {len(got)} bytes instead of {len(expected)}')
        if got != expected:
            first = next(index for index in range(len(got)) if got[index] != expected[index])
            last = next(index for index in reversed(range(len(got))) if got[index] != expected[index])
            expect(False, f'bytes {at + first} to {at + last} of file {number} are wrong')


def told(worker):
    return f'CUMULUS_SEED={SEED}, the last of {len(worker.story)} operations: ' + '; '.join(worker.story[-12:])


def whole(worker, why):
    """Every file is the model's, to the last byte."""
    for number, model in enumerate(worker.models):
        with open(worker.path(number), 'rb') as file:
            found = file.read()
        expect(found == model.bytes, f'file {number} {why}: {len(found)} bytes that are not the {len(model.bytes)} written; {told(worker)}')


def until_killed(lab, worker):
    """Works until the daemon is killed under it. Another thread recovers the mount: a call may be waiting that the kill has left alone."""
    pid, failed = lab.daemon_pid(), []

    def kill_and_recover():
        try:
            worker.kill(pid)
            lab.gone(pid)
            lab.run('mount', '--recover', worker.top)
        except Wrong as error:
            failed.append(error)
    timer = threading.Timer(lab.random.uniform(0.05, 0.8), kill_and_recover)
    timer.start()
    try:
        while True:
            worker.step()
    except OSError as error:
        expect(worker.killed and error.errno in GONE, f'{error}; {told(worker)}')
    finally:
        timer.join()
    worker.close()
    expect(not failed, failed)


def judge(worker, exact):
    for number, model in enumerate(worker.models):
        with open(worker.path(number), 'rb') as file:
            found = file.read()
        model.judge(found, exact, f'file {number} after a kill; {told(worker)}')
        model.bytes = found
        model.synced()


def every_way_to_write(options, number):
    with Lab() as lab:
        top = lab.path('m')
        os.mkdir(top)
        lab.up().run('mount', lab.volume, top, *options)
        worker = Worker(top, SEED * 2 + number)
        worker.open()
        for _ in range(ROUNDS):
            until_killed(lab, worker)
            worker.killed = False
            judge(worker, not options)
            worker.open()
            try:
                for _ in range(150):
                    worker.step()
            except Exception:
                print(told(worker), flush=True)
                raise
            whole(worker, 'as it is')
        worker.close()
        lab.run('umount', top, '--sync')
        lab.check_clean(data=True)
        lab.drop_cache()
        lab.run('mount', lab.volume, top, *options)
        whole(worker, 'as it comes from the miners')
        lab.run('umount', top)
        print(f'  {len(worker.story)} operations: {worker.counter}')


def bytes_by_default():
    every_way_to_write([], 0)


def bytes_with_writeback():
    every_way_to_write(['-o', 'writeback'], 1)


if __name__ == '__main__':
    main(bytes_by_default, bytes_with_writeback)
