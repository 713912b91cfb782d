#!/usr/bin/env python3
"""snapshot diff of a file system, against both snapshots' trees as the mount shows them: known changes one by one, then
random ones (CUMULUS_SEED; CUMULUS_TEST_ROUNDS sets how often)."""
import os
import stat

from lab import LONG, Lab, expect, main
from mount_test import Mounted, write

ROUNDS = int(os.environ.get('CUMULUS_TEST_ROUNDS', 12 if LONG else 3))
NUMBER = (1 << 48) - 1  # of st_ino: the node without its snapshot


def difference(lab, older, newer):
    """{(change, path or (from, path))}, as bytes; the text form says the same."""
    found = lab.json('snapshot', 'diff', older, newer)['paths']
    told = set()
    for one in found:
        path = exact(one, 'path')
        told.add((one['change'], (exact(one, 'from'), path) if 'from' in one else path))
    expect(len(told) == len(found), 'something was told twice')
    text = lab.run('snapshot', 'diff', older, newer).decode(errors='replace')
    expect(text.count('\n') == len(told), f'{text.count(chr(10))} lines of text, {len(told)} changes')
    return told


def exact(entry, key):
    return bytes.fromhex(entry[key + '_hex']) if key + '_hex' in entry else entry[key].encode()


def known_changes():
    with Lab() as lab:
        lab.up()
        with Mounted(lab) as top:
            os.chdir(top)
            os.makedirs('same/deep')
            os.makedirs('old/folder/below')
            for name in ('same/deep/a', 'grown', 'rewritten', 'touched', 'owned', 'labelled', 'gone', 'moved', 'old/folder/below/inside',
                         'saved', 'log', 'linked', 'read', 'over', 'under', 'shadow', 'copy'):
                write(name, name.encode() * 1000)
            os.link('linked', 'other-link')
            os.symlink('a', 'link')
            os.mkdir('becomes-file')
            os.mkdir('emptied')
            write('emptied/last', b'')
            lab.run('snapshot', 'create', 'v/main@1')
            expect(difference(lab, 'v/main@1', 'v/main') == set(), 'nothing changed')
            with open('grown', 'ab') as file:
                file.write(b'more')
            with open('rewritten', 'r+b') as file:
                file.write(b'R')
            os.utime('touched', (5, 5))
            os.chmod('owned', 0o600)
            os.setxattr('labelled', 'user.label', b'x')
            os.unlink('gone')
            os.rename('moved', 'same/deep/moved')
            os.rename('old/folder', 'old/renamed')
            with open('old/renamed/below/inside', 'ab') as file:
                file.write(b'more')
            write('saved.tmp', b'new text')
            os.rename('saved.tmp', 'saved')
            os.rename('log', 'log.1')
            write('log', b'a new one')
            os.unlink('other-link')
            os.unlink('link')
            os.symlink('b', 'link')
            os.rmdir('becomes-file')
            write('becomes-file', b'')
            os.unlink('emptied/last')
            os.rename('over', 'under')
            os.link('shadow', 'new-link')
            os.truncate('copy', 3)
            os.mkdir('made')
            write(b'made/\xff\n', b'x')
            os.chmod('.', 0o711)
            with open('read', 'rb') as file:
                file.read()
            lab.run('snapshot', 'create', 'v/main@2')
            told = difference(lab, 'v/main@1', 'v/main@2')
            expected = {
                ('modified', b'/grown'), ('modified', b'/rewritten'), ('metadata', b'/touched'), ('metadata', b'/owned'),
                ('metadata', b'/labelled'), ('removed', b'/gone'), ('renamed', (b'/moved', b'/same/deep/moved')),
                ('renamed', (b'/old/folder', b'/old/renamed')), ('modified', b'/old/renamed/below/inside'), ('modified', b'/saved'),
                ('renamed', (b'/log', b'/log.1')), ('added', b'/log'), ('removed', b'/other-link'), ('modified', b'/link'),
                ('removed', b'/becomes-file'), ('added', b'/becomes-file'), ('removed', b'/emptied/last'),
                ('renamed', (b'/over', b'/under')), ('removed', b'/under'), ('added', b'/new-link'), ('modified', b'/copy'),
                ('added', b'/made'), ('added', b'/made/\xff\n'), ('metadata', b'/')}
            expect(told == expected, f'missing {expected - told}, too much {told - expected}')
            write('later', b'x')
            expect(('added', b'/later') in difference(lab, 'v/main@2', 'v/main'), 'compared with what is there now')
            os.chdir('/')
        back = difference(lab, 'v/main@2', 'v/main@1')
        expect(('added', b'/gone') in back and ('renamed', (b'/log.1', b'/log')) in back, f'the other way round: {back}')
        lab.run('clone', 'v/main@1', 'v/copy')
        expect(difference(lab, 'v/main@1', 'v/copy') == set(), 'a clone is what it was cloned from')
        with Mounted(lab, target='v/copy') as top:
            write(f'{top}/grown', b'quite another')
            write(f'{top}/saved.tmp', b'of the clone')
        expect(difference(lab, 'v/main@1', 'v/copy') == {('modified', b'/grown'), ('added', b'/saved.tmp')}, 'a clone that was changed')
        expect(('modified', b'/saved') in difference(lab, 'v/copy', 'v/main@2'), 'a clone with its parent')
        lab.run('fs', 'create', 'v/stranger')
        lab.run('snapshot', 'create', 'v/stranger@1')
        lab.refused('snapshot', 'diff', 'v/main@1', 'v/stranger@1', says='in common')
        lab.refused('snapshot', 'diff', 'v/main@1', 'v/main@3', says="'3'")
        lab.refused('snapshot', 'diff', 'v/main@1', 'v/nothing@1', says='nothing')


