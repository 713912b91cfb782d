#!/usr/bin/env python3
"""kill -9 of the daemon under a mounted file system, again and again, while several programs create, write, fsync, link,
rename over and unlink. After `mount --recover` each program's folder is as it was at one point of its own history: not
older than its last fsync, not older than the moment that SEMANTICS.md grants, and nothing is half there.
CUMULUS_TEST_ROUNDS sets how often (200 in the long form)."""
import json
import os
import random
import signal
import sys
import time

from lab import LONG, Lab, expect, main

ROUNDS = int(os.environ.get('CUMULUS_TEST_ROUNDS', 200 if LONG else 4))
WRITERS = 4
MOMENT = 2.0  # SEMANTICS.md says 100 ms; the processes of a busy machine may not run for long
GIVE_UP = 60  # a writer that nobody stopped


def content(writer, number, size):
    return b'%d %d %d\n' % (writer, number, size) + random.Random(number * 64 + writer).randbytes(size)


# --- what a folder holds after some of its operations: path -> number of the file that lies there, 0 for an empty one ---
def apply(state, operation):
    what, *names = operation
    if what == 'create':
        state[names[0]] = (names[1], False)
    elif what == 'write':
        state.update({path: (number, True) for path, (number, _) in state.items() if number == names[0]})
    elif what == 'rename':
        state[names[1]] = state.pop(names[0])
    elif what == 'link':
        state[names[1]] = state[names[0]]
    elif what in ('unlink', 'rmdir'):
        del state[names[0]]
    elif what == 'mkdir':
        state[names[0]] = ('folder', False)


