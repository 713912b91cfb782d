"""Disks over NBD on real processes: libnbd, nbdinfo, nbdcopy, qemu-img and qemu-io as clients; changed blocks, TLS, bad
input, exclusive attach. Holds lines of blockdev/SEMANTICS.md."""
import contextlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

import nbd
from lab import Lab, expect, main, sha_of

SIZE = 64 << 20
GREEDY_READS = 10_000


def tool(*words, fails=False, timeout=120):
    done = subprocess.run(list(map(str, words)), capture_output=True, timeout=timeout)
    expect((done.returncode != 0) == fails, f'{words}: exit {done.returncode}: {done.stdout[-500:]} {done.stderr[-500:]}')
    return done.stdout.decode(errors='replace')


class Disk:
    """One image served on a unix socket."""

    def __init__(self, lab, *flags, name='disk', size=SIZE, make=True):
        self.lab, self.name, self.socket = lab, name, lab.path(f'{name}.sock')
        if make:
            lab.run('image', 'create', f'{lab.volume}/{name}', '--size', str(size))
        self.serve(*flags)

    def serve(self, *flags):
        self.lab.run('nbd', 'serve', f'{self.lab.volume}/{self.name}', '--socket', self.socket, *flags)

    def uri(self, export=None):
        return f'nbd+unix:///{export or self.name}?socket={self.socket}'

    def connect(self, export=None, contexts=(), before=None):
        handle = nbd.NBD()
        for context in contexts:
            handle.add_meta_context(context)
        if before:
            before(handle)
        handle.connect_uri(self.uri(export))
        return handle


def hosts():
    """The examples of blockdev/HOSTS.md, as they stand, and the units of systemd."""
    here = os.path.dirname(os.path.abspath(__file__))
    page = open(os.path.join(here, '../../blockdev/HOSTS.md')).read()
    scripts = re.findall(r'^```sh\n(.*?)^```', page, re.M | re.S)
    expect(len(scripts) >= 5, 'the page has lost its examples')
    with Lab(volume='photos').up() as lab:
        run = lab.path('run')
        os.mkdir(run)
        environment = {**os.environ, 'CUMULUS_HOME': lab.home, 'PATH': f'{os.path.abspath(lab.bin)}:{os.environ["PATH"]}'}
        for script in scripts:
            done = subprocess.run(['bash', '-euxc', script.replace('/run/cumulus', run)], env=environment, capture_output=True, text=True,
                                  timeout=120)
            expect(done.returncode == 0, f'{script}: exit {done.returncode}: {done.stdout[-500:]} {done.stderr[-800:]}')
            if 'dirty-bitmap' in script:
                changed = [line.split() for line in done.stdout.split('\n') if line.endswith('dirty') and 'clean' not in line]
                expect([words[:3] for words in changed] == [['1048576', '65536', '1']], f'changed: {done.stdout}')
    units = os.path.join(here, '../../packaging/systemd')
    with tempfile.TemporaryDirectory() as folder:
        names = sorted(name for name in os.listdir(units) if name.endswith('.service'))
        expect(len(names) >= 2, f'the units are gone: {names}')
        for unit in names:  # an instance of each, with a program that is there
            text = open(os.path.join(units, unit)).read().replace('/usr/bin/cumulus', f'{os.path.abspath(lab.bin)}/cumulus')
            instance = os.path.join(folder, unit.replace('@', '@photos-disk'))
            open(instance, 'w').write(text)
            verdict = subprocess.run(['systemd-analyze', 'verify', '--man=no', '--recursive-errors=no', instance], capture_output=True,
                                     text=True)
            expect(verdict.returncode == 0 and unit.split('@')[0] not in verdict.stderr, f'{unit}: {verdict.stderr}')