# --- random changes ---
def tree(top):
    """{(directory, name): (node, kind)}, {node: (mode, mtime, bytes or target)}, {directory: path}"""
    names, nodes, paths = {}, {}, {os.lstat(top).st_ino & NUMBER: b''}
    for where, folders, files in os.walk(os.fsencode(top)):
        directory = os.lstat(where).st_ino & NUMBER
        for name in folders + files:
            path = os.path.join(where, name)
            about = os.lstat(path)
            node = about.st_ino & NUMBER
            kind = stat.S_IFMT(about.st_mode)
            names[directory, name] = (node, kind)
            held = None
            if kind == stat.S_IFDIR:
                paths[node] = path[len(os.fsencode(top)):]
            else:
                held = (about.st_mtime_ns, about.st_size, os.readlink(path) if kind == stat.S_IFLNK else open(path, 'rb').read())
            nodes[node] = (about.st_mode, held)
    return names, nodes, paths


def expected_changes(older, newer):
    old_names, old_nodes, old_paths = older
    new_names, new_nodes, new_paths = newer
    told = set()
    gone = {}  # node -> its old paths that are no more
    replaced = set()
    for place, (node, kind) in old_names.items():
        if new_names.get(place) == (node, kind):
            continue
        path = old_paths[place[0]] + b'/' + place[1]
        if node in new_nodes:
            gone.setdefault(node, []).append(path)
        elif place in new_names and new_names[place][1] == kind != stat.S_IFDIR and new_names[place][0] not in old_nodes:
            replaced.add(place)
        else:
            told.add(('removed', path))
    for place, (node, kind) in new_names.items():
        path = new_paths[place[0]] + b'/' + place[1]
        stayed = old_names.get(place) == (node, kind)
        moved = not stayed and bool(gone.get(node))
        if moved:
            told.add(('renamed', (node, path)))
        elif not stayed:
            told.add(('modified' if place in replaced else 'added', path))
        if stayed or moved:
            (old_mode, before), (new_mode, now) = old_nodes[node], new_nodes[node]
            if before and before[1:] != now[1:]:
                told.add(('modified', path))
            elif old_mode != new_mode or before != now:
                told.add(('metadata', path))
    return told, gone


