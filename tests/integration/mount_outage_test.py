#!/usr/bin/env python3
"""A mount while no miner answers, killed or silent: writes go on while the log has room, then wait; reads of what is only on
the miners end with EIO after outage-wait; whoever waits can be killed, and sees what was done later; and when the miners return all of it goes on."""
import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time

from lab import Lab, expect, main, sha_of

MIB = 1 << 20
SIZE = 160  # MiB that a writer writes, beyond a cache of 64 MiB
PATIENCE = 8  # seconds until a killed program must be gone

WRITER = '''
import os, random, sys
path, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
out = os.open(path, os.O_CREAT | os.O_WRONLY)
for number in range(first, last):
    data = random.Random(number).randbytes(1 << 20)
    at = number << 20
    while data:
        done = os.pwrite(out, data, at)
        data, at = data[done:], at + done
    os.write(1, b"%d\\n" % number)
os.close(out)
'''

# A change that a signal ends: who asked for it believes that it did not happen.
CHANGER = '''
import errno, os, signal, sys
top, what = sys.argv[1:]
class Alarm(Exception):
    pass
def ring(*_):
    raise Alarm
signal.signal(signal.SIGALRM, ring)
signal.alarm(1)
try:
    if what == "rename":
        os.rename(f"{top}/old", f"{top}/moved")
    elif what == "mkdir":
        os.mkdir(f"{top}/folder/made")
    elif what == "create":
        os.open(f"{top}/folder2/created", os.O_CREAT | os.O_WRONLY)
    elif what == "truncate":
        os.truncate(f"{top}/shrunk", 1000)
    elif what == "unlink":
        os.unlink(f"{top}/folder3/removed")
    elif what == "unlink_second":
        os.unlink(f"{top}/second")
    print("done")
except Alarm:
    print("interrupted")
'''
CHANGES = ('rename', 'mkdir', 'create', 'truncate', 'unlink', 'unlink_second')