def clients():
    """Every command and flag through libnbd, and the usual tools."""
    with Lab().up() as lab:
        disk = Disk(lab)
        info = json.loads(tool('nbdinfo', '--json', disk.uri()))['exports'][0]
        expect(info['export-size'] == SIZE and info['can_multi_conn'] and info['can_fast_zero'], info)
        expect(tuple(info[f'block_size_{which}'] for which in ('minimum', 'preferred', 'maximum')) == (1, 4096, 32 << 20), info)
        a, b = disk.connect(contexts=['base:allocation']), disk.connect()
        model = bytearray(SIZE)
        for count in range(400):
            offset = lab.random.randrange(SIZE)
            length = min(lab.random.choice([1, 511, 512, 4096, 70000, 1 << 20]), SIZE - offset)
            fua = nbd.CMD_FLAG_FUA if count % 37 == 0 else 0
            one, other = lab.random.sample([a, b], 2)
            kind = lab.random.randrange(4)
            if kind == 0:
                one.zero(length, offset, fua | (nbd.CMD_FLAG_NO_HOLE if count % 2 else nbd.CMD_FLAG_FAST_ZERO))
            elif kind == 1:
                one.trim(length, offset, fua)
            if kind <= 1:
                model[offset:offset + length] = bytes(length)
            else:
                data = lab.random.randbytes(length)
                one.pwrite(data, offset, fua)
                model[offset:offset + length] = data
            start = max(0, offset - 1000)
            expect(other.pread(length + 1000, start) == model[start:start + length + 1000] if start + length + 1000 <= SIZE
                   else True, f'other bytes at {start}')
        a.flush()
        a.cache(1 << 20, 0)
        whole = lab.path('whole')
        tool('nbdcopy', disk.uri(), whole)
        with open(whole, 'rb') as file:
            expect(file.read() == model, 'nbdcopy read other bytes')
        tool('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', whole, disk.uri())
        tool('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', disk.uri(), lab.path('copy.qcow2'))
        tool('qemu-img', 'check', lab.path('copy.qcow2'))
        tool('qemu-img', 'compare', '-F', 'qcow2', '-f', 'raw', disk.uri(), lab.path('copy.qcow2'))
        tool('qemu-img', 'bench', '-f', 'raw', '-c', 200, '-d', 16, '-w', '--flush-interval', 50, disk.uri())
        tool('qemu-img', 'map', '--output=json', '-f', 'raw', disk.uri())
        tool('nbdcopy', whole, disk.uri())
        tool('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', whole, disk.uri())
        for command, wrong in ((lambda: a.pread(512, SIZE), 22), (lambda: a.pwrite(bytes(512), SIZE - 1), 28),
                               (lambda: a.zero(2, SIZE - 1), 28), (lambda: a.trim(2, SIZE - 1), 22)):
            a.set_strict_mode(0)
            try:
                command()
                expect(False, 'a request beyond the end was done')
            except nbd.Error as error:
                expect(error.errnum == wrong, f'{error.errnum} is not {wrong}')
        lab.run('nbd', 'stop', f'{lab.volume}/disk')
        expect(not os.path.exists(disk.socket), 'the socket is left behind')
        lab.check_clean()


def stretches(handle, context, size, step=16 << 20):
    found = []

    def add(name, offset, entries, error):
        if name == context:
            for length, flags in zip(entries[::2], entries[1::2]):
                found.append((offset, length, flags))
                offset += length
    at = 0
    while at < size:
        before = len(found)
        handle.block_status(min(step, size - at), at, add)
        expect(len(found) > before, 'block status told nothing')
        at = found[-1][0] + found[-1][1]
    return found


