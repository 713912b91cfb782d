"""A laboratory for integration tests: real programs, a home and a devnet of their own in a temporary folder, and the
certainty that nothing is left behind. Standard library only.

Every process that a test starts lives below the laboratory's folder; on leaving, daemons are stopped, miners taken
down, and whatever is still running is named, ended by its id, and fails the test.
"""
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

LONG = os.environ.get('CUMULUS_LONG', '') not in ('', '0')
SEED = int(os.environ.get('CUMULUS_SEED', str(random.SystemRandom().randrange(1 << 32))))


class Wrong(AssertionError):
    """What a test saw that must not be."""


def expect(condition, message):
    if not condition:
        raise Wrong(message)


class Lab:
    def __init__(self, miners=6, code='4+2', segment='1M', volume='v'):
        here = os.path.dirname(os.path.abspath(__file__))
        self.bin = os.environ.get('CUMULUS_BIN', os.path.join(here, '../../build/release/bin'))
        self.dir = tempfile.mkdtemp(prefix='cumulus-it-', dir=os.environ.get('CUMULUS_TEST_TMP'))
        self.home = os.path.join(self.dir, 'home')
        self.net = os.path.join(self.dir, 'net')
        self.miners, self.code, self.segment, self.volume = miners, code, segment, volume
        self.random = random.Random(SEED)
        self.recovery_code = ''
        self.homes = [self.home]
        # Programs of the asan build, daemons and miners too, write here what they did wrong; any such file is a failure.
        given = [option for option in os.environ.get('ASAN_OPTIONS', '').split(':') if option and not option.startswith('log_path=')]
        os.environ['ASAN_OPTIONS'] = ':'.join([*given, f'log_path={self.path("sanitizer")}'])
        self.disks = []

    # --- running programs ---
    def start(self, *words, home=None, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, program='cumulus', user=None):
        environment = {**os.environ, 'CUMULUS_HOME': home or self.home}
        program = os.path.join(self.bin, program)
        who = {}
        if user is not None:  # who may not reach the programs where they were built
            who = {'user': user, 'group': user, 'extra_groups': []}
            copied = self.path(os.path.basename(program))
            if not os.path.exists(copied):
                shutil.copy(program, copied)
            program = copied
        return subprocess.Popen([program, *map(str, words)], env=environment, stdin=stdin,
                                stdout=stdout, stderr=subprocess.PIPE, **who)

    def attempt(self, *words, home=None, text=None, timeout=180, program='cumulus', user=None):
        """(exit code, standard output as bytes, standard error as text)"""
        process = self.start(*words, home=home, stdin=subprocess.PIPE if text is not None else subprocess.DEVNULL, program=program, user=user)
        try:
            out, errors = process.communicate(text.encode() if text is not None else None, timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise Wrong(f'{" ".join(map(str, words))}: not done after {timeout} s')
        return process.returncode, out, errors.decode(errors='replace')

    def run(self, *words, **how):
        code, out, errors = self.attempt(*words, **how)
        expect(code == 0, f'{" ".join(map(str, words))}: exit code {code}: {errors.strip()}')
        return out

    def json(self, *words, **how):
        return json.loads(self.run(*words, '--json', **how))

    def refused(self, *words, says=(), codes=(1, 2), **how):
        """The command fails as commands should: exit code 1 or 2 and one line that contains each of `says`."""
        code, _, errors = self.attempt(*words, **how)
        shown = f'{" ".join(map(str, words))}: exit code {code}: {errors!r}'
        expect(code in codes, f'{shown}: expected {codes}')
        lines = [line for line in errors.strip().split('\n') if line]
        expect(len(lines) == 1 and len(errors) > 10, f'{shown}: expected one line')
        for word in [says] if isinstance(says, str) else says:
            expect(word.lower() in errors.lower(), f'{shown}: expected it to say "{word}"')
        return errors.strip()

    # --- network and volume ---
    def up(self, create=True):
        self.run('devnet', 'up', '--miners', self.miners, '--dir', self.net)
        if create:
            made = self.json('volume', 'create', self.volume, '--miners', self.list, '--code', self.code, '--segment', self.segment)
            self.recovery_code = made['recovery_code']
            self.run('volume', 'set', self.volume, 'outage-wait=4s')
        return self

    @property
    def list(self):
        return os.path.join(self.net, 'miners.toml')

    def miner(self, verb, index, *more):
        self.run('devnet', verb, index, '--dir', self.net, *more)

    def status(self, home=None):
        return self.json('volume', 'status', self.volume, home=home)

    def status_of(self, volume):
        return self.json('volume', 'status', volume)

    def daemon_pid(self):
        return self.status()['daemon_pid']

    def kill_daemon(self):
        pid = self.daemon_pid()
        os.kill(pid, signal.SIGKILL)
        self.gone(pid)

    def without_daemon(self):
        """Until no daemon of the laboratory's volumes runs any more."""
        give_up = time.time() + 20
        while daemons := [line for line in self.processes().values() if ' daemon ' in line]:
            expect(time.time() < give_up, f'it goes on although nobody waits for it: {daemons}')
            time.sleep(0.05)

    def gone(self, pid):
        """Until a killed process is no more."""
        while os.path.exists(f'/proc/{pid}') and open(f'/proc/{pid}/stat').read().rsplit(')', 1)[1].split()[0] != 'Z':
            time.sleep(0.005)

    def sync(self, **how):
        self.run('volume', 'sync', self.volume, **how)

    def drop_cache(self):
        self.run('volume', 'drop-cache', self.volume)

    def check_clean(self, data=False):
        code, out, errors = self.attempt('volume', 'check', self.volume, *(['--data'] if data else []), timeout=1800)
        expect(code == 0, f'volume check{" --data" if data else ""} is not clean: {out.decode()[:2000]} {errors}')

    def repair(self):
        """Right after miners came back: a repair tries them at once, whatever failed before."""
        code, out, errors = self.attempt('volume', 'repair', self.volume, timeout=1800)
        expect(code == 0, f'volume repair: {out.decode()[:2000]} {errors}')
        status = self.status()
        crowded, degraded = status['segments_crowded'], status['segments_degraded']
        expect(crowded == 0 or self.miners < 6, f'{crowded} segments are crowded after a repair: {out.decode()}')
        expect(degraded == 0, f'{degraded} segments are degraded after a repair: {out.decode()}')

    # --- files ---
    def path(self, name):
        return os.path.join(self.dir, name)

    def files(self, total):
        """A folder of real files (programs, libraries, sources) of about `total` bytes, and edge sizes; name -> SHA-256."""
        top = self.path('files')
        os.makedirs(top, exist_ok=True)
        sizes = [0, 1, 4095, 4096, 4097, 262144, (1 << 20) + 1, 3 * (1 << 20)]
        for size in sizes:
            with open(os.path.join(top, f'made-{size}'), 'wb') as file:
                file.write(self.random.randbytes(size))
        left = total - sum(sizes)
        candidates, there = [], 0
        for folder in ('/usr/include', '/usr/bin', '/usr/share/doc', '/usr/lib/x86_64-linux-gnu', '/usr/lib', '/usr/share'):
            for where, _, names in os.walk(folder):
                found = [os.path.join(where, name) for name in sorted(names)]
                found = [(name, os.path.getsize(name)) for name in found if os.path.isfile(name) and not os.path.islink(name)]
                candidates += found
                there += sum(size for _, size in found)
            if there > 2 * total and len(candidates) > 5000:
                break
        self.random.shuffle(candidates)
        for source, size in candidates:
            if left <= 0:
                break
            if size > left:
                continue
            target = os.path.join(top, source.lstrip('/'))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copyfile(source, target)
            left -= size
        expect(left <= total // 20, f'there are not enough files in /usr: {left} of {total} bytes are missing')
        found = {}
        for where, _, names in os.walk(top):
            for name in names:
                full = os.path.join(where, name)
                found[os.path.relpath(full, top)] = sha_of(full)
        return top, found

    def put_bytes(self, name, size, bucket='b', may_fail=False):
        """The SHA-256 of random bytes that were put and are safe on this machine's disk; '' when that was refused, if it may be."""
        path = self.path('put-bytes')
        with open(path, 'wb') as file:
            file.write(self.random.randbytes(size))
        code, _, errors = self.attempt('object', 'put', f'{self.volume}/{bucket}', name, path)
        told = code == 1 and 'space' in errors and errors.count('\n') == 1
        expect(code == 0 or (may_fail and told), f'object put {name}: exit code {code}: {errors}')
        return sha_of(path) if code == 0 else ''

    def small_disk(self, name, size):
        """A folder on a disk of its own, gone with the laboratory."""
        folder = self.path(name)
        os.makedirs(folder)
        done = subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size},mode=700', 'tmpfs', folder], capture_output=True, text=True)
        expect(done.returncode == 0, f'mount a small disk: {done.stderr.strip()} (needs root)')
        self.disks.append(folder)
        return folder

    def put_folder(self, folder, bucket='b'):
        self.run('object', 'put', f'{self.volume}/{bucket}', '.', folder, '-r', timeout=900)

    def verify(self, expected, bucket='b', home=None, volume=None):
        """Every object is there with its bytes, and nothing else."""
        volume = volume or self.volume
        names = {entry['name'] for entry in self.json('object', 'ls', f'{volume}/{bucket}', home=home)}
        expect(names == set(expected), f'names differ: missing {sorted(set(expected) - names)[:3]}, extra {sorted(names - set(expected))[:3]}')
        back = self.path('back')
        self.run('object', 'get', f'{volume}/{bucket}', '.', back, '-r', home=home, timeout=1800)
        for name, sha in expected.items():
            expect(sha_of(os.path.join(back, name)) == sha, f'{name}: other bytes came back')
        shutil.rmtree(back)

    # --- the end ---
    def __enter__(self):
        return self

    def processes(self):
        found = {}
        for pid in filter(str.isdigit, os.listdir('/proc')):
            try:
                words = open(f'/proc/{pid}/cmdline', 'rb').read().split(b'\0')
            except OSError:
                continue
            line = b' '.join(words).decode(errors='replace')
            if self.dir in line and 'cumulus' in os.path.basename(words[0].decode(errors='replace')):
                found[int(pid)] = line
        return found

    def outgrown(self):
        """What took more memory than it may, since it started: a line for each process."""
        found = []
        for pid, line in self.processes().items():
            words = line.split()
            try:
                peak = int(re.search(r'VmHWM:\s+(\d+)', open(f'/proc/{pid}/status').read())[1]) << 10
                if 'daemon' in words:
                    home = words[words.index('--home') + 1]
                    limit = json.load(open(os.path.join(home, 'volumes', words[-1], 'settings.json')))['memory']
                elif os.path.basename(words[0]) == 'cumulus-miner':
                    limit = 256 << 20
                else:
                    continue
            except (OSError, TypeError):
                continue  # it has ended
            if peak > limit:
                found.append(f'{peak >> 20} MiB, and {limit >> 20} are allowed: {line}')
        return found

    def __exit__(self, kind, error, trace):
        if kind is not None:
            self.show_logs()
        outgrown = [] if 'asan' in self.bin else self.outgrown()
        self.unmount_all()
        for home in self.homes:
            volumes = os.path.join(home, 'volumes')
            for name in os.listdir(volumes) if os.path.isdir(volumes) else []:
                self.attempt('volume', 'stop', name, home=home)
        if os.path.isdir(self.net):
            self.attempt('devnet', 'down', '--dir', self.net)
        deadline = time.time() + 10
        while self.processes() and time.time() < deadline:
            time.sleep(0.05)
        left = self.processes()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        reports = self.sanitizer_reports()
        for text in reports:
            print(text[:8000], file=sys.stderr)
        for disk in self.disks:
            subprocess.run(['umount', '-l', disk], stderr=subprocess.DEVNULL)
        if os.environ.get('CUMULUS_KEEP'):
            print(f'kept: {self.dir}')
        else:
            shutil.rmtree(self.dir, ignore_errors=True)
        if left and kind is None:
            raise Wrong(f'left running: {list(left.values())}')
        if reports and kind is None:
            raise Wrong(f'{len(reports)} processes did what the address sanitizer forbids: see above')
        if outgrown and kind is None:
            raise Wrong(f'more memory than allowed: {outgrown}')
        return False

    def sanitizer_reports(self):
        names = sorted(name for name in os.listdir(self.dir) if name.startswith('sanitizer.'))
        return [open(self.path(name), errors='replace').read() for name in names]

    def unmount_all(self):
        """What a failed test left mounted, dead or alive."""
        with open('/proc/self/mountinfo') as table:
            left = [line.split()[4] for line in table if line.split()[4].startswith(self.dir + '/')]
        for directory in reversed([one for one in left if one not in self.disks]):
            subprocess.run(['umount', '-l', directory], stderr=subprocess.DEVNULL)

    def show_logs(self):
        for home in self.homes:
            log = os.path.join(home, 'volumes', self.volume, 'daemon.log')
            if os.path.exists(log):
                lines = open(log, errors='replace').read().strip().split('\n')
                print(f'--- the end of {log}', *lines[-20:], sep='\n', file=sys.stderr)


def sha_of(path):
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def main(*tests):
    """Runs each test in turn; names on the command line choose."""
    chosen = sys.argv[1:]
    for test in tests:
        if chosen and test.__name__ not in chosen:
            continue
        began = time.time()
        print(f'{test.__name__} (CUMULUS_SEED={SEED})', flush=True)
        test()
        print(f'{test.__name__}: {time.time() - began:.1f} s', flush=True)
