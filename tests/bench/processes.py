"""What processes cost, by /proc."""
import os

TICK = os.sysconf('SC_CLK_TCK')


def cpu_of(pid):
    """CPU seconds, user and system."""
    fields = open(f'/proc/{pid}/stat').read().rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def peak_mib(pid):
    """The most memory it ever had."""
    return next(int(line.split()[1]) // 1024 for line in open(f'/proc/{pid}/status') if line.startswith('VmHWM'))