class Writer:
    """One program at work in a folder of its own, until something fails. What it did is written down outside the mount."""

    def __init__(self, top, number, state, next_file, seed):
        self.top, self.number, self.state, self.next_file = top, number, dict(state), next_file
        self.random = random.Random(seed)
        self.story = []  # [operation, time when it was done or None]
        self.synced = 0  # operations that an fsync covers

    def do(self, operation, call, *words):
        self.story.append([operation, None])
        call(*words)
        self.story[-1][1] = time.monotonic()
        apply(self.state, operation)

    def at(self, path):
        return os.path.join(self.top, path)

    def fsync(self, descriptor):
        covered = len(self.story)
        os.fsync(descriptor)
        self.synced = covered

    def files(self):
        return [path for path, (number, _) in self.state.items() if number != 'folder']

    def new_file(self, path):
        number, self.next_file = self.next_file, self.next_file + 1
        opened = []
        self.do(('create', path, number), lambda: opened.append(os.open(self.at(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY)))
        data = content(self.number, number, self.random.choice([0, 10, 3000, 4096, 70_000, 150_000]))
        self.do(('write', number), os.write, opened[0], data)
        if self.random.random() < 0.5:
            self.fsync(opened[0])
        os.close(opened[0])

    def step(self):
        names = self.files()
        draw = self.random.random()
        if draw < 0.3:
            path = f'{self.random.choice(["", "sub/"])}new-{self.next_file}'
            self.new_file(path)
        elif draw < 0.6:  # as editors and databases do it
            target = f'{self.random.choice(["", "sub/"])}kept-{self.random.randrange(20)}'
            path = f'temporary-{self.next_file}'
            self.new_file(path)
            self.do(('rename', path, target), os.rename, self.at(path), self.at(target))
            if self.random.random() < 0.3:
                folder = os.open(self.top, os.O_RDONLY)
                self.fsync(folder)
                os.close(folder)
        elif draw < 0.7 and names:
            path = self.random.choice(names)
            target = f'link-{self.random.randrange(1 << 40)}'
            self.do(('link', path, target), os.link, self.at(path), self.at(target))
        elif draw < 0.78:
            path = f'folder-{self.random.randrange(6)}'
            if path in self.state:
                self.do(('rmdir', path), os.rmdir, self.at(path))
            else:
                self.do(('mkdir', path), os.mkdir, self.at(path))
        elif names:
            for path in self.random.sample(names, 1 if len(names) < 60 else 10):
                self.do(('unlink', path), os.unlink, self.at(path))

    def run(self, report):
        error, began = 'nothing failed', time.monotonic()
        try:
            while time.monotonic() < began + GIVE_UP:
                self.step()
        except OSError as failure:
            error = str(failure)
        with open(report, 'w') as file:
            json.dump({'story': self.story, 'synced': self.synced, 'next_file': self.next_file, 'error': error, 'ended': time.monotonic()}, file)


def look(top, writer):
    """path -> (number, written) as the mount shows it; every file is whole, every link is counted."""
    found, inodes = {}, {}
    for where, folders, names in os.walk(top, onerror=lambda error: (_ for _ in ()).throw(error)):
        base = os.path.relpath(where, top)
        expect(os.stat(where).st_nlink == 2 + len(folders), f'{where}: {os.stat(where).st_nlink} links, {len(folders)} folders')
        for name in folders:
            if base == '.' and name != 'sub':
                found[name] = ('folder', False)
        for name in names:
            path = os.path.normpath(os.path.join(base, name))
            about = os.stat(os.path.join(top, path))
            with open(os.path.join(top, path), 'rb') as file:
                data = file.read()
            expect(len(data) == about.st_size, f'{path}: {len(data)} bytes of {about.st_size}')
            number = None
            if data:
                made_by, number, size = map(int, data.split(b'\n', 1)[0].split())
                expect(made_by == writer and data == content(writer, number, size), f'{top}/{path}: bytes that nobody wrote')
            found[path] = (number, bool(data))
            inodes.setdefault(about.st_ino, []).append((path, about.st_nlink))
    for links in inodes.values():
        for path, count in links:
            expect(count == len(links), f'{path}: {count} links, {len(links)} names')
    return found


def same(found, state):
    """An empty file does not say its number."""
    shown = {path: (number if written or number == 'folder' else None, written) for path, (number, written) in state.items()}
    return found == shown


def compare(base, told, found, killed_at, who):
    """Which prefix of its story the folder is at: the longest that fits, and how many operations were lost."""
    story = told['story']
    floor = told['synced']
    for position, (_, done_at) in enumerate(story):
        if done_at is not None and done_at < killed_at - MOMENT:
            floor = max(floor, position + 1)
    state, fits = dict(base), None
    for position in range(len(story) + 1):
        if position >= floor and same(found, state):
            fits = position, dict(state)
        if position < len(story):
            apply(state, story[position][0])
    if fits is None:
        print(f'the last operations of writer {who}, {floor} of {len(story)} must be there:', *story[max(0, floor - 10):], sep='\n', file=sys.stderr)
        print('found:', *sorted(found.items()), sep='\n', file=sys.stderr)
    expect(fits is not None, f'writer {who}: its folder is at no point of its history from operation {floor} to {len(story)}')
    done = sum(1 for _, at in story if at is not None)
    return fits[1], max(0, done - fits[0])


def killed_under_load():
    with Lab() as lab:
        lab.up()
        top = lab.path('mnt')
        os.mkdir(top)
        lab.run('mount', lab.volume, top)
        states, next_files = [{} for _ in range(WRITERS)], [1] * WRITERS
        for writer in range(WRITERS):
            os.makedirs(f'{top}/w{writer}/sub')
        folder = os.open(top, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        operations = lost = 0
        for number in range(1, ROUNDS + 1):
            children = []
            for writer in range(WRITERS):
                seed = lab.random.randrange(1 << 40)
                child = os.fork()
                if child == 0:
                    code = 1
                    try:
                        Writer(f'{top}/w{writer}', writer, states[writer], next_files[writer], seed).run(lab.path(f'report-{writer}'))
                        code = 0
                    finally:
                        os._exit(code)
                children.append(child)
            pid = lab.daemon_pid()
            time.sleep(lab.random.uniform(0.05, 0.7))
            killed_at = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            for child in children:
                expect(os.waitpid(child, 0)[1] == 0, 'a writer died')
            lab.gone(pid)
            lab.run('mount', '--recover', top)
            for writer in range(WRITERS):
                with open(lab.path(f'report-{writer}')) as file:
                    told = json.load(file)
                expect(told['ended'] >= killed_at, f'writer {writer} failed before the kill: {told["error"]}')
                found = look(f'{top}/w{writer}', writer)
                states[writer], missing = compare(states[writer], told, found, killed_at, writer)
                next_files[writer] = told['next_file']
                operations += len(told['story'])
                lost += missing
            if number % 50 == 0:
                lab.check_clean(data=True)
            if number % 10 == 0:
                print(f'  {number} kills, {operations} operations, {lost} of the last moments lost', flush=True)
        lab.run('umount', top, '--sync')
        lab.check_clean(data=True)
        lab.drop_cache()
        lab.run('mount', lab.volume, top)
        for writer in range(WRITERS):
            expect(same(look(f'{top}/w{writer}', writer), states[writer]), f'writer {writer}: the folder differs when it is read from the miners')
        lab.run('umount', top)
        print(f'  {ROUNDS} kills, {operations} operations, {lost} of the last moments lost')
        expect(operations > ROUNDS * WRITERS * 5, 'too few operations: the test proved little')


if __name__ == '__main__':
    main(killed_under_load)
