#!/usr/bin/env python3
"""What an operation on names costs with few files and with many: CPU time of the daemon for each look-up of a random name and for
each create in a random folder, the daemon's memory, and a walk over all names. Files are filled in below FUSE.

    tests/bench/many_files.py [--few 10000] [--many 10000000] [--sample 50000]

Uses a volume and a devnet of its own; ten million files take some 10 GiB of disk and of page cache.
"""
import argparse
import os
import random
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../integration'))
from lab import Lab, expect  # noqa: E402
from processes import cpu_of, peak_mib, print_machine  # noqa: E402

FOLDER = 1000


def fill(lab, first, count):
    lab.run('volume', 'stop', lab.volume, timeout=600)
    begun = time.time()
    subprocess.run([os.path.join(lab.bin, 'fill_files'), lab.home, lab.volume, str(first), str(count)], check=True, timeout=3600)
    print(f'{count} files filled in: {count / (time.time() - begun):.0f}/s', flush=True)


def path_of(drive, number):
    return f'{drive}/folder-{number // FOLDER}/file-{number}'


def timed(pid, what, count, operation):
    before, begun = cpu_of(pid), time.time()
    operation()
    took, used = time.time() - begun, cpu_of(pid) - before
    print(f'  {what:<34}{count / took:9.0f}/s   {used / count * 1e6:6.1f} us CPU of the daemon each', flush=True)
    return used / count


def index_bytes(lab):
    top = os.path.join(lab.home, 'volumes', lab.volume, 'index')
    return sum(os.path.getsize(os.path.join(place, name)) for place, _, names in os.walk(top) for name in names)


def measure(lab, drive, files, sample):
    """(CPU of a look-up, CPU of a create), in a fresh mount of so many files."""
    lab.run('mount', lab.volume, drive, timeout=600)
    pid = lab.daemon_pid()
    print(f'{files} files; index {index_bytes(lab) / files:.0f} bytes each as it lies there', flush=True)
    with os.scandir(drive) as folders:
        expect(sum(1 for folder in folders if folder.stat()) == files // FOLDER, 'a folder is missing')
    chosen = random.Random(1).sample(range(files), min(sample, files))

    def look():
        for number in chosen:
            os.stat(path_of(drive, number))

    def create():
        for number in chosen:
            os.close(os.open(path_of(drive, number) + '-new', os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))

    def remove():
        for number in chosen:
            os.unlink(path_of(drive, number) + '-new')

    costs = timed(pid, 'look-ups of random names', len(chosen), look), timed(pid, 'creates in random folders', len(chosen), create)
    timed(pid, 'removes of these', len(chosen), remove)
    print(f'  daemon: at most {peak_mib(pid)} MiB (asked: 512)', flush=True)
    return costs


def walk(lab, drive, files):
    pid = lab.daemon_pid()

    def find():
        out = subprocess.run(['find', drive, '-type', 'f', '-size', '0', '-printf', '.'], capture_output=True, check=True, timeout=3600).stdout
        expect(len(out) == files, f'find saw {len(out)} files of {files}')

    timed(pid, 'find over all names', files, find)
    print(f'  daemon: at most {peak_mib(pid)} MiB (asked: 512)', flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--few', type=int, default=10_000)
    parser.add_argument('--many', type=int, default=10_000_000)
    parser.add_argument('--sample', type=int, default=50_000)
    arguments = parser.parse_args()
    print_machine()
    expect(arguments.few % FOLDER == 0 and arguments.many % FOLDER == 0, f'give multiples of {FOLDER}')
    with Lab(segment='8M') as lab:
        lab.up()
        drive = lab.path('drive')
        os.mkdir(drive)
        fill(lab, 0, arguments.few)
        few = measure(lab, drive, arguments.few, arguments.sample)
        walk(lab, drive, arguments.few)
        lab.run('umount', drive, timeout=600)
        fill(lab, arguments.few, arguments.many - arguments.few)
        many = measure(lab, drive, arguments.many, arguments.sample)
        for what, a, b in zip(('look-up', 'create'), few, many):
            print(f'{what}: {b / a:.2f} times the CPU with {arguments.many} files that it is with {arguments.few} (asked: 1.2)', flush=True)
        walk(lab, drive, arguments.many)
        lab.run('umount', drive, timeout=600)


main()
