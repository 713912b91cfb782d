"""Disk images in and out of a volume: formats, holes, resuming after kill -9, sizes, snapshots, clones by the hundred."""
import os
import signal
import subprocess
import time

import nbd

from lab import LONG, Lab, expect, main

MIB = 1 << 20
SIZE = (1024 if LONG else 192) * MIB


def make_disk(lab, name, size=SIZE):
    """A sparse raw disk: data in every third MiB, the rest holes."""
    path = lab.path(name)
    with open(path, 'wb') as disk:
        disk.truncate(size)
        for at in range(0, size, 3 * MIB):
            disk.seek(at + lab.random.randrange(4096))
            disk.write(lab.random.randbytes(min(MIB, size - disk.tell())))
    return path


def same(one, other, *formats):
    done = subprocess.run(['qemu-img', 'compare', *formats, one, other], capture_output=True, text=True, timeout=120)
    expect(done.returncode == 0, f'{one} and {other} differ: {done.stdout} {done.stderr}')


def formats():
    with Lab() as lab:
        lab.up()
        raw = make_disk(lab, 'disk.raw')
        for kind in ('raw', 'qcow2', 'vmdk'):
            source = lab.path(f'source.{kind}')
            subprocess.run(['qemu-img', 'convert', '-f', 'raw', '-O', kind, raw, source], check=True, timeout=120)
            lab.run('image', 'import', f'v/from-{kind}', source, '--format', kind)
        lab.sync()
        lab.drop_cache()
        for kind in ('raw', 'qcow2', 'vmdk'):
            back = lab.path(f'back.{kind}')
            lab.run('image', 'export', f'v/from-{kind}', back)
            same(raw, back, '-f', 'raw', '-F', 'raw')
            expect(os.stat(back).st_blocks * 512 < SIZE * 2 // 3, f'{back}: holes became data')
        lab.run('image', 'export', 'v/from-raw', lab.path('back.qcow2'), '--format', 'qcow2')
        same(raw, lab.path('back.qcow2'), '-f', 'raw', '-F', 'qcow2')
        used = lab.status()['live']
        expect(used < SIZE * 3 * 2 // 3, f'{used} bytes for three images of {SIZE // 3} bytes of data: holes were stored')
        lab.refused('image', 'import', 'v/from-raw', raw, says='already')
        lab.refused('image', 'import', 'v/x', lab.path('nothing'), says='no such file')
        lab.refused('image', 'export', 'v/nothing', lab.path('y'), says='nothing')
        lab.refused('image', 'export', 'v/from-raw@nothing', lab.path('y'), says='nothing')


def resumed():
    with Lab() as lab:
        lab.up()
        raw = make_disk(lab, 'disk.raw', SIZE * 4)
        kills = 0
        for attempt in range(20):
            process = lab.start('image', 'import', 'v/disk', raw)
            if attempt < 3:
                try:
                    process.wait(0.4 + 0.4 * attempt)
                except subprocess.TimeoutExpired:
                    os.kill(process.pid, signal.SIGKILL)
                    kills += 1
                process.communicate()
                if process.returncode == 0:
                    break
                continue
            _, errors = process.communicate(timeout=180)
            expect(process.returncode == 0, f'an interrupted import cannot go on: {errors.decode()}')
            break
        expect(kills > 0, 'no import was interrupted: nothing was tested')
        lab.run('snapshot', 'create', 'v/disk@s')
        back = lab.path('back.raw')
        process = lab.start('image', 'export', 'v/disk@s', back)
        time.sleep(0.5)
        process.kill()
        process.communicate()
        expect(not os.path.exists(back) or process.returncode == 0, 'half an export has the name of a whole one')
        lab.run('image', 'export', 'v/disk@s', back)
        same(raw, back, '-f', 'raw', '-F', 'raw')
        expect(not os.path.exists(back + '.part') and not os.path.exists(back + '.part.state'), 'the export left its parts behind')
        # Another file is not taken for the one that was interrupted.
        process = lab.start('image', 'import', 'v/other', raw)
        time.sleep(0.3)
        process.kill()
        process.communicate()
        if any(image['name'] == 'other' and 'importing' in image for image in lab.json('image', 'ls', 'v')):
            lab.refused('nbd', 'serve', 'v/other', '--socket', lab.path('other.sock'), says='not finished')
            lab.refused('image', 'export', 'v/other', lab.path('other.raw'), says='not finished')
            os.utime(raw)
            lab.refused('image', 'import', 'v/other', raw, says='another file')


def interrupt_export(lab, name, back):
    """Kills an export that would go on in the middle."""
    process = lab.start('image', 'export', name, back)
    state = back + '.part.state'
    while not os.path.exists(state) and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    process.communicate()
    expect(os.path.exists(state) and not os.path.exists(back), 'no export was interrupted: nothing was tested')


def write_at(lab, image, data, at):
    socket = lab.path('at.sock')
    lab.run('nbd', 'serve', f'v/{image}', '--socket', socket)
    handle = nbd.NBD()
    handle.connect_uri(f'nbd+unix:///{image}?socket={socket}')
    handle.pwrite(data, at)
    handle.flush()
    handle.shutdown()
    lab.run('nbd', 'stop', f'v/{image}')


def resumed_exports():
    """An interrupted export goes on with the very same snapshot, on the file that it began, or it begins anew."""
    with Lab() as lab:
        lab.up()
        raw = make_disk(lab, 'disk.raw', 640 * MIB)
        back = lab.path('back.raw')
        lab.run('image', 'import', 'v/disk', raw)
        lab.run('snapshot', 'create', 'v/disk@s')

        def export_is(expected, what):
            lab.run('image', 'export', 'v/disk@s', back)
            done = subprocess.run(['cmp', expected, back], capture_output=True, text=True, timeout=120)
            expect(done.returncode == 0, f'{what}: {done.stdout} {done.stderr}')
            expect(not os.path.exists(back + '.part') and not os.path.exists(back + '.part.state'), f'{what}: it left its parts behind')
            os.unlink(back)

        interrupt_export(lab, 'v/disk@s', back)
        at = os.stat(back + '.part').st_ino
        lab.run('image', 'export', 'v/disk@s', back)
        expect(os.stat(back).st_ino == at, 'an interrupted export began anew')
        os.unlink(back)

        interrupt_export(lab, 'v/disk@s', back)
        os.unlink(back + '.part')
        export_is(raw, 'the part was removed')

        interrupt_export(lab, 'v/disk@s', back)
        os.truncate(back + '.part', 100 * MIB)
        export_is(raw, 'the part was cut')

        # Another snapshot of the same name.
        interrupt_export(lab, 'v/disk@s', back)
        lab.run('snapshot', 'rm', 'v/disk@s')
        other = lab.random.randbytes(65536)
        write_at(lab, 'disk', other, MIB)
        lab.run('snapshot', 'create', 'v/disk@s')
        with open(raw, 'r+b') as disk:
            disk.seek(MIB)
            disk.write(other)
        export_is(raw, 'the snapshot was made anew')

        # In between something else began to become that file.
        write_at(lab, 'disk', lab.random.randbytes(65536), 2 * MIB)
        interrupt_export(lab, 'v/disk@s', back)
        process = lab.start('image', 'export', 'v/disk', back)
        time.sleep(0.4)
        process.kill()
        process.communicate()
        expect(not os.path.exists(back), 'no export was interrupted: nothing was tested')
        export_is(raw, 'the image itself was exported in between')


def changed_sources():
    """A disk that may have been written since is not gone on with; a file that was written meanwhile makes no image."""
    with Lab() as lab:
        lab.up()
        raw = make_disk(lab, 'disk.raw', SIZE * 4)
        unfinished = lambda name: any(image['name'] == name and 'importing' in image for image in lab.json('image', 'ls', 'v'))

        def begun(name, source):
            process = lab.start('image', 'import', f'v/{name}', source)
            while process.poll() is None and not unfinished(name):
                time.sleep(0.01)
            expect(process.poll() is None, f'{name}: the import is over already: nothing was tested')
            return process

        process = begun('file', raw)
        os.utime(raw)
        _, errors = process.communicate(timeout=180)
        expect(process.returncode == 1 and b'changed since' in errors, f'a file that changed under its import: {process.returncode} {errors}')
        expect(unfinished('file'), 'half one state and half another is called a whole image')
        lab.refused('nbd', 'serve', 'v/file', '--socket', lab.path('file.sock'), says='not finished')
        lab.run('image', 'rm', 'v/file')
        lab.run('image', 'import', 'v/file', raw)

        made = subprocess.run(['losetup', '--find', '--show', raw], capture_output=True, text=True)
        expect(made.returncode == 0, f'losetup: {made.stderr} (needs root)')
        disk = made.stdout.strip()
        try:
            process = begun('disk', disk)
            process.kill()
            process.communicate()
            lab.refused('image', 'import', 'v/disk', disk, says='begin anew')
            lab.run('image', 'rm', 'v/disk')
            lab.run('image', 'import', 'v/disk', disk)
        finally:
            subprocess.run(['losetup', '--detach', disk], check=True)
        lab.run('image', 'export', 'v/disk', lab.path('back.raw'))
        same(raw, lab.path('back.raw'), '-f', 'raw', '-F', 'raw')


def first_write_to_a_clone(lab, name, raw):
    """It copies nothing: it is durable while no miner answers and nothing of the parent is here, and takes little more than its bytes."""
    at, block = 17 * MIB, lab.random.randbytes(4096)
    lab.sync()
    lab.drop_cache()
    lab.run('nbd', 'serve', f'v/{name}', '--socket', lab.path('clone.sock'))
    disk = nbd.NBD()
    disk.connect_uri(f'nbd+unix:///{name}?socket={lab.path("clone.sock")}')
    for miner in range(1, 7):
        lab.miner('stop', miner)
    before = lab.status()['dirty']
    disk.pwrite(block, at, nbd.CMD_FLAG_FUA)
    took = lab.status()['dirty'] - before
    expect(4096 <= took < 8192, f'a write of 4096 bytes takes {took}')
    for miner in range(1, 7):
        lab.miner('start', miner)
    with open(raw, 'rb') as file:
        file.seek(at - 4096)
        around = file.read(3 * 4096)
    lab.repair()
    expect(disk.pread(3 * 4096, at - 4096) == around[:4096] + block + around[-4096:], 'other bytes beside the write')
    disk.shutdown()
    lab.run('nbd', 'stop', f'v/{name}')


def sizes_and_clones():
    with Lab() as lab:
        lab.up()
        lab.run('image', 'create', 'v/disk', '--size', '8M')
        lab.refused('image', 'resize', 'v/disk', '--size', '4M', says='shrink')
        lab.run('image', 'resize', 'v/disk', '--size', '4M', '--shrink')
        lab.run('image', 'resize', 'v/disk', '--size', '1T')
        sizes = {image['name']: image['size'] for image in lab.json('image', 'ls', 'v')}
        expect(sizes['disk'] == 1 << 40, f'resized to 1T: {sizes}')
        raw = make_disk(lab, 'golden.raw', 24 * MIB)
        lab.run('image', 'import', 'v/golden', raw)
        lab.run('snapshot', 'create', 'v/golden@1')
        count = 1000 if LONG else 200
        began = time.time()
        lab.run('clone', 'v/golden@1', 'v/vm', '--count', count)
        expect(time.time() - began < 10, f'{count} clones took {time.time() - began:.1f} s')
        names = {image['name'] for image in lab.json('image', 'ls', 'v')}
        expect({f'vm-{i}' for i in range(1, count + 1)} <= names, 'clones are missing')
        lab.run('image', 'export', f'v/vm-{count}', lab.path('clone.raw'))
        same(raw, lab.path('clone.raw'), '-f', 'raw', '-F', 'raw')
        lab.refused('snapshot', 'rm', 'v/golden@1', says='parent')
        first_write_to_a_clone(lab, 'vm-1', raw)
        expect('about' not in (shown := lab.run('volume', 'status', 'v').decode()) and 'disks' in shown, f'disks are called garbage: {shown}')
        lab.kill_daemon()
        expect(len(lab.json('image', 'ls', 'v')) == count + 2, 'a killed daemon lost clones')


def flattened():
    """A clone is made to stand on its own while a guest writes to it; its parents are protected until then, and can go after."""
    with Lab() as lab:
        lab.up()
        raw = make_disk(lab, 'golden.raw')
        lab.run('image', 'import', 'v/golden', raw)
        lab.run('snapshot', 'create', 'v/golden@1')
        lab.run('clone', 'v/golden@1', 'v/vm')
        lab.run('clone', 'v/golden@1', 'v/other')
        socket = lab.path('vm.sock')
        lab.run('nbd', 'serve', 'v/vm', '--socket', socket)
        handle = nbd.NBD()
        handle.connect_uri(f'nbd+unix:///vm?socket={socket}')
        with open(raw, 'rb') as disk:
            expected = bytearray(disk.read())
        before = lab.status()['used']
        lab.run('image', 'flatten', 'v/vm', '--background')
        for _ in range(300):
            data, at = lab.random.randbytes(8192), lab.random.randrange(SIZE - 8192)
            handle.pwrite(data, at)
            expected[at:at + 8192] = data
        lab.refused('image', 'rm', 'v/golden', says="parent of 'other'")
        lab.run('image', 'flatten', 'v/other')
        deadline = time.time() + 60
        while any(one.get('parent') for one in lab.json('image', 'ls', 'v')):
            expect(time.time() < deadline, 'the flattening in the background does not end')
            time.sleep(0.05)
        lab.sync()
        grown = lab.status()['used'] - before
        expect(grown < SIZE // 3, f'{grown} bytes for two flattened clones: their bytes were copied')
        lab.run('snapshot', 'create', 'v/vm@flat')
        lab.run('snapshot', 'rm', 'v/golden@1')
        lab.run('image', 'rm', 'v/golden')
        lab.kill_daemon()
        for name, want in (('vm@flat', bytes(expected)), ('other', open(raw, 'rb').read())):
            expect(bytes_at(lab, f'v/{name}') == want, f'{name} is another disk without its parent')
        lab.run('image', 'flatten', 'v/vm')
        lab.refused('image', 'flatten', 'v/nothing', says='nothing')
        lab.refused('snapshot', 'rollback', 'v/vm@none', says='no snapshot')
        lab.run('snapshot', 'rollback', 'v/vm@flat')
        lab.check_clean()


def rewrite(lab, raw, count=40):
    """Another state of the disk: bytes written anywhere, a stretch cleared."""
    size = os.path.getsize(raw)
    with open(raw, 'r+b') as disk:
        for _ in range(count):
            disk.seek(lab.random.randrange(size - 20000))
            disk.write(lab.random.randbytes(lab.random.randrange(1, 20000)))
        disk.seek(5 * MIB + 123)
        disk.write(bytes(MIB))


def put_into(lab, image, raw):
    """Writes what differs into the image, over NBD, as a guest would."""
    socket = lab.path('put.sock')
    lab.run('nbd', 'serve', f'v/{image}', '--socket', socket)
    uri = f'nbd+unix:///{image}?socket={socket}'
    handle = nbd.NBD()
    handle.connect_uri(uri)
    step = 65536
    with open(raw, 'rb') as disk:
        for at in range(0, os.path.getsize(raw), step):
            now = disk.read(step)
            if handle.pread(len(now), at) != now:
                if any(now):
                    handle.pwrite(now, at)
                else:
                    handle.zero(len(now), at)
    handle.flush()
    handle.shutdown()
    lab.run('nbd', 'stop', f'v/{image}')


def bytes_at(lab, name):
    path = lab.path('at.raw')
    lab.run('image', 'export', name, path)
    with open(path, 'rb') as disk:
        return disk.read()


def differences():
    """What changed, against a byte compare; the stream into another volume; what is refused; what an interruption leaves."""
    with Lab() as lab:
        lab.up()
        lab.run('volume', 'create', 'w', '--miners', lab.list, '--code', '4+2', '--segment', '1M')
        size = 24 * MIB
        raw = make_disk(lab, 'disk.raw', size)
        lab.run('image', 'import', 'v/disk', raw)
        lab.run('snapshot', 'create', 'v/disk@1')
        rewrite(lab, raw)
        put_into(lab, 'disk', raw)
        lab.run('snapshot', 'create', 'v/disk@2')
        states = {name: bytes_at(lab, f'v/disk@{name}') for name in '12'}
        with open(raw, 'rb') as disk:
            expect(states['2'] == disk.read(), 'the image is not what was written')

        ranges = lab.json('snapshot', 'diff', 'v/disk@1', 'v/disk@2')['ranges']
        inside = bytearray(size)
        for one in ranges:
            inside[one['offset']:one['offset'] + one['length']] = b'\1' * one['length']
        for at in range(size):
            if states['1'][at] != states['2'][at] and not inside[at]:
                expect(False, f'byte {at} changed and is in no range')
        expect(0 < sum(inside) < size // 3, f'{sum(inside)} bytes are called changed')
        expect(lab.json('snapshot', 'diff', 'v/disk@2', 'v/disk')['ranges'] == [], 'nothing was written since the snapshot')
        expect(lab.json('snapshot', 'diff', 'v/disk@2', 'v/disk@1')['ranges'] == ranges, 'a difference has no direction')

        whole, step = lab.path('whole.diff'), lab.path('step.diff')
        lab.run('snapshot', 'export', 'v/disk@1', '--output', whole)
        lab.run('snapshot', 'export', 'v/disk@1', 'v/disk@2', '--output', step)
        expect(os.path.getsize(whole) < size // 2 and os.path.getsize(step) < sum(inside) + 65536, 'holes or what did not change were sent')

        lab.refused('snapshot', 'import', 'w/copy', '--input', step, says='whole')
        lab.run('snapshot', 'import', 'w/copy', '--input', whole)
        expect(bytes_at(lab, 'w/copy@1') == states['1'], 'the whole is another disk')
        lab.refused('snapshot', 'import', 'w/copy', '--input', whole, says='already')

        # A stream cut anywhere: said so; given again, whole, it goes in.
        good = open(step, 'rb').read()
        for cut in (5, 100, len(good) // 2, len(good) - 1):
            with open(lab.path('cut.diff'), 'wb') as part:
                part.write(good[:cut])
            lab.refused('snapshot', 'import', 'w/copy', '--input', lab.path('cut.diff'), says='stream')
        bad = bytearray(good)
        bad[len(bad) // 2] ^= 1
        with open(lab.path('bad.diff'), 'wb') as part:
            part.write(bad)
        lab.refused('snapshot', 'import', 'w/copy', '--input', lab.path('bad.diff'), says='verify')
        expect(bytes_at(lab, 'w/copy@1') == states['1'], 'a refused stream changed the base')
        lab.run('snapshot', 'import', 'w/copy', '--input', step)
        expect(bytes_at(lab, 'w/copy') == states['2'] and bytes_at(lab, 'w/copy@2') == states['2'], 'the difference makes another disk')

        # Killed in the middle: nobody takes the half for a disk; the same stream still ends at the snapshot's very bytes.
        lab.run('snapshot', 'rm', 'w/copy@2')
        lab.run('snapshot', 'rollback', 'w/copy@1')
        socket = lab.path('w.sock')

        def interrupted(image, stream):
            feeder = lab.start('snapshot', 'import', image, stdin=subprocess.PIPE)
            feeder.stdin.write(stream[:len(stream) // 2])
            feeder.stdin.flush()
            time.sleep(0.5)
            if image == 'w/copy':
                lab.refused('snapshot', 'rollback', 'w/copy@1', says='in use')
            feeder.kill()
            feeder.communicate()
            time.sleep(0.3)
            lab.refused('nbd', 'serve', image, '--socket', socket, says='not finished')
            lab.refused('image', 'export', image, lab.path('half.raw'), says='not finished')
        interrupted('w/copy', good)
        expect([one.get('receiving') for one in lab.json('image', 'ls', 'w')] == ['2'], 'image ls does not tell of it')
        lab.run('snapshot', 'rollback', 'w/copy@1')
        lab.run('nbd', 'serve', 'w/copy', '--socket', socket)
        lab.refused('snapshot', 'import', 'w/copy', '--input', step, says='in use')
        lab.run('nbd', 'stop', 'w/copy')
        interrupted('w/copy', good)
        lab.run('snapshot', 'import', 'w/copy', '--input', step)
        expect(bytes_at(lab, 'w/copy@2') == states['2'], 'something slipped into the snapshot')
        interrupted('w/new', open(whole, 'rb').read())
        lab.run('snapshot', 'import', 'w/new', '--input', whole)
        expect(bytes_at(lab, 'w/new') == states['1'], 'the second time made another disk')

        # What is not the base is refused; a clone of the base is the base.
        lab.run('snapshot', 'rollback', 'v/disk@1')
        lab.run('clone', 'v/disk@1', 'v/twin')
        lab.run('snapshot', 'import', 'v/twin', '--input', step)
        expect(bytes_at(lab, 'v/twin@2') == states['2'], 'a clone took the difference wrongly')
        lab.run('image', 'create', 'v/other', '--size', size)
        lab.refused('snapshot', 'import', 'v/other', '--input', step, says='made from')
        lab.refused('snapshot', 'import', 'v/disk', '--input', step, says='already')
        lab.refused('snapshot', 'export', 'v/disk@1', 'v/disk@1', '--output', lab.path('x'), says='same')
        lab.refused('snapshot', 'export', 'v/disk@1', 'v/disk@9', '--output', lab.path('x'), says='no snapshot')
        lab.refused('snapshot', 'import', 'w/x', '--input', raw, says='stream')
        expect(not os.path.exists(lab.path('x')), 'a refused export left a file')

        # Names of a bucket.
        for name in ('kept', 'changed', 'gone'):
            lab.run('object', 'put', 'v/b', name, whole)
        lab.run('snapshot', 'create', 'v/b@1')
        lab.run('object', 'put', 'v/b', 'changed', step)
        lab.run('object', 'rm', 'v/b', 'gone')
        lab.run('object', 'put', 'v/b', 'new', step)
        names = {one['name']: one['change'] for one in lab.json('snapshot', 'diff', 'v/b@1', 'v/b')['names']}
        expect(names == {'changed': 'changed', 'gone': 'removed', 'new': 'added'}, f'the bucket differs by {names}')
        lab.refused('snapshot', 'diff', 'v/b@1', 'v/disk@1', says='images')
        lab.kill_daemon()
        expect(bytes_at(lab, 'w/copy@2') == states['2'], 'a killed daemon lost what was received')


main(formats, resumed, resumed_exports, changed_sources, sizes_and_clones, flattened, differences)
