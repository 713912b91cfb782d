#!/usr/bin/env python3
"""A disk over NBD to the miners and back: CPU seconds of all our processes for each GiB, written until all of it is Remote and read
cold, beside their limits. What the client (fio) takes is its own.

    tests/bench/disk.py [--mib 1024] [--rounds 3]

Uses a volume and a devnet of its own.
"""
import argparse
import json
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../integration'))
from lab import Lab, expect  # noqa: E402
from processes import cpu_of, print_machine  # noqa: E402

WRITE_LIMIT, READ_LIMIT = 4.5, 3.0


def fio(uri, how, mib):
    """MiB/s of one pass over the disk."""
    done = subprocess.run(['fio', '--name=x', '--ioengine=nbd', f'--uri={uri}', f'--rw={how}', '--bs=1M', '--iodepth=8', f'--size={mib}M',
                           '--refill_buffers', '--output-format=json'], capture_output=True, text=True, timeout=600)
    expect(done.returncode == 0, f'fio: {done.stderr}')
    job = json.loads(done.stdout[done.stdout.index('{'):])['jobs'][0]
    expect(job['error'] == 0, f'fio: error {job["error"]}')
    return job[how]['bw'] / 1024


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--mib', type=int, default=1024)
    parser.add_argument('--rounds', type=int, default=3)
    arguments = parser.parse_args()
    mib = arguments.mib
    print_machine()
    with Lab(segment='8M') as lab:
        lab.up()
        lab.run('image', 'create', f'{lab.volume}/disk', '--size', f'{mib}M')
        lab.run('nbd', 'serve', f'{lab.volume}/disk', '--socket', lab.path('sock'))
        uri = f'nbd+unix:///disk?socket={lab.path("sock")}'
        daemon = lab.daemon_pid()
        miners = [pid for pid, line in lab.processes().items() if 'cumulus-miner' in line.split()[0]]

        def report(name, before, rate, limit):
            of_daemon, of_miners = ((now - then) * 1024 / mib for now, then in zip(spent(), before))
            print(f'{name:<34}{rate:6.0f} MiB/s {of_daemon + of_miners:6.2f} CPU s/GiB (daemon {of_daemon:.2f}, miners {of_miners:.2f}; '
                  f'asked: {limit})', flush=True)

        def spent():
            return cpu_of(daemon), sum(map(cpu_of, miners))

        for _ in range(arguments.rounds):
            before, begun = spent(), time.time()
            fio(uri, 'write', mib)
            lab.sync(timeout=600)
            report('1 MiB writes until Remote', before, mib / (time.time() - begun), WRITE_LIMIT)
            lab.drop_cache()
            before = spent()
            report('1 MiB reads, cold', before, fio(uri, 'read', mib), READ_LIMIT)


if __name__ == '__main__':
    main()