def start_writer(path, first, last):
    process = subprocess.Popen([sys.executable, '-c', WRITER, path, str(first), str(last)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.set_blocking(process.stdout.fileno(), False)
    process.written = first
    return process


def watch(process):
    """How many blocks it has written by now."""
    while line := process.stdout.readline():
        process.written = int(line) + 1
    return process.written


def stalled(process, quiet=3.0):
    """Until it ended or wrote nothing for a while."""
    last, since, limit = watch(process), time.monotonic(), time.monotonic() + 120
    while process.poll() is None and time.monotonic() < since + quiet:
        expect(time.monotonic() < limit, 'the writer neither ends nor waits')
        time.sleep(0.05)
        if watch(process) != last:
            last, since = process.written, time.monotonic()
    return last


def ends_by(process, number, what):
    began = time.monotonic()
    process.send_signal(number)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        expect(False, f'{what} waits on {PATIENCE} s after signal {number}')
    print(f'    {what} ended {time.monotonic() - began:.1f} s after the signal', flush=True)


class Miners:
    """All of them away, and back."""

    def __init__(self, lab, silent):
        self.lab, self.silent = lab, silent

    def each(self, number):
        for index in range(1, self.lab.miners + 1):
            with open(os.path.join(self.lab.net, f'miner-{index}.json')) as state:
                os.kill(json.load(state)['pid'], number)

    def away(self):
        self.turn(signal.SIGSTOP, 'stop')

    def back(self):
        self.turn(signal.SIGCONT, 'start')

    def turn(self, silently, aloud):
        if self.silent:
            self.each(silently)
        else:
            for number in range(1, self.lab.miners + 1):
                self.lab.miner(aloud, number)


def mount_with_small_cache(lab):
    """Where a volume is mounted whose cache a writer soon fills."""
    lab.up()
    lab.run('volume', 'set', lab.volume, 'cache-size=64M')
    top = lab.path('mnt')
    os.mkdir(top)
    lab.run('mount', lab.volume, top)
    return top


def sha_of_written():
    """Of all that the writers write."""
    digest = hashlib.sha256()
    for number in range(SIZE):
        digest.update(random.Random(number).randbytes(MIB))
    return digest.hexdigest()


def outage(silent):
    with Lab() as lab:
        top = mount_with_small_cache(lab)
        miners = Miners(lab, silent)
        cold = random.Random(7).randbytes(6 * MIB)
        with open(f'{top}/cold', 'wb') as file:
            file.write(cold)
        lab.run('umount', top, '--sync')
        lab.drop_cache()
        lab.run('mount', lab.volume, top)
        try:
            miners.away()
            during(lab, top)
        finally:
            miners.back()
        afterwards(lab, top, cold)
        lab.run('umount', top, '--sync', timeout=300)
        lab.drop_cache()
        lab.check_clean(data=True)


def during(lab, top):
    began = time.monotonic()
    try:
        with open(f'{top}/cold', 'rb') as file:
            file.read(MIB)
        expect(False, 'read from no miner at all')
    except OSError as error:
        waited = time.monotonic() - began
        expect(error.errno == errno.EIO and 2 < waited < 25, f'reading what no miner gives: {error} after {waited:.1f} s, outage-wait is 4 s')
    reader = subprocess.Popen(['cat', f'{top}/cold'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.5)
    expect(reader.poll() is None, 'a read did not wait')
    ends_by(reader, signal.SIGTERM, 'a reader')
    writer = start_writer(f'{top}/big', 0, SIZE)
    written = stalled(writer)
    expect(writer.poll() is None, f'the writer ended after {written} MiB: {writer.stderr.read() if writer.poll() is not None else b""}')
    expect(16 <= written < SIZE, f'a writer waits after {written} MiB, the cache has 64')
    print(f'    a writer waits after {written} MiB', flush=True)
    expect(len(os.listdir(top)) == 2 and os.stat(f'{top}/cold').st_size == 6 * MIB, 'names and attributes while a writer waits')
    ends_by(writer, signal.SIGTERM, 'a writer')
    status = lab.status()
    expect(status['writable'], f'read-only after an outage: {status}')


def afterwards(lab, top, cold):
    """During the outage a second one went on where the first was; it is not told of anything."""
    with open(f'{top}/cold', 'rb') as file:
        expect(file.read() == cold, 'the cold file after the outage')
    writer = start_writer(f'{top}/big', 0, SIZE)
    try:
        writer.wait(300)
    except subprocess.TimeoutExpired:
        written = stalled(writer)
        writer.kill()
        expect(False, f'the writer waits at {written} MiB though the miners are back')
    expect(writer.returncode == 0, f'a writer after the outage: {writer.stderr.read().decode()}')
    expect(sha_of(f'{top}/big') == sha_of_written(), 'other bytes than were written')


def miners_killed():
    outage(silent=False)


def miners_silent():
    outage(silent=True)


def writer_goes_on():
    """A writer that waits when the miners go away goes on when they return, and hears nothing of it."""
    with Lab() as lab:
        top = mount_with_small_cache(lab)
        miners = Miners(lab, False)
        miners.away()
        writer = start_writer(f'{top}/big', 0, SIZE)
        written = stalled(writer)
        expect(writer.poll() is None and written < SIZE, f'the writer does not wait: {written} MiB')
        miners.back()
        expect(writer.wait(120) == 0, f'the writer: {writer.stderr.read().decode()}')
        lab.run('umount', top, '--sync', timeout=300)
        lab.drop_cache()
        lab.run('mount', lab.volume, top)
        expect(sha_of(f'{top}/big') == sha_of_written(), 'other bytes than were written')
        lab.run('umount', top)
        lab.check_clean(data=True)


def truth_of(top):
    """What stat and listings show of what the changers changed."""
    def there(name):
        return os.path.lexists(f'{top}/{name}')
    return {'rename': (there('old'), there('moved')),
            'mkdir': (there('folder/made'), os.listdir(f'{top}/folder'), os.stat(f'{top}/folder').st_nlink),
            'create': (there('folder2/created'), os.listdir(f'{top}/folder2')),
            'truncate': (os.stat(f'{top}/shrunk').st_size, len(open(f'{top}/shrunk', 'rb').read())),
            'unlink': (there('folder3/removed'), os.listdir(f'{top}/folder3')),
            'unlink_second': (there('second'), os.stat(f'{top}/first').st_nlink)}


def interrupted_changes():
    """Changes that wait while the log is full and are given up by who asked for them happen later: then names, listings,
    attributes and bytes show them."""
    with Lab() as lab:
        top = mount_with_small_cache(lab)
        for name in ('folder', 'folder2', 'folder3'):
            os.mkdir(f'{top}/{name}')
        for name in ('old', 'shrunk', 'folder3/removed', 'first'):
            with open(f'{top}/{name}', 'wb') as file:
                file.write(b'x' * 5000)
        os.link(f'{top}/first', f'{top}/second')
        miners = Miners(lab, False)
        truth_of(top)  # what the kernel remembers
        try:
            miners.away()
            writer = start_writer(f'{top}/big', 0, SIZE)
            written = stalled(writer)
            expect(writer.poll() is None and written < SIZE, f'the writer does not wait: {written} MiB')
            told = {}
            for what in CHANGES:
                done = subprocess.run([sys.executable, '-c', CHANGER, top, what], capture_output=True, text=True, timeout=60)
                told[what] = done.stdout.strip() or done.stderr
            print(f'    {told}', flush=True)
            expect(set(told.values()) == {'interrupted'}, f'changes while the log is full: {told}')
            expect(not os.path.lexists(f'{top}/moved') and not os.path.lexists(f'{top}/folder/made'), 'a change is seen before it happened')
        finally:
            miners.back()
        expect(writer.wait(120) == 0, f'the writer: {writer.stderr.read().decode()}')
        after = {'rename': (False, True), 'mkdir': (True, ['made'], 3), 'create': (True, ['created']), 'truncate': (1000, 1000), 'unlink': (False, []),
                 'unlink_second': (False, 1)}
        limit = time.monotonic() + 15
        while (seen := truth_of(top)) != after and time.monotonic() < limit:
            time.sleep(0.2)
        expect(seen == after, f'after changes that nobody waited for: {seen}')
        there = 1 + sum(len(folders) + len(files) for _, folders, files in os.walk(top))
        counted = lab.json('fs', 'quota', lab.volume)['inodes']
        expect(counted == there, f'{counted} inodes are counted, {there} are there: what was removed takes its place')
        lab.run('umount', top, '--sync', timeout=300)
        lab.drop_cache()
        lab.run('mount', lab.volume, top)
        expect(truth_of(top) == after, 'mounted anew')
        lab.run('umount', top)
        lab.check_clean(data=True)


if __name__ == '__main__':
    main(miners_killed, miners_silent, writer_goes_on, interrupted_changes)
