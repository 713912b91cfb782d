"""What the CPU time of the samples of a `perf record` went into: cipher of cells, SHA-256, erasure code, TLS, network,
kernel copies, disk, switches, our own code. By library and function; in hand-written assembly, which has few names, by
the instructions around the sample. (A stripped library names only what it exports, and perf gives what is in between the
name before it: ipsec-mb's SHA-256 is called aes_cfb_128_one_sse.)

Cells are sealed by ipsec-mb's GCM in one call and TLS records by its GCM in parts, which are names that it exports. What the
memory was that libc copied, and for whom the kernel allocated, is not told.
"""
import bisect
import collections
import os
import re
import subprocess

CLASSES = ('cells: AES-GCM', 'SHA-256', 'erasure code', 'TLS', 'signatures, libcrypto', 'network', 'kernel copies', 'disk',
           'switches, wake-ups', 'kernel memory', 'system calls', 'user copies', 'RocksDB', 'own code', 'rest')

# (pattern of the function, class); the first that matches.
KERNEL = [
    (r'copy_(to|from|user|mc)|_copy_|copy_page|copyin|copyout|copy_folio|rep_movs|rep_stos|memcpy|memmove|memset|clear_user|csum|fault_in_', 'kernel copies'),
    (r'tcp|skb|sock|inet|ip_|_ip|ipv4|net_|_net|napi|loopback|^_*dev_|sk_|softirq|sendmsg|recvmsg|process_backlog|qdisc|nf_|bictcp|cubic|bbr_|sendto|recvfrom|ktime_get_(with|real)|kmalloc_reserve|mod_timer|timer_base|__mod_timer', 'network'),
    (r'ext4|jbd2|blk|bio_|_bio|submit|virtio|virtqueue|virtblk|vring|vp_|iomap|xas_|xa_|filemap|page_cache|readahead|writeback|dio_|dio$|direct_|io_uring|^_*io_|vfs|fsync|fdatasync|buffer_head|block_|'
     r'scsi|nvme|dm_|pagecache|generic_|inode|dentry|lookup|file_|fget|fput|fdget|recently_deleted|path|workingset|elv_|mq_|dd_|sbitmap|fallocate|es_|mb_|gup|pin_user|unpin|bvec|iov_iter|sg_', 'disk'),
    (r'sched|switch|wake|ttwu|futex|epoll|^_*ep_|eventfd|hrtimer|clockevents|pick_|update_|idle|finish_task|dequeue|enqueue|rq_|_rq|select_task|cpu|tick|reweight|set_next|put_prev|prev_entity|'
     r'available_idle|place_entity|avg_vruntime|_entity|resched|rcu|irq|poll|signal|pvclock|kvm_|clock|apic|ipi|__x2apic|native_write_msr|native_|timer|task_work|wait|cgroup|psi_|cfs_|nanosleep|smp_|call_function', 'switches, wake-ups'),
    (r'clear_page|fault|mm_|_mm|mmap|munmap|zap_|vma|page|folio|lru|pte|pmd|tlb|alloc|rmqueue|memcg|mem_cgroup|charge|kmem|slab|slub|kfree|kmalloc|mas_|mt_|madvise|obj_|free_|get_from|unmap|mlock|compact|zone|swap|shmem|__free|put_cpu_partial|kswapd|shrink', 'kernel memory'),
    (r'syscall|entry|sysret|sysvec|exc_|exit_to_user|restore|srso|retbleed|return_thunk|retpoline|__x86|asm_|spin|mutex|rwsem|_lock|unlock|lock_|up_read|down_read|user_mode|fpu|ptrace|audit|security|apparmor|lsm|cap_|seccomp|ksys|stack|objcg|llist|list_|bit|error_|noist|__memcg|check_|get_user|put_user|addr_valid|rb_|nd_|strn|memcmp|hash|sha|crc|kthread|worker|process_one|pwq|work|pipe|write|read', 'system calls'),
]
LIBRARIES = [
    (r'libisal', 'erasure code'),
    (r'libssl', 'TLS'),
    (r'librocksdb|libsnappy|liblz4|libzstd|libz\.', 'RocksDB'),
    (r'cumulus|libstdc|libgcc|libfmt|libspdlog|liburing|libfuse|libnbd|ld-linux|\[vdso\]', 'own code'),
]
AES = re.compile(r'\bv?(aesenc|aesdec|pclmul)')
SHA = re.compile(r'\b(sha256rnds2|sha256msg|vprord|vprorvd)')


