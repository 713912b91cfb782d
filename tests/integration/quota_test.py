#!/usr/bin/env python3
"""Quotas of directory trees, as a person sets and meets them: mounted and not, with df, mv and ln."""
import errno
import os
import subprocess

from lab import Lab, expect, main
from mount_test import Mounted, fails, write

MIB = 1 << 20


def tree_quotas():
    with Lab() as lab:
        lab.up()
        home = f'{lab.volume}:/home/anna'
        with Mounted(lab) as top:
            os.makedirs(f'{top}/home/anna/deep')
            write(f'{top}/home/anna/deep/old', b'x' * MIB)
            lab.refused('fs', 'quota', home, says=['/home/anna', '--bytes'])
            set_now = lab.json('fs', 'quota', home, '--bytes', '4M', '--inodes', '10')
            expect(set_now == {'name': 'main', 'path': '/home/anna', 'bytes': MIB, 'bytes_max': 4 * MIB, 'inodes': 3, 'inodes_max': 10},
                   f'as set: {set_now}')
            shown = lab.run('fs', 'quota', f'{lab.volume}/main:home/anna/').decode()
            expect('of 4' in shown and '3 inodes of 10' in shown, f'as shown: {shown}')
            inside = os.statvfs(f'{top}/home/anna/deep')
            expect(inside.f_blocks * inside.f_frsize == 4 * MIB and inside.f_bavail * inside.f_frsize == 3 * MIB and inside.f_ffree == 7,
                   f'statfs inside: {inside}')
            expect(os.statvfs(f'{top}/home').f_blocks > inside.f_blocks, 'statfs outside is the whole')
            with open(f'{top}/home/anna/full', 'wb', buffering=0) as file:
                expect(file.write(b'y' * 3 * MIB) == 3 * MIB, 'what fits is taken')
                fails(errno.EDQUOT, file.write, b'z' * 4096)
            write(f'{top}/home/ben', b'not of the tree' * 100000)
            for number in range(6):
                write(f'{top}/home/anna/{number}', b'')
            fails(errno.EDQUOT, os.mkdir, f'{top}/home/anna/one-more')
            fails(errno.EXDEV, os.rename, f'{top}/home/anna/1', f'{top}/home/1')
            fails(errno.EXDEV, os.link, f'{top}/home/ben', f'{top}/home/anna/ben')
            os.unlink(f'{top}/home/anna/2')
            subprocess.run(['mv', f'{top}/home/anna/1', f'{top}/home/1'], check=True)  # copies, as mv does over such borders
            os.rename(f'{top}/home/anna', f'{top}/anna')
            expect(lab.json('fs', 'quota', f'{lab.volume}:/anna')['inodes'] == 8, 'a renamed directory keeps its quota')
            lab.refused('fs', 'quota', home, says='/home/anna')
            lab.refused('fs', 'quota', f'{lab.volume}:/home/ben', '--bytes', '1M', says='director')
            lab.refused('fs', 'quota', f'{lab.volume}:/../home', '--bytes', '1M', says='..')
            lab.refused('fs', 'quota', f'{lab.volume}:/.snapshots', '--bytes', '1M', says='snapshot')
        lab.kill_daemon()
        # Nobody has it mounted; the daemon is a new one.
        anna = f'{lab.volume}:/anna'
        there = lab.json('fs', 'quota', anna)
        expect(there['bytes'] == 4 * MIB and there['bytes_max'] == 4 * MIB and there['inodes'] == 8, f'after the daemon was killed: {there}')
        expect(lab.json('fs', 'quota', anna, '--bytes', '5M')['inodes_max'] == 10, 'one limit changed, the other not')
        with Mounted(lab) as top:
            with open(f'{top}/anna/more', 'wb', buffering=0) as file:
                file.write(b'y' * MIB)
                fails(errno.EDQUOT, file.write, b'z')
        gone = lab.json('fs', 'quota', anna, '--bytes', 'none', '--inodes', 'none')
        expect(gone['bytes_max'] == 0 and gone['inodes_max'] == 0, f'taken away: {gone}')
        lab.refused('fs', 'quota', anna, says='no quota')
        with Mounted(lab) as top:
            write(f'{top}/anna/free', b'y' * 6 * MIB)
            os.rename(f'{top}/anna/free', f'{top}/free')
            whole = lab.json('fs', 'quota', lab.volume)
            counted = sum(1 for _ in entries(top)) + 1
            taken = sum(os.lstat(path).st_blocks * 512 for path in entries(top))
            expect(whole['inodes'] == counted and 0 <= taken - whole['bytes'] < 512 * counted, f'{whole}, found {counted} inodes of {taken} bytes')
        lab.check_clean()


def entries(top):
    for where, folders, files in os.walk(top):
        for name in folders + files:
            yield os.path.join(where, name)


if __name__ == '__main__':
    main(tree_quotas)
