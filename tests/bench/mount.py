#!/usr/bin/env python3
"""A mounted volume beside libfuse's own pass-through example and gocryptfs over the same disk, and that disk itself, in one run: small
files, random writes with fsync, random direct reads, trees that tar and git write, and a large file to the miners and back. Rates,
and the CPU time of the servers.

    tests/bench/mount.py [--mib 8192] [--rounds 2] [--copy-gib 10] [--listed 100000]

Needs `packaging/deps bench`. Uses a volume and a devnet of its own.
"""
import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../integration'))
from lab import Lab, expect  # noqa: E402
from mount_peers import Gocryptfs, PassThrough  # noqa: E402
from processes import cpu_of, peak_mib, print_machine  # noqa: E402

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


class Trees:
    """4,000 files in 100 folders, of 1 to 16 KiB: as a tar file, and as a git repository."""
    FILES = 4000

    def __init__(self, lab):
        self.tar, self.repository, tree = lab.path('tree.tar'), lab.path('tree.git'), lab.path('tree')
        chance = random.Random(1)
        for number in range(self.FILES):
            folder = f'{tree}/folder-{number % 100}'
            os.makedirs(folder, exist_ok=True)
            with open(f'{folder}/file-{number}', 'wb') as file:
                file.write(chance.randbytes(chance.randrange(1 << 10, 16 << 10)))
        subprocess.run(['tar', '-cf', self.tar, '-C', tree, '.'], check=True)
        git = ['git', '-C', tree, '-c', 'user.name=x', '-c', 'user.email=x@localhost', '-c', 'gc.auto=0']
        for words in (['init', '-q'], ['add', '.'], ['commit', '-qm', 'all']):
            subprocess.run([*git, *words], check=True)
        subprocess.run(['git', 'clone', '-q', '--bare', tree, self.repository], check=True)
        shutil.rmtree(tree)


def each(directory, trees):
    """(name, operation that says how many it was), one after the other."""
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

    def untar():
        os.mkdir(f'{directory}/untarred')
        subprocess.run(['tar', '-xf', trees.tar, '-C', f'{directory}/untarred'], check=True)
        return trees.FILES

    def clone():
        subprocess.run(['git', 'clone', '-q', f'file://{trees.repository}', f'{directory}/cloned'], check=True)
        return trees.FILES

    def rm_rf():
        subprocess.run(['rm', '-rf', f'{directory}/untarred', f'{directory}/cloned'], check=True)
        return 2 * trees.FILES

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
    yield 'tar -x, files', untar
    yield 'git clone, files', clone
    yield 'rm -rf of both', rm_rf


def listed_cold(lab, drive, through, count):
    """`ls -l` of a large directory that nobody remembers: ours is mounted anew."""
    counts = {'pass-through': min(count, through.FILES_MAX), 'ours': count}
    for where, directory in (('pass-through', through.source), ('ours', drive)):
        os.mkdir(f'{directory}/listed')
        for number in range(counts[where]):
            os.close(os.open(f'{directory}/listed/file-{number}', os.O_CREAT | os.O_WRONLY, 0o644))
    rates = {}
    for where, directory in (('pass-through', through.dir), ('ours', drive)) * 3:
        if where == 'ours':
            lab.run('umount', drive)
            lab.run('mount', lab.volume, drive)
        os.sync()
        with open('/proc/sys/vm/drop_caches', 'w') as file:
            file.write('3')
        begun = time.time()
        subprocess.run(['ls', '-l', f'{directory}/listed'], stdout=subprocess.DEVNULL, check=True)
        rates.setdefault(where, []).append(counts[where] / (time.time() - begun))
    theirs, ours = (statistics.median(rates[where]) for where in ('pass-through', 'ours'))
    print(f'ls -l, cold, 3 times: pass-through {theirs:.0f}/s of {counts["pass-through"]} files, ours {ours:.0f}/s of {count}: '
          f'{ours / theirs:.2f} (asked: 1)', flush=True)
    subprocess.run(['rm', '-rf', f'{drive}/listed', f'{through.source}/listed'], check=True)


def write_large(path, mib):
    """Written in blocks of 1 MiB and fsync'd: MiB/s, and the longest write."""
    block = os.urandom(1 << 20)
    longest, begun = 0.0, time.time()
    with open(path, 'wb', buffering=0) as file:
        for _ in range(mib):
            at = time.time()
            file.write(block)
            longest = max(longest, time.time() - at)
        os.fsync(file.fileno())
    return mib / (time.time() - begun), longest


def beside_gocryptfs(lab, mib):
    peer = Gocryptfs(lab)
    try:
        rate, longest = write_large(f'{peer.dir}/large', mib)
    finally:
        peer.end()
    print(f'gocryptfs: write {mib} MiB and fsync: {rate:.0f} MiB/s, longest write {longest * 1000:.0f} ms', flush=True)
    return rate


def sequential(lab, directory, mib):
    """CPU seconds a GiB of all our processes: a large file until it is Remote, then read cold."""
    theirs = [beside_gocryptfs(lab, mib)]
    ours = [lab.daemon_pid(), *[pid for pid, line in lab.processes().items() if 'cumulus-miner' in line.split()[0]]]
    path = os.path.join(directory, 'large')
    before = sum(map(cpu_of, ours))
    rate, longest = write_large(path, mib)
    lab.sync(timeout=600)
    spent = (sum(map(cpu_of, ours)) - before) * 1024 / mib
    theirs.append(beside_gocryptfs(lab, mib))
    print(f'write {mib} MiB and fsync: {rate:.0f} MiB/s, {rate / statistics.mean(theirs):.2f} of gocryptfs (asked: 1), longest write '
          f'{longest * 1000:.0f} ms (asked: 1000); until Remote: {spent:.2f} CPU s/GiB (asked: 5.5)', flush=True)
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
    parser.add_argument('--mib', type=int, default=8192)
    parser.add_argument('--rounds', type=int, default=2)
    parser.add_argument('--copy-gib', type=int, default=10)
    parser.add_argument('--listed', type=int, default=100_000)
    arguments = parser.parse_args()
    print_machine()
    with Lab(segment='8M') as lab:
        lab.up()
        lab.run('volume', 'set', lab.volume, f'cache-size={arguments.mib + 4096}M')  # larger than the file
        drive, disk = lab.path('drive'), lab.path('disk')
        os.mkdir(drive)
        os.mkdir(disk)
        lab.run('mount', lab.volume, drive)
        through, trees = PassThrough(lab), Trees(lab)
        try:
            for _ in range(arguments.rounds):
                rows = {}
                for where, directory, pid in (('disk', disk, 0), ('pass-through', through.dir, through.process.pid), ('ours', drive, lab.daemon_pid())):
                    for name, operation in each(directory, trees):
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
            listed_cold(lab, drive, through, arguments.listed)
        finally:
            through.end()
        many_open(lab, drive)
        sequential(lab, drive, arguments.mib)
        copies(lab, drive, arguments.copy_gib)
        lab.run('umount', drive)


if __name__ == '__main__':
    main()
