#!/usr/bin/env python3
"""What a gigabyte costs: CPU seconds (user + system) per GiB of every cumulus process for `object put --sync` and for
`object get` with a cold cache, over six real miners on this machine, split by process; beside them the rates of
this machine's ciphers, hashes and disk, and what these make of a gigabyte.

    tests/bench/heart.py [--mib 4096] [--rounds 1] [--perf] [--slow [--delay 200ms] [--rate 5M]]

--perf also prints what the CPU time of daemon and miners went into, by cpu_classes.py, and the largest functions. --slow
prints instead how much longer gets with a cold cache take with two slow miners, for large and small objects. Uses a
volume and a devnet of its own, and destroys both.
"""
import argparse
import json
import os
import re
import resource
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '../integration'))
from cpu_classes import classify  # noqa: E402
from lab import Lab, expect, sha_of  # noqa: E402
from processes import cpu_of, peak_mib, print_machine, sent_by  # noqa: E402


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


def profiled(meter, lab, *words):
    """What Meter.run says, and the file of perf record."""
    data = lab.path('perf.data')
    pids = ','.join(map(str, [meter.daemon, *meter.miners]))
    perf = subprocess.Popen(['perf', 'record', '-q', '-F', '999', '-o', data, '-p', pids], stderr=subprocess.DEVNULL)
    time.sleep(0.5)
    used = meter.run(*words)
    perf.send_signal(2)
    perf.wait()
    return used, data


def show_profile(used, data, gib):
    shares, rest = classify(data)
    seen = (used['daemon'] + used['miners']) / gib
    print(f'    CPU s/GiB of the {seen:.2f} of daemon and miners:')
    for group, share in sorted(shares.items(), key=lambda one: -one[1]):
        print(f'    {group:<24}{share * seen:6.3f}  {share * 100:5.1f} %')
    print('    largest of the rest: ' + '; '.join(f'{name} {share * 100:.1f} %' for name, share in rest[:4]))
    report = subprocess.run(['perf', 'report', '-i', data, '--sort', 'comm,dso,symbol', '--percent-limit', '1', '--stdio', '-q'], capture_output=True, text=True).stdout
    print('\n'.join(line.rstrip()[:120] for line in report.splitlines() if line.strip()), flush=True)


def heart(lab, source, arguments):
    gib = arguments.mib / 1024
    expected = sha_of(source)  # and into the page cache
    for name, cost in limits(lab, min(gib, 1)):
        print(f'limit: {name:<22}{cost:7.2f} CPU s/GiB', flush=True)
    lab.up()
    meter = Meter(lab)
    for index in range(arguments.rounds):
        for what, target, words in (('put --sync', 4.5, ('put', 'v/b', f'o{index}', source, '--sync')), ('get, cold cache', 2.5, ('get', 'v/b', f'o{index}', '/dev/null'))):
            lab.drop_cache()
            used, data = profiled(meter, lab, 'object', *words) if arguments.perf else (meter.run('object', *words), None)
            show(what, used, gib, target)
            if data:
                show_profile(used, data, gib)
    back = lab.path('back')
    lab.run('object', 'get', 'v/b', 'o0', back, timeout=900)
    expect(sha_of(back) == expected, 'other bytes came back')
    miners = max(map(peak_mib, meter.miners))
    print(f'peak memory: daemon {peak_mib(meter.daemon)} MiB (asked: 512), largest miner {miners} MiB (asked: 256)')


def cold_get(lab, *words):
    """Seconds, by a daemon that has met all miners."""
    lab.drop_cache()
    begin = time.time()
    lab.run('object', 'get', *words, timeout=900)
    return time.time() - begin


def slow(lab, source, arguments):
    lab.up()
    few = lab.path('few')
    many = lab.path('many')
    os.mkdir(many)
    for count, target in ((4, few), *((1, os.path.join(many, str(number))) for number in range(64))):
        with open(target, 'wb') as file:
            file.write(os.urandom(count << 20))
    lab.run('object', 'put', 'v/b', 'large', source, '--sync', timeout=900)
    lab.run('object', 'put', 'v/b', 'few', few, '--sync')
    lab.run('object', 'put', 'v/many', '.', many, '-r', '--sync')
    back = lab.path('back')
    shapes = ((f'one of {arguments.mib} MiB', arguments.mib, ('v/b', 'large', '/dev/null')), ('one of 4 MiB', 4, ('v/b', 'few', '/dev/null')),
              ('64 of 1 MiB', 64, ('v/many', '.', back, '-r')))
    usual = {}
    for what, mib, words in shapes:
        times = [cold_get(lab, *words) for _ in range(3)]
        usual[what] = sorted(times)[1]
        print(f'get, {what:<16}: {mib / usual[what]:8.1f} MiB/s, {usual[what]:.3f} s ({", ".join(f"{one:.3f}" for one in times)})', flush=True)
    for index in (1, 2):
        lab.miner('slow', index, '--delay', arguments.delay, '--rate', arguments.rate)
    proxies = [json.load(open(os.path.join(lab.net, f'miner-{index}.json')))['proxy_pid'] for index in (1, 2)]
    for whose in ('a daemon that has known them as fast', 'a new daemon'):
        if whose == 'a new daemon':
            lab.run('volume', 'stop', lab.volume)
        # Slow, not away: connections were lost when the delay was put before them.
        give_up = time.time() + 60
        while not all(miner['answers'] for miner in lab.status()['miners']):
            expect(time.time() < give_up, 'slow miners do not answer')
            time.sleep(0.5)
        print(f'two slow miners (delay {arguments.delay}, {arguments.rate}/s), {whose}:', flush=True)
        for what, mib, words in shapes:
            for turn in ('first', 'second', 'third'):
                before = sent_by(proxies)
                took = cold_get(lab, *words)
                through = (sent_by(proxies) - before) / 2**20
                print(f'get, two slow miners, {what:<16}: {mib / took:8.1f} MiB/s, {took / usual[what]:.2f} times as long (asked: at most 2), '
                      f'{turn}; {through:.1f} MiB came through them', flush=True)
    lab.run('object', 'get', 'v/b', 'large', back + '-large', timeout=900)
    expect(sha_of(back + '-large') == sha_of(source), 'other bytes came back')


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--mib', type=int, default=4096)
    parser.add_argument('--rounds', type=int, default=1)
    parser.add_argument('--perf', action='store_true')
    parser.add_argument('--slow', action='store_true')
    parser.add_argument('--delay', default='200ms')
    parser.add_argument('--rate', default='5M')
    arguments = parser.parse_args()
    print_machine()
    with Lab(segment='8M') as lab:
        source = lab.path('source')
        with open(source, 'wb') as file:
            for _ in range(arguments.mib):
                file.write(os.urandom(1 << 20))
        (slow if arguments.slow else heart)(lab, source, arguments)


main()
