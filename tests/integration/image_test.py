"""Disk images in and out of a volume: formats, holes, resuming after kill -9, sizes, snapshots, clones by the hundred."""
import os
import signal
import subprocess
import time

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
            os.utime(raw)
            lab.refused('image', 'import', 'v/other', raw, says='another file')


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
        lab.kill_daemon()
        expect(len(lab.json('image', 'ls', 'v')) == count + 2, 'a killed daemon lost clones')


main(formats, resumed, sizes_and_clones)
