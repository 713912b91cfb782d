"""What processes cost, by /proc; and the machine that a measurement was made on."""
import os
import re
import subprocess

TICK = os.sysconf('SC_CLK_TCK')


def print_machine():
    """What machine.h prints for the programs in C++."""
    text = open('/proc/cpuinfo').read()
    flags = set(re.search(r'^flags\s*: (.*)$', text, re.M).group(1).split())
    known = [flag if flag in flags else f'no {flag}' for flag in ('aes', 'vaes', 'vpclmulqdq', 'gfni', 'sha_ni', 'avx2', 'avx512f')]
    model = re.search(r'^model name\s*: (.*)$', text, re.M).group(1)
    print(f'machine: {model}, {os.cpu_count()} cores, {", ".join(known)}; Linux {os.uname().release}; load {os.getloadavg()[0]:.1f}', flush=True)


def cpu_of(pid):
    """CPU seconds, user and system."""
    fields = open(f'/proc/{pid}/stat').read().rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def peak_mib(pid):
    """The most memory it ever had."""
    return next(int(line.split()[1]) // 1024 for line in open(f'/proc/{pid}/status') if line.startswith('VmHWM'))


def sent_by(pids):
    """Bytes that the sockets which these processes have open sent, and that came."""
    lines = subprocess.run(['ss', '-tinpHO'], check=True, capture_output=True, text=True).stdout.splitlines()
    mine = [line for line in lines if any(f'pid={pid},' in line for pid in pids)]
    return sum(int(found.group(1)) for line in mine if (found := re.search(r'bytes_acked:(\d+)', line)))
