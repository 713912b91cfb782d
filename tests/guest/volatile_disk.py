"""An nbdkit plugin: a disk with a volatile write cache, as disks have. What was written since the last flush lies in memory;
when the machine's connection ends, its power has failed: of each unflushed sector either all or nothing reached the medium,
each decided by itself, so that writes are lost, reordered and torn at 512 bytes. What was flushed is in the file.

    nbdkit python volatile_disk.py medium=FILE seed=N record=FILE

record gets a line at each end of power: how many sectors were lost, and how many kept. The medium is the host's page
cache: the host's own power is not what fails here.
"""
import os
import random

import nbdkit

API_VERSION = 2
BLOCK = 4096
SECTOR = 512
CACHE_MAX = 64 << 20  # then everything is written out, as a real cache that is full would

settings = {}
state = {}
unflushed = {}  # block number -> bytearray
written = {}  # block number -> set of sectors written since the last flush


def config(key, value):
    settings[key] = value


def config_complete():
    state['file'] = os.open(settings['medium'], os.O_RDWR)
    state['size'] = os.fstat(state['file']).st_size
    state['random'] = random.Random(int(settings['seed']))


def open(readonly):  # noqa: A001  (nbdkit's name)
    return 1


def get_size(handle):
    return state['size']


def can_flush(handle):
    return True


def can_fua(handle):
    return nbdkit.FUA_EMULATE


def pread(handle, buffer, offset, flags):
    view = memoryview(buffer)
    done = 0
    while done < len(view):
        number, within = divmod(offset + done, BLOCK)
        if number not in unflushed:
            length = BLOCK - within
            while done + length < len(view) and (offset + done + length) // BLOCK not in unflushed:
                length += BLOCK
            length = min(length, len(view) - done)
            view[done:done + length] = os.pread(state['file'], length, offset + done)
        else:
            length = min(BLOCK - within, len(view) - done)
            view[done:done + length] = unflushed[number][within:within + length]
        done += length


def pwrite(handle, buffer, offset, flags):
    view = memoryview(buffer)
    done = 0
    while done < len(view):
        number, within = divmod(offset + done, BLOCK)
        length = min(BLOCK - within, len(view) - done)
        block = unflushed.get(number)
        if block is None:
            block = unflushed[number] = bytearray(os.pread(state['file'], BLOCK, number * BLOCK)) if length < BLOCK else bytearray(BLOCK)
            written[number] = set()
        block[within:within + length] = view[done:done + length]
        written[number].update(range(within // SECTOR, (within + length + SECTOR - 1) // SECTOR))
        done += length
    if len(unflushed) * BLOCK > CACHE_MAX:
        flush(handle, 0)


def flush(handle, flags):
    for number, block in unflushed.items():
        os.pwrite(state['file'], block, number * BLOCK)
    unflushed.clear()
    written.clear()


def close(handle):
    kept = lost = 0
    for number, block in unflushed.items():
        for sector in sorted(written[number]):
            if state['random'].random() < 0.5:
                os.pwrite(state['file'], block[sector * SECTOR:(sector + 1) * SECTOR], number * BLOCK + sector * SECTOR)
                kept += 1
            else:
                lost += 1
    unflushed.clear()
    written.clear()
    record = os.open(settings['record'], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(record, f'{lost} {kept}\n'.encode())
    os.close(record)