class Disassembly:
    """Which of two sets of instructions stands around an address of a library."""

    WIDTH = 512

    def __init__(self, library):
        self.library, self.known = library, {}

    def kind(self, address):
        """'aes', 'sha' or None."""
        low = address // self.WIDTH * self.WIDTH
        if low not in self.known:
            text = subprocess.run(['objdump', '-d', '--no-show-raw-insn', f'--start-address={max(low - self.WIDTH, 0):#x}', f'--stop-address={low + 2 * self.WIDTH:#x}', self.library],
                                  capture_output=True, text=True).stdout
            aes, sha = len(AES.findall(text)), len(SHA.findall(text))
            self.known[low] = None if aes == sha == 0 else 'aes' if aes >= sha else 'sha'
        return self.known[low]


class Classifier:
    def __init__(self):
        self.disassemblies = {}

    def around(self, library, offset):
        if library not in self.disassemblies:
            self.disassemblies[library] = Disassembly(library)
        return self.disassemblies[library].kind(offset)

    def of(self, library, function, offset):
        name = os.path.basename(library)
        if 'kernel' in library or name.endswith('.ko') or library.startswith('[kernel') or name == '[unknown]':
            return next((group for pattern, group in KERNEL if re.search(pattern, function)), 'rest')
        if 'libIPSec_MB' in name:
            kind = self.around(library, offset)
            if kind != 'aes':  # or neither: what deals leaves out to the lanes
                return 'SHA-256'
            in_parts = re.search(r'aes_gcm_\w*(init|update|finalize)', function)
            return 'TLS' if in_parts else 'cells: AES-GCM'
        if 'libcrypto' in name:
            kind = self.around(library, offset)
            return {'sha': 'SHA-256', 'aes': 'TLS', None: 'signatures, libcrypto'}[kind]
        if re.match(r'libc[.-]', name):
            return 'user copies' if re.search(r'mem(cpy|move|set|cmp)', function) else 'own code'
        if 'cumulus' in name and re.search(r'Tls|RecordCipher', function):
            return 'TLS'
        return next((group for pattern, group in LIBRARIES if re.search(pattern, name)), 'rest')


class Mappings:
    """Where each process has which part of which file."""

    LINE = re.compile(r'PERF_RECORD_MMAP2? (-?\d+)/\d+: \[(0x[0-9a-f]+)\((0x[0-9a-f]+)\) @ (0x[0-9a-f]+|0) .*?\]: (\S+) (.*)$')

    def __init__(self):
        self.of_process = collections.defaultdict(list)

    def add(self, line):
        found = self.LINE.search(line)
        if found and 'x' in found.group(5):
            pid, begin, length, offset = (int(found.group(i), 0) for i in range(1, 5))
            bisect.insort(self.of_process[pid], (begin, begin + length, offset))

    def offset(self, pid, address):
        maps = self.of_process[pid]
        at = bisect.bisect(maps, (address, 1 << 64, 0)) - 1
        return address - maps[at][0] + maps[at][2] if at >= 0 and address < maps[at][1] else 0


SAMPLE = re.compile(r'^\s*(-?\d+)\s+(\d+)\s+([0-9a-f]+) (.*) \((.*)\)$')


def classify(data):
    """({class: its share}, the functions of `rest` with their shares, the largest first) of a file of `perf record`."""
    text = subprocess.run(['perf', 'script', '-i', data, '-F', 'pid,period,ip,sym,dso', '--show-mmap-events'], capture_output=True, text=True).stdout
    classifier, mappings = Classifier(), Mappings()
    shares, rest = collections.Counter(), collections.Counter()
    for line in text.splitlines():
        if 'PERF_RECORD_' in line:
            mappings.add(line)
        elif found := SAMPLE.match(line):
            pid, period, address = int(found.group(1)), int(found.group(2)), int(found.group(3), 16)
            function, library = found.group(4), found.group(5)
            group = classifier.of(library, function, mappings.offset(pid, address))
            shares[group] += period
            if group == 'rest':
                rest[f'{function} ({os.path.basename(library)})'] += period
    total = sum(shares.values()) or 1
    return {group: shares[group] / total for group in CLASSES}, [(name, period / total) for name, period in rest.most_common(8)]
