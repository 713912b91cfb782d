#!/usr/bin/env python3
"""What a gigabyte costs: CPU seconds (user + system) per GiB of every cumulus process for `object put --sync` and for
`object get` with a cold cache, over six real miners on this machine, split by process; beside them the rates of
this machine's ciphers, hashes and disk, and what these make of a gigabyte.

    tests/bench/heart.py [--mib 4096] [--rounds 1] [--perf]

--perf also prints the largest functions (perf record). Uses a volume and a devnet of its own, and destroys both.
"""
import argparse
import os
import re
import resource
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../integration'))
from lab import Lab, expect, sha_of  # noqa: E402
from processes import cpu_of, peak_mib  # noqa: E402



class Meter:
    """The CPU time of the laboratory's daemon, of its miners, and of the command between begin and end."""

    def __init__(self, lab):
        self.lab = lab
        self.daemon = lab.daemon_pid()
        self.miners = [pid for pid, line in lab.processes().items() if 'cumulus-miner' in line.split()[0]]
        expect(len(self.miners) == lab.miners, f'{len(self.miners)} miners run')

    def run(self, *words):
        before = cpu_of(self.daemon), sum(map(cpu_of, self.miners))
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        begin = time.time()
        self.lab.run(*words, timeout=900)
        wall = time.time() - begin
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
        return {'daemon': cpu_of(self.daemon) - before[0], 'miners': sum(map(cpu_of, self.miners)) - before[1],
                'command': command, 'wall': wall}


def rate_of(algorithm, evp):
    """Bytes per second of one core, by openssl's own measurement, for 16 KiB blocks; None without openssl."""
    words = ['openssl', 'speed', '-seconds', '1', '-bytes', '16384'] + (['-evp', algorithm] if evp else [algorithm])
    try:
        out = subprocess.run(words, capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.findall(r'([\d.]+)k\s*$', out, re.M)
    return float(found[-1]) * 1000 if found else None


def limits(lab, gib):
    """CPU seconds per GiB of the parts, from one core's rates."""
    rows = []
    for name, algorithm, evp in (('AES-256-GCM pass', 'aes-256-gcm', True), ('SHA-256 pass, one lane', 'sha256', False)):
        rate = rate_of(algorithm, evp)
        if rate:
            rows.append((name, 2**30 / rate))
    target = lab.path('raw')
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(['dd', 'if=/dev/zero', f'of={target}', 'bs=1M', f'count={int(gib * 1024)}', 'oflag=direct', 'conv=fdatasync'],
                   check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    os.remove(target)
    rows.append(('raw direct write', (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / gib))
    return rows


def show(what, used, gib, target):
    parts = {name: used[name] / gib for name in ('daemon', 'miners', 'command')}
    total = sum(parts.values())
    split = '  '.join(f'{name} {value:.2f}' for name, value in parts.items())
    print(f'{what:<28}{total:7.2f} CPU s/GiB (asked: {target})   {split}   {gib * 1024 / used["wall"]:.0f} MiB/s', flush=True)


def profiled(enabled, meter, lab, *words):
    if not enabled:
        return meter.run(*words)
    data = lab.path('perf.data')
    pids = ','.join(map(str, [meter.daemon, *meter.miners]))
    perf = subprocess.Popen(['perf', 'record', '-q', '-F', '499', '-o', data, '-p', pids], stderr=subprocess.DEVNULL)
    time.sleep(0.5)
    used = meter.run(*words)
    perf.send_signal(2)
    perf.wait()
    # By library first: many have no symbols for their hand-written loops.
    for sort, least in (('comm,dso', '0.5'), ('comm,dso,symbol', '1')):
        report = subprocess.run(['perf', 'report', '-i', data, '--sort', sort, '--percent-limit', least, '--stdio', '-q'],
                                capture_output=True, text=True).stdout
        print('\n'.join(line.rstrip()[:120] for line in report.splitlines() if line.strip()), flush=True)
    return used


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--mib', type=int, default=4096)
    parser.add_argument('--rounds', type=int, default=1)
    parser.add_argument('--perf', action='store_true')
    arguments = parser.parse_args()
    gib = arguments.mib / 1024
    with Lab(segment='8M') as lab:
        source = lab.path('source')
        with open(source, 'wb') as file:
            for _ in range(arguments.mib):
                file.write(os.urandom(1 << 20))
        expected = sha_of(source)  # and into the page cache
        for name, cost in limits(lab, min(gib, 1)):
            print(f'limit: {name:<22}{cost:7.2f} CPU s/GiB', flush=True)
        lab.up()
        meter = Meter(lab)
        for index in range(arguments.rounds):
            name = f'o{index}'
            show('put --sync', profiled(arguments.perf, meter, lab, 'object', 'put', 'v/b', name, source, '--sync'), gib, 4.5)
            lab.drop_cache()
            show('get, cold cache', profiled(arguments.perf, meter, lab, 'object', 'get', 'v/b', name, '/dev/null'), gib, 2.5)
        back = lab.path('back')
        lab.run('object', 'get', 'v/b', 'o0', back, timeout=900)
        expect(sha_of(back) == expected, 'other bytes came back')
        miners = max(map(peak_mib, meter.miners))
        print(f'peak memory: daemon {peak_mib(meter.daemon)} MiB (asked: 512), largest miner {miners} MiB (asked: 256)')


main()