def changed_blocks():
    """Incremental backup: what changed since a snapshot, under both names, against a byte compare."""
    with Lab().up() as lab:
        disk = Disk(lab)
        handle = disk.connect()
        for at in range(0, SIZE // 2, 1 << 20):
            handle.pwrite(lab.random.randbytes(1 << 20), at)
        lab.run('snapshot', 'create', f'{lab.volume}/disk@one')
        for _ in range(60):
            handle.pwrite(lab.random.randbytes(lab.random.randrange(1, 20000)), lab.random.randrange(SIZE - 20000))
        handle.trim(3 << 20, 5 << 20)
        handle.flush()
        names = ['base:allocation', 'cumulus:changed-since:one', 'qemu:dirty-bitmap:one']
        now = disk.connect(contexts=names)
        old = disk.connect('disk@one')
        expect(old.is_read_only() and not now.is_read_only(), 'a snapshot is read-only, the head is not')
        ours, theirs = (stretches(now, name, SIZE) for name in names[1:])
        expect(ours == theirs, 'the two names of one context differ')
        before, after = (b''.join(h.pread(1 << 20, at) for at in range(0, SIZE, 1 << 20)) for h in (old, now))
        changed = 0
        for offset, length, flags in ours:
            changed += length if flags else 0
            expect(flags == 1 or before[offset:offset + length] == after[offset:offset + length], f'{offset}+{length} changed')
        expect(changed < SIZE // 4, f'{changed} bytes are called changed')
        for offset, length, flags in stretches(now, names[0], SIZE):
            expect(not flags & 2 or not any(after[offset:offset + length]), f'{offset}+{length} is not zero')
        lab.refused('snapshot', 'rollback', f'{lab.volume}/disk@one', says='in use')
        lab.refused('image', 'rm', f'{lab.volume}/disk', says='in use')
        sealed = disk.connect('disk@one')
        sealed.set_strict_mode(0)
        try:
            sealed.pwrite(b'x', 0)
            expect(False, 'a snapshot was written')
        except nbd.Error as error:
            expect(error.errnum == 1, f'{error.errnum} is not EPERM')


def attach():
    """One writable export an image; many readers; replacing; the same command after a restart."""
    with Lab().up() as lab:
        disk = Disk(lab)
        second = lab.path('second.sock')
        said = lab.refused('nbd', 'serve', f'{lab.volume}/disk', '--socket', second, says='in use')
        expect(disk.socket in said and str(lab.daemon_pid()) in said, said)
        lab.run('nbd', 'serve', f'{lab.volume}/disk', '--socket', second, '--read-only')
        lab.run('nbd', 'serve', lab.volume, '--listen', '127.0.0.1:0')
        shown = lab.json('nbd', 'ls')
        expect(len(shown) == 3, shown)
        page = open(os.path.join(os.path.dirname(os.path.abspath(__file__)), '../../tools/cumulus/README.md')).read()
        for row, documents in (('`nbd ls`', shown), ('`image ls`', lab.json('image', 'ls', lab.volume))):
            told = next(line for line in page.split('\n') if line.startswith('|') and row in line)
            untold = [field for one in documents for field in one if f'`{field}`' not in told]
            expect(documents and not untold, f'{row} prints {untold}, which the page does not tell of')
        tcp = next(one for one in shown if one['image'] == '')
        tool('nbdinfo', f'{tcp["uri"]}disk', fails=True)
        host, port = tcp['address'].rsplit(':', 1)
        with socket.create_connection((host, int(port))) as silent:
            expect(silent.recv(8, socket.MSG_WAITALL) == b'NBDMAGIC', 'no greeting')
            until = time.monotonic() + 5
            while not watched(int(port)):
                expect(time.monotonic() < until, 'a client whose host died would stay for ever')
                time.sleep(0.1)
        writer = disk.connect()
        writer.pwrite(b'kept', 0)
        writer.flush()
        third = lab.path('third.sock')
        lab.run('nbd', 'serve', f'{lab.volume}/disk', '--socket', third, '--replace')
        expect(not os.path.exists(disk.socket), 'the replaced server is still there')
        lab.run('image', 'create', f'{lab.volume}/other', '--size', '1M')
        lab.run('nbd', 'serve', f'{lab.volume}/other', '--socket', lab.path('other.sock'), '--replace')
        held = [one['image'] for one in lab.json('nbd', 'ls')]
        expect(sorted(held) == ['', 'disk', 'disk', 'other'], f'replacing one server ended others: {held} are left')
        lab.run('nbd', 'stop', lab.volume)
        lab.run('volume', 'stop', lab.volume)
        disk.serve()
        expect(disk.connect().pread(4, 0) == b'kept', 'a flushed write is gone after a restart')
        lab.refused('nbd', 'serve', f'{lab.volume}/nothing', '--socket', second, says='nothing')
        lab.refused('nbd', 'serve', f'{lab.volume}/disk@one', '--socket', second, says=f'serve \'{lab.volume}/disk\'')
        lab.refused('nbd', 'serve', f'{lab.volume}/other', '--listen', '127.0.0.1:99999', says='65535')
        lab.refused('nbd', 'ls', 'nobody', says='nobody')
        lab.run('image', 'create', f'{lab.volume}/a b?%41&ü', '--size', '1M')
        odd = lab.json('nbd', 'serve', f'{lab.volume}/a b?%41&ü', '--socket', lab.path('a b&%41.sock'))['uri']
        expect(tool('nbdinfo', '--size', odd).strip() == str(1 << 20), odd)
        lab.refused('nbd', 'serve', f'{lab.volume}/disk', '--socket', second, '--listen', '127.0.0.1:0', codes=(1, 2), says='--socket')


def foreground():
    """`--foreground` stays for its own server: it ends when that is replaced, and then ends nobody else's."""
    with Lab().up() as lab:
        lab.run('image', 'create', f'{lab.volume}/disk', '--size', str(SIZE))
        first, second = lab.path('first.sock'), lab.path('second.sock')

        def serve(path):
            process = lab.start('nbd', 'serve', f'{lab.volume}/disk', '--socket', path, '--replace', '--foreground')
            said = process.stdout.readline().decode()
            expect(path in said, f'{said!r}')
            return process

        def ended(process, what):
            try:
                _, errors = process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                expect(False, f'{what}: the command has not ended')
            return process.returncode, errors.decode()
        with contextlib.ExitStack() as whatever_comes:
            command = serve(first)
            whatever_comes.callback(lambda: command.poll() is None and command.kill())
            for path in (first, second):  # the same address first
                other = serve(path)
                whatever_comes.callback(lambda process=other: process.poll() is None and process.kill())
                code, errors = ended(command, f'replaced on {path}')
                expect(code == 0 and 'replaced' in errors and path in errors, f'exit {code}: {errors}')
                time.sleep(1)
                expect([one['address'] for one in lab.json('nbd', 'ls')] == [path], 'the server that replaced it is gone')
                command = other
            command.send_signal(signal.SIGINT)
            ended(command, 'interrupted')
            until = time.monotonic() + 20
            while lab.json('nbd', 'ls'):
                expect(time.monotonic() < until, 'interrupted, and its server is still there')
                time.sleep(0.1)
            command = serve(first)
            lab.run('nbd', 'stop', lab.volume)
            code, errors = ended(command, 'stopped')
            expect(code == 0 and 'replaced' not in errors, f'exit {code}: {errors}')


def watched(port):
    """Whether the kernel asks silent clients of this port, by the timers of its connections."""
    with open('/proc/net/tcp') as file:
        lines = [line.split() for line in file][1:]
    timers = [words[5] for words in lines if words[1].endswith(f':{port:04X}') and words[3] == '01']
    return bool(timers) and all(timer.startswith('02') for timer in timers)


def raw(disk):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(20)
    client.connect(disk.socket)
    expect(client.recv(18, socket.MSG_WAITALL)[:8] == b'NBDMAGIC', 'no greeting')
    return client


def transmission(disk, extended=False, size=SIZE):
    client = raw(disk)
    client.sendall(struct.pack('>I', 3))
    if extended:
        client.sendall(b'IHAVEOPT' + struct.pack('>II', 11, 0))
        expect(struct.unpack('>QIII', client.recv(20, socket.MSG_WAITALL))[2] == 1, 'extended headers were refused')
    client.sendall(b'IHAVEOPT' + struct.pack('>II', 1, len(disk.name)) + disk.name.encode())
    expect(struct.unpack('>QH', client.recv(10, socket.MSG_WAITALL))[0] == size, 'another size')
    return client


def long_ranges():
    """One request clears 128 GiB: nobody else waits for it, and the daemon's memory holds (the lab looks at the end)."""
    size, length = 1 << 40, 128 << 30
    with Lab().up() as lab:
        disk = Disk(lab, size=size)
        beside = disk.connect()
        beside.pwrite(b'x' * 4096, size - 4096)
        client = transmission(disk, extended=True, size=size)
        client.settimeout(300)
        done = []

        def clear():
            client.sendall(struct.pack('>IHHQQQ', 0x21e41c71, 2, 6, 77, 0, length))
            done.append(struct.unpack('>IHHQQQ', client.recv(32, socket.MSG_WAITALL)))
        thread = threading.Thread(target=clear)
        thread.start()
        longest, reads = 0, 0
        while thread.is_alive():
            begun = time.monotonic()
            expect(beside.pread(4096, size - 4096) == b'x' * 4096, 'other bytes')
            longest, reads = max(longest, time.monotonic() - begun), reads + 1
            time.sleep(0.005)
        thread.join()
        expect(done and done[0][2] == 0 and done[0][3] == 77, f'the answer is {done}')
        print(f'  {reads} reads meanwhile, the longest {longest * 1000:.0f} ms')
        expect(reads > 20 and longest < 2, f'{reads} reads meanwhile, one took {longest:.1f} s')
        handle = disk.connect(contexts=['base:allocation'])
        for offset, part, flags in stretches(handle, 'base:allocation', length, step=1 << 30):
            expect(flags == 2, f'{offset}+{part} is {flags}, not an allocated zero')
        client.close()


def closed(client):
    try:
        return client.recv(1) == b''
    except ConnectionResetError:
        return True


def bad_clients():
    """Nonsense gets the error that the protocol names or a closed connection; everybody else goes on."""
    with Lab().up() as lab:
        disk = Disk(lab)
        good = disk.connect()
        good.pwrite(b'here', 4096)
        for hello in (struct.pack('>I', 0), struct.pack('>I', 99), struct.pack('>I', 3) + bytes(16),
                      struct.pack('>I', 3) + b'IHAVEOPT' + struct.pack('>II', 7, 0xffffffff),
                      struct.pack('>I', 3) + b'IHAVEOPT' + struct.pack('>II', 1, 3) + b'xxx'):
            client = raw(disk)
            client.sendall(hello)
            expect(closed(client), f'{hello!r} was taken')
        client = transmission(disk)
        client.sendall(bytes(28))
        expect(closed(client), 'a wrong magic was taken')
        client = transmission(disk)
        client.sendall(struct.pack('>IHHQQI', 0x25609513, 0, 1, 1, 0, (32 << 20) + 1))
        expect(closed(client), 'a payload beyond the limit was taken')
        client = transmission(disk)
        for flags, kind, offset, length, code in ((0, 77, 0, 0, 22), (0, 0, 0, (32 << 20) + 1, 22), (0, 0, SIZE, 1, 22), (0, 0, 2 ** 64 - 1, 2, 22),
                                                  (0x40, 0, 0, 1, 22), (0, 7, 0, 1, 22), (0, 3, 1, 0, 22), (0, 6, SIZE, 1, 28)):
            client.sendall(struct.pack('>IHHQQI', 0x25609513, flags, kind, 5, offset, length))
            expect(struct.unpack('>IIQ', client.recv(16, socket.MSG_WAITALL)) == (0x67446698, code, 5), f'{kind}, {flags}')
        client = transmission(disk, extended=True)
        client.sendall(struct.pack('>IHHQQQ', 0x21e41c71, 0x20, 1, 1, 8192, 4) + b'ext!')
        expect(struct.unpack('>IHHQQQ', client.recv(32, socket.MSG_WAITALL))[:4] == (0x6e8a278c, 1, 0, 1), 'no write')
        client.sendall(struct.pack('>IHHQQQ', 0x21e41c71, 0, 0, 2, 8192, 4))
        expect(client.recv(44, socket.MSG_WAITALL)[-4:] == b'ext!', 'other bytes')
        client.sendall(struct.pack('>IHHQQQ', 0x21e41c71, 0, 4, 3, 0, 2 ** 40))
        expect(struct.unpack('>IHHQQQIH', client.recv(38, socket.MSG_WAITALL))[2::4] == (0x8001, 22), 'no EINVAL')
        # Half a request, then silence; a payload that stops; replies that nobody takes; a thousand connects.
        silent = [transmission(disk) for _ in range(3)]
        silent[0].sendall(bytes(5))
        silent[1].sendall(struct.pack('>IHHQQI', 0x25609513, 0, 1, 1, 0, 8 << 20) + bytes(100))
        for cookie in range(60):
            silent[2].sendall(struct.pack('>IHHQQI', 0x25609513, 0, 0, cookie, 0, 4 << 20))
        crowd = []
        for _ in range(1000):
            client = socket.socket(socket.AF_UNIX)
            client.connect(disk.socket)
            crowd.append(client)
        began = time.time()
        expect(good.pread(4, 4096) == b'here' and time.time() - began < 5, 'others were hurt')
        late = disk.connect()
        expect(late.pread(4, 4096) == b'here', 'nobody gets in any more')
        for client in crowd + silent:
            client.close()
        lab.run('nbd', 'stop', f'{lab.volume}/disk', timeout=60)


def resident(pid):
    """Bytes of memory that a process holds."""
    with open(f'/proc/{pid}/statm') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGESIZE')


def greedy_client(disk, length, meanwhile=lambda: None):
    """Asks for GREEDY_READS reads of `length` bytes and takes no answer; length 0: sends a 32 MiB write but for its last MiB.
    `meanwhile` is called as often as something was sent or could not be."""
    client = transmission(disk)
    client.setblocking(False)
    if length == 0:
        requests = struct.pack('>IHHQQI', 0x25609513, 0, 1, 1, 0, 32 << 20) + bytes(31 << 20)
    else:
        requests = b''.join(struct.pack('>IHHQQI', 0x25609513, 0, 0, cookie, 0, length) for cookie in range(GREEDY_READS))
    sent, until = 0, time.monotonic() + 10
    while sent < len(requests) and time.monotonic() < until:
        try:
            sent += client.send(requests[sent:sent + (1 << 20)])
            until = time.monotonic() + 1
        except BlockingIOError:
            time.sleep(0.01)
        meanwhile()
    return client


def receive(client, length):
    """Exactly so many bytes, or fewer when the other side ended."""
    data = b''
    while len(data) < length and (piece := client.recv(length - len(data))):
        data += piece
    return data


def greedy_at_the_end():
    """Stopping waits a few seconds for clients that take no answers or do not go on with a payload, whose sockets stay open."""
    with Lab().up() as lab:
        disks = [Disk(lab), Disk(lab, name='disk2')]
        data = lab.random.randbytes(8 << 20)
        disks[0].connect().pwrite(data, 0)
        for what, words in (('nbd stop', ('nbd', 'stop', f'{lab.volume}/disk')), ('volume stop', ('volume', 'stop', lab.volume))):
            with contextlib.ExitStack() as held:
                for disk, lengths in ((disks[0], (4096, 128 << 10, 4 << 20, 0)), (disks[1], (4096, 0) if what == 'volume stop' else ())):
                    for length in lengths:
                        held.enter_context(greedy_client(disk, length))
                # Most of these answers lie with the daemon when it is told to stop: who takes them, gets them.
                late = held.enter_context(transmission(disks[0]))
                late.sendall(b''.join(struct.pack('>IHHQQI', 0x25609513, 0, 0, cookie, 0, 1 << 20) for cookie in range(4)))
                time.sleep(1)
                began = time.monotonic()
                stopping = lab.start(*words)
                for _ in range(4):
                    expect(receive(late, 16 + (1 << 20))[16:] == data[:1 << 20], f'{what}: an answer in flight was lost')
                try:
                    _, errors = stopping.communicate(timeout=25)
                except subprocess.TimeoutExpired:
                    stopping.kill()
                    stopping.communicate()
                    expect(False, f'{what} is not done after 25 s')
                took = time.monotonic() - began
                expect(stopping.returncode == 0, f'{what}: {errors.decode()}')
                print(f'  {what}: {took:.1f} s')
                expect(took < 15, f'{what} took {took:.1f} s')
            disks[0].serve()
        expect(disks[0].connect().pread(len(data), 0) == data, 'other bytes')
        lab.run('nbd', 'stop', f'{lab.volume}/disk')


def unread_answers():
    """Clients that ask for gigabytes and take no answer, or send half of a large write: memory stays bounded, others go on."""
    with Lab().up() as lab:
        disk = Disk(lab)
        good = disk.connect()
        for at in range(0, SIZE, 4 << 20):
            good.pwrite(lab.random.randbytes(4 << 20), at)
        good.flush()
        held = good.pread(4096, 0)
        pid = lab.daemon_pid()
        before = resident(pid)
        held_memory = [before]
        lengths = [4096, 128 << 10, 4 << 20, 32 << 20] * 2 + [0] * 4
        greedy = []
        for length in lengths:
            greedy.append(greedy_client(disk, length, meanwhile=lambda: held_memory.append(resident(pid))))
            began = time.monotonic()
            expect(good.pread(4096, 0) == held, 'other bytes')
            expect(time.monotonic() - began < 5, f'another client waited {time.monotonic() - began:.1f} s')
        asked = GREEDY_READS * sum(lengths)
        most = max(*held_memory, resident(pid))
        # Of all clients: 64 MiB of payloads under way and 32 MiB not taken, or a request more; of each 4 MiB of small answers.
        expect(most - before < 240 << 20, f'{asked >> 30} GiB were asked for and not taken: {(most - before) >> 20} MiB more are held')
        for client in greedy:
            client.close()
        good.pwrite(b'goes on', 0, nbd.CMD_FLAG_FUA)
        expect(good.pread(7, 0) == b'goes on', 'other bytes')
        print(f'  {asked >> 30} GiB asked for and not taken: {(most - before) >> 20} MiB more held')
        lab.run('nbd', 'stop', f'{lab.volume}/disk', timeout=60)
        lab.check_clean()


def tls():
    """Certificates of one authority on both sides, or shared keys; nothing in clear, nobody without."""
    with Lab().up() as lab:
        keys = lab.path('pki')
        os.makedirs(keys)

        def openssl(*words):
            tool('openssl', *words)
        openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=authority', '-days', 2, '-keyout', f'{keys}/ca-key.pem',
                '-out', f'{keys}/ca-cert.pem')
        with open(f'{keys}/names', 'w') as file:
            file.write('subjectAltName=DNS:localhost,IP:127.0.0.1\n')
        for who in ('server', 'client'):
            openssl('req', '-newkey', 'rsa:2048', '-nodes', '-subj', f'/CN={who}', '-keyout', f'{keys}/{who}-key.pem', '-out', f'{keys}/{who}.csr')
            openssl('x509', '-req', '-in', f'{keys}/{who}.csr', '-CA', f'{keys}/ca-cert.pem', '-CAkey', f'{keys}/ca-key.pem',
                    '-CAcreateserial', '-days', 2, '-extfile', f'{keys}/names', '-out', f'{keys}/{who}-cert.pem')
        lab.run('image', 'create', f'{lab.volume}/disk', '--size', str(SIZE))
        made = lab.json('nbd', 'serve', f'{lab.volume}/disk', '--listen', 'localhost:0', '--tls-certificates', keys, '--allow', '127.0.0.0/8', '--allow', '::1')
        port = made['address'].rsplit(':', 1)[1]
        good = nbd.NBD()
        good.set_tls(nbd.TLS_REQUIRE)
        good.set_tls_certificates(keys)
        good.set_export_name('disk')
        good.connect_tcp('localhost', port)
        data = lab.random.randbytes(3 << 20)
        good.pwrite(data, 12345)
        expect(good.pread(len(data), 12345) == data, 'other bytes through TLS')
        alone = lab.path('alone')
        os.makedirs(alone)
        os.link(f'{keys}/ca-cert.pem', f'{alone}/ca-cert.pem')
        for settings in ((nbd.TLS_DISABLE, None), (nbd.TLS_REQUIRE, alone)):
            stranger = nbd.NBD()
            stranger.set_tls(settings[0])
            if settings[1]:
                stranger.set_tls_certificates(settings[1])
            stranger.set_export_name('disk')
            try:
                stranger.connect_tcp('localhost', port)
                stranger.pread(1, 0)
                expect(False, f'{settings} got in')
            except nbd.Error:
                pass
        lab.run('nbd', 'stop', lab.volume)
        psk = lab.path('keys.psk')
        with open(psk, 'w') as file:
            file.write('alice:' + lab.random.randbytes(32).hex() + '\n')
        wrong = lab.path('wrong.psk')
        with open(wrong, 'w') as file:
            file.write('alice:' + lab.random.randbytes(32).hex() + '\n')
        lab.run('nbd', 'serve', f'{lab.volume}/disk', '--socket', lab.path('s'), '--tls-psk', psk)
        for file, works in ((psk, True), (wrong, False)):
            client = nbd.NBD()
            client.set_tls(nbd.TLS_REQUIRE)
            client.set_tls_psk_file(file)
            client.set_tls_username('alice')
            client.set_export_name('disk')
            try:
                client.connect_unix(lab.path('s'))
                expect(works and client.pread(len(data), 12345) == data, 'a wrong key got in')
            except nbd.Error as error:
                expect(not works, f'{error}')
        lab.run('nbd', 'stop', lab.volume)
        lab.refused('nbd', 'serve', f'{lab.volume}/disk', '--socket', lab.path('s'), '--tls-certificates', alone, codes=(1, 2), says='server-cert.pem')


if __name__ == '__main__':
    main(*[globals()[name] for name in ('clients', 'changed_blocks', 'attach', 'foreground', 'bad_clients', 'unread_answers', 'greedy_at_the_end', 'long_ranges', 'tls', 'hosts')])
