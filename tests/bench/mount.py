#!/usr/bin/env python3
"""A mounted volume beside libfuse's own pass-through example over the same disk, and that disk itself, in one run: small files,
random writes with fsync, random direct reads, and a large file to the miners and back. Rates, and the CPU time of the servers.

    tests/bench/mount.py [--mib 2048] [--rounds 2]

The pass-through is compiled from the examples that Debian's libfuse3-dev ships. Uses a volume and a devnet of its own.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../integration'))
from lab import Lab, expect  # noqa: E402
from processes import cpu_of, peak_mib, print_machine  # noqa: E402

EXAMPLES = '/usr/share/doc/libfuse3-dev/examples'


class PassThrough:
    def __init__(self, lab):
        self.source, self.dir, program = lab.path('below'), lab.path('through'), lab.path('passthrough')
        os.mkdir(self.source)
        os.mkdir(self.dir)
        flags = subprocess.run(['pkg-config', '--cflags', '--libs', 'fuse3'], capture_output=True, text=True, check=True).stdout.split()
        packed = os.path.join(EXAMPLES, 'passthrough_ll.c')
        expect(os.path.exists(packed), f'{packed} is missing: apt-get install libfuse3-dev')
        subprocess.run(['gcc', '-O2', '-w', f'-I{EXAMPLES}', packed, '-o', program, *flags], check=True)
        self.process = subprocess.Popen([program, '-f', '-o', f'source={self.source},cache=auto,timeout=1', self.dir],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not os.path.ismount(self.dir):
            time.sleep(0.05)

    def end(self):
        subprocess.run(['umount', self.dir], check=False)
        self.process.wait()


def fio(directory, *words):
    done = subprocess.run(['fio', '--name=x', f'--directory={directory}', '--output-format=json', '--size=256M', *words],
                          capture_output=True, text=True, timeout=300)
    expect(done.returncode == 0, f'fio: {done.stderr}')
    return json.loads(done.stdout)['jobs'][0]


def create(directory, count, sync):
    for i in range(count):
        file = os.open(f'{directory}/file-{i}', os.O_CREAT | os.O_WRONLY, 0o644)
        os.write(file, b'x' * 4096)
        if sync:
            os.fsync(file)
        os.close(file)


def each(directory):
    """(name, unit, operation, how many it was) one after the other."""
    def randwrite():
        return fio(directory, '--rw=randwrite', '--bs=4k', '--fsync=1', '--runtime=4', '--time_based')['write']['total_ios']

    def randread():
        return fio(directory, '--rw=randread', '--bs=4k', '--direct=1', '--ioengine=libaio', '--iodepth=32', '--runtime=4',
                   '--time_based')['read']['total_ios']

    def creates():
        os.mkdir(f'{directory}/many')
        create(f'{directory}/many', 5000, False)
        return 5000

    def stats():
        with os.scandir(f'{directory}/many') as entries:
            return sum(1 for entry in entries if entry.stat())

    def synced():
        threads = []
        for k in range(8):
            os.mkdir(f'{directory}/thread-{k}')
            threads.append(threading.Thread(target=create, args=(f'{directory}/thread-{k}', 400, True)))
            threads[-1].start()
        for thread in threads:
            thread.join()
        return 3200

    def removes():
        shutil.rmtree(f'{directory}/many')
        for k in range(8):
            shutil.rmtree(f'{directory}/thread-{k}')
        return 5000 + 3200

    fio(directory, '--rw=write', '--bs=1M', '--fsync_on_close=1')
    yield '4 KiB random write, fsync each', randwrite
    yield '4 KiB random direct read, depth 32', randread
    yield 'create, write 4 KiB, close', creates
    yield 'list and stat', stats
    yield '8 threads: create, write, fsync', synced
    yield 'remove', removes


def sequential(lab, directory, mib):
    """CPU seconds a GiB of all our processes: a large file until it is Remote, then read cold."""
    ours = [lab.daemon_pid(), *[pid for pid, line in lab.processes().items() if 'cumulus-miner' in line.split()[0]]]
    path = os.path.join(directory, 'large')
    block = os.urandom(1 << 20)
    before, begun = sum(map(cpu_of, ours)), time.time()
    longest = 0.0
    with open(path, 'wb', buffering=0) as file:
        for _ in range(mib):
            at = time.time()
            file.write(block)
            longest = max(longest, time.time() - at)
        os.fsync(file.fileno())
    written = time.time() - begun
    lab.sync(timeout=600)
    print(f'write {mib} MiB and fsync: {mib / written:.0f} MiB/s, longest write {longest * 1000:.0f} ms; until Remote: '
          f'{(sum(map(cpu_of, ours)) - before) * 1024 / mib:.2f} CPU s/GiB (asked: 5.5)', flush=True)
    lab.run('umount', directory)
    lab.drop_cache()
    lab.run('mount', lab.volume, directory)
    before, begun = sum(map(cpu_of, ours)), time.time()
    with open(path, 'rb', buffering=0) as file:
        while file.read(1 << 20):
            pass
    print(f'read it cold: {mib / (time.time() - begun):.0f} MiB/s (asked: 500), {(sum(map(cpu_of, ours)) - before) * 1024 / mib:.2f} CPU s/GiB '
          '(asked: 3.5)', flush=True)
    os.remove(path)


def copies(lab, directory, gib):
    """cp --reflink=auto of a filled file, written out before, and of a sparse one."""
    block = os.urandom(1 << 20)
    with open(f'{directory}/filled', 'wb', buffering=0) as file:
        for _ in range(gib << 10):
            file.write(block)
        os.fsync(file.fileno())
    with open(f'{directory}/sparse', 'wb') as file:
        file.truncate(gib << 30)
        for at in range(0, gib << 30, 256 << 20):
            os.pwrite(file.fileno(), block, at)
        os.fsync(file.fileno())
    for name in ('filled', 'sparse'):
        begun = time.time()
        subprocess.run(['cp', '--reflink=auto', f'{directory}/{name}', f'{directory}/copy'], check=True)
        print(f'cp --reflink=auto of {gib} GiB, {name}: {time.time() - begun:.2f} s (asked: 0.5 for 10 GiB)', flush=True)
        os.remove(f'{directory}/copy')
        os.remove(f'{directory}/{name}')


def many_open(lab, directory, count=1000, rounds=64):
    """Many open files, written in turn: the daemon's memory."""
    os.mkdir(f'{directory}/open')
    files = [os.open(f'{directory}/open/{i}', os.O_CREAT | os.O_WRONLY) for i in range(count)]
    block = os.urandom(16 << 10)
    begun = time.time()
    for _ in range(rounds):
        for file in files:
            os.write(file, block)
    took = time.time() - begun
    for file in files:
        os.close(file)
    mib = count * rounds / 64
    print(f'{count} open files written in turn, 16 KiB each time: {mib / took:.0f} MiB/s, daemon at most {peak_mib(lab.daemon_pid())} MiB '
          f'since its start (asked: 512)', flush=True)
    shutil.rmtree(f'{directory}/open')


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--mib', type=int, default=2048)
    parser.add_argument('--rounds', type=int, default=2)
    parser.add_argument('--copy-gib', type=int, default=10)
    arguments = parser.parse_args()
    print_machine()
    with Lab(segment='8M') as lab:
        lab.up()
        drive, disk = lab.path('drive'), lab.path('disk')
        os.mkdir(drive)
        os.mkdir(disk)
        lab.run('mount', lab.volume, drive)
        through = PassThrough(lab)
        try:
            for _ in range(arguments.rounds):
                rows = {}
                for where, directory, pid in (('disk', disk, 0), ('pass-through', through.dir, through.process.pid), ('ours', drive, lab.daemon_pid())):
                    for name, operation in each(directory):
                        before, begun = cpu_of(pid) if pid else 0, time.time()
                        count = operation()
                        took = time.time() - begun
                        rows.setdefault(name, {})[where] = (count / took, (cpu_of(pid) - before) * 1e6 / count if pid else 0)
                print(f'{"":<38}{"disk":>9}{"pass-through":>22}{"ours":>22}   ours / pass-through')
                for name, row in rows.items():
                    through_rate, through_cpu = row['pass-through']
                    rate, cpu = row['ours']
                    print(f'{name:<38}{row["disk"][0]:7.0f}/s{through_rate:9.0f}/s {through_cpu:5.0f} us{rate:11.0f}/s {cpu:5.0f} us   '
                          f'{rate / through_rate:.2f}', flush=True)
        finally:
            through.end()
        many_open(lab, drive)
        sequential(lab, drive, arguments.mib)
        copies(lab, drive, arguments.copy_gib)
        lab.run('umount', drive)


if __name__ == '__main__':
    main()