def change(lab, top, directories, files):
    """One random change."""
    pick, number = lab.random.choice, lab.random.randrange
    what = number(11)
    fresh = os.path.join(pick(directories), f'n{number(40)}')
    if what == 0 and not os.path.lexists(fresh):
        os.mkdir(fresh)
        directories.append(fresh)
    elif what <= 3 and not os.path.isdir(fresh):
        write(fresh, lab.random.randbytes(number(3) * 40000))
        files.append(fresh)
    if not files:
        return
    file = pick(files)
    if not os.path.isfile(file):  # it is gone, or a directory has its name by now
        files.remove(file)
    elif what == 4:
        os.unlink(file)
    elif what == 5 and not os.path.isdir(fresh):
        os.rename(file, fresh)
        files.append(fresh)
    elif what == 6 and not os.path.lexists(fresh):
        os.link(file, fresh)
        files.append(fresh)
    elif what == 7:
        os.chmod(file, 0o600 + number(64))
    elif what == 8:
        with open(file, 'r+b') as out:
            out.seek(number(100000))
            out.write(lab.random.randbytes(50))
    elif what == 9 and len(directories) > 3:
        one = pick(directories[1:])
        if os.path.isdir(one) and not os.path.lexists(fresh) and not (fresh + '/').startswith(one + '/'):
            os.rename(one, fresh)
            directories[:] = [os.path.join(where, name) for where, names, _ in os.walk(top) for name in names] + [top]
            files[:] = [os.path.join(where, name) for where, _, names in os.walk(top) for name in names]
    elif what == 10:
        os.utime(file, ns=(1, number(1 << 40)))


def random_changes():
    with Lab() as lab:
        lab.up()
        with Mounted(lab) as top:
            directories, files = [top], []
            for round in range(ROUNDS):
                for _ in range(400):
                    change(lab, top, directories, files)
                lab.run('snapshot', 'create', f'v/main@{round}')
                for since in range(round):
                    trees = [tree(f'{top}/.snapshots/{at}') for at in (since, round)]
                    expected, gone = expected_changes(*trees)
                    told = difference(lab, f'v/main@{since}', f'v/main@{round}')
                    check(expected, gone, trees, told)


def check(expected, gone, trees, told):
    """A node of which several names went may be told as renamed from any of them; the others were removed."""
    left = {node: set(paths) for node, paths in gone.items()}
    numbers = {trees[1][2][directory] + b'/' + name: node for (directory, name), (node, _) in trees[1][0].items()}
    renamed = set()
    for what, path in told:
        if what == 'renamed':
            old, new = path
            node = numbers[new]
            expect(old in left.get(node, ()), f'{new} was never {old}')
            left[node].remove(old)
            renamed.add(('renamed', (node, new)))
    # Of the new names of one node any may be the renamed ones: as many as names went.
    for what, path in set(expected):
        if what == 'renamed':
            expected.remove((what, path))
    for node, paths in gone.items():
        fresh = {new for new, number in numbers.items() if number == node} - \
                {new for place, (number, _) in trees[1][0].items() if number == node and trees[0][0].get(place, (0,))[0] == node
                 for new in [trees[1][2][place[0]] + b'/' + place[1]]}
        count = sum(1 for _, (number, new) in renamed if number == node)
        expect(count == min(len(fresh), len(paths)), f'node {node}: {count} renamed, {len(paths)} went, {len(fresh)} came')
        for new in fresh:
            if ('renamed', (node, new)) not in renamed:
                # What else had that path may be gone for all that.
                expected = {one for one in expected if one[1] != new or one[0] == 'removed'} | {('added', new)}
        for path in left[node]:
            expected.add(('removed', path))
    told = {one for one in told if one[0] != 'renamed'}
    expect(told == expected, f'missing {sorted(expected - told)}, too much {sorted(told - expected)}')


if __name__ == '__main__':
    main(known_changes, random_changes)
