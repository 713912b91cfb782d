#!/usr/bin/env python3
"""Programs that people trust with their data, on a mounted volume: each does its work, checks it by its own means, and
finds it again after the volume was unmounted, dropped from the cache and mounted again."""
import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import threading
import time

from lab import LONG, Lab, expect, main

SOURCES = '/usr/include' if LONG else '/usr/include/linux'
PATIENCE = 3000 if LONG else 600


def do(*words, cwd=None, env=None, timeout=PATIENCE, ok=(0,), **more):
    done = subprocess.run(list(map(str, words)), cwd=cwd, env={**os.environ, **(env or {})}, timeout=timeout, capture_output=True, text=True, **more)
    expect(done.returncode in ok, f'{" ".join(map(str, words))}: exit code {done.returncode}: {done.stdout[-800:]} {done.stderr[-1500:]}')
    return done.stdout


def there(*programs):
    for program in programs:
        expect(shutil.which(program), f'{program} is not installed: packaging/deps test')


class Drive:
    """A mounted volume; again() unmounts, forgets the cache and mounts."""

    def __init__(self, lab, *options):
        self.lab, self.options = lab, options
        self.dir = lab.path('mnt')
        os.mkdir(self.dir)
        lab.run('mount', lab.volume, self.dir, *options)

    def path(self, name):
        return os.path.join(self.dir, name)

    def again(self, cold=True):
        self.lab.run('umount', self.dir, *(['--sync'] if cold else []), timeout=600)
        if cold:
            self.lab.drop_cache()
        self.lab.run('mount', self.lab.volume, self.dir, *self.options)

    def done(self):
        self.lab.run('umount', self.dir, timeout=600)
        self.lab.check_clean()


def drive_test(body):
    def test():
        with Lab(segment='4M') as lab:
            lab.up()
            drive = Drive(lab)
            body(drive)
            drive.done()
    test.__name__, test.body = body.__name__, body
    return test


@drive_test
def git(drive):
    there('git')
    who = {'GIT_AUTHOR_NAME': 'a', 'GIT_AUTHOR_EMAIL': 'a@b', 'GIT_COMMITTER_NAME': 'a', 'GIT_COMMITTER_EMAIL': 'a@b',
           'GIT_CONFIG_GLOBAL': '/dev/null',
           # Or a commit leaves a gc behind that takes loose objects away under the clone.
           'GIT_CONFIG_COUNT': '1', 'GIT_CONFIG_KEY_0': 'gc.autoDetach', 'GIT_CONFIG_VALUE_0': 'false'}
    work = drive.path('work')
    shutil.copytree(SOURCES, work, symlinks=True)
    do('git', 'init', '-q', '.', cwd=work)
    for number in range(3):
        with open(os.path.join(work, 'change'), 'a') as file:
            file.write(f'{number}\n' * 1000)
        do('git', 'add', '-A', cwd=work, env=who)
        do('git', 'commit', '-q', '-m', f'{number}', cwd=work, env=who)
    do('git', 'clone', '-q', '--no-hardlinks', work, drive.path('clone'), env=who)
    do('git', 'gc', '-q', cwd=drive.path('clone'), env=who)
    drive.again()
    for tree in (work, drive.path('clone')):
        do('git', 'fsck', '--full', '--strict', cwd=tree, env=who)
        expect(do('git', 'status', '--porcelain', cwd=tree, env=who) == '', 'git sees changes that nobody made')


@drive_test
def sqlite(drive):
    there('sqlite3')
    rounds = 20 if LONG else 3
    for mode in ('wal', 'delete'):
        path = drive.path(f'{mode}.db')
        base = sqlite3.connect(path)
        base.execute(f'pragma journal_mode={mode}')
        base.execute('create table t (a integer primary key, b blob)')
        base.commit()
        base.close()
        committed = 0
        for _ in range(rounds):
            # A writer is killed in the middle; what it said was committed must be there.
            script = ('import sqlite3, sys\n'
                      f'd = sqlite3.connect({path!r})\n'
                      'n = d.execute("select coalesce(max(a), 0) from t").fetchone()[0]\n'
                      'while True:\n'
                      '    n += 1\n'
                      '    d.execute("insert into t values (?, randomblob(3000))", (n,))\n'
                      '    d.commit()\n'
                      '    print(n, flush=True)\n')
            writer = subprocess.Popen(['python3', '-c', script], stdout=subprocess.PIPE, text=True)
            until = time.time() + 0.7
            while time.time() < until:
                line = writer.stdout.readline()
                expect(line, 'the writer ended by itself')
                committed = int(line)
            writer.kill()
            rest = writer.communicate()[0].split()
            committed = int(rest[-1]) if rest else committed
            expect(do('sqlite3', path, 'pragma integrity_check').strip() == 'ok', 'integrity_check')
            count = int(do('sqlite3', path, 'select max(a) from t'))
            expect(count >= committed, f'{count} rows, {committed} were committed')
    drive.again()
    for mode in ('wal', 'delete'):
        expect(do('sqlite3', drive.path(f'{mode}.db'), 'pragma integrity_check').strip() == 'ok', 'integrity_check after mounting again')


@drive_test
def rsync_and_tar(drive):
    there('rsync', 'tar', 'setfacl')
    source = drive.lab.path('source')
    shutil.copytree(SOURCES, f'{source}/tree', symlinks=True)
    with open(f'{source}/sparse', 'wb') as file:
        file.truncate(300 << 20)
        for at in (0, 100 << 20, 299 << 20):
            file.seek(at)
            file.write(os.urandom(10_000))
    os.link(f'{source}/sparse', f'{source}/hard')
    os.mkfifo(f'{source}/fifo')
    os.symlink('nowhere', f'{source}/link')
    os.setxattr(f'{source}/sparse', 'user.note', b'kept')
    do('setfacl', '-m', 'u:1000:r', f'{source}/sparse')
    os.chmod(f'{source}/tree', 0o2750)
    target = drive.path('target')
    do('rsync', '-aHAXS', f'{source}/', target)
    said = do('rsync', '-aHAXSi', '--checksum', f'{source}/', target)
    expect(said.strip() == '', f'the second rsync changed: {said[:500]}')
    expect(os.stat(f'{target}/sparse').st_blocks * 512 < 3 << 20, 'a sparse file is not sparse')
    do('tar', '--xattrs', '--acls', '--sparse', '-cf', drive.path('tar'), '-C', target, '.')
    os.mkdir(drive.path('out'))
    do('tar', '--xattrs', '--acls', '-xpf', drive.path('tar'), '-C', drive.path('out'))
    drive.again()
    for tree in (target, drive.path('out')):
        said = do('rsync', '-aHAXSni', '--checksum', f'{source}/', tree)
        expect(said.strip() == '', f'{tree} differs: {said[:500]}')


@drive_test
def restic(drive):
    there('restic')
    env = {'RESTIC_PASSWORD': 'x', 'RESTIC_CACHE_DIR': drive.lab.path('cache')}
    repository = drive.path('repo')
    do('restic', '-r', repository, 'init', env=env)
    do('restic', '-r', repository, 'backup', SOURCES, env=env)
    do('restic', '-r', repository, 'backup', SOURCES, '/usr/share/doc/git' if os.path.isdir('/usr/share/doc/git') else '/etc/default', env=env)
    drive.again()
    do('restic', '-r', repository, 'check', '--read-data', env=env)
    do('restic', '-r', repository, 'restore', 'latest', '--target', drive.path('back'), env=env)
    do('diff', '-r', '--no-dereference', SOURCES, drive.path('back') + SOURCES)
    do('restic', '-r', repository, 'forget', '--keep-last', '1', '--prune', env=env)
    do('restic', '-r', repository, 'check', env=env)


@drive_test
def borg(drive):
    there('borg')
    env = {'BORG_PASSPHRASE': 'x', 'BORG_BASE_DIR': drive.lab.path('borg'), 'BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK': 'yes'}
    repository = drive.path('repo')
    do('borg', 'init', '-e', 'repokey', repository, env=env)
    do('borg', 'create', f'{repository}::one', SOURCES, env=env)
    do('borg', 'create', f'{repository}::two', SOURCES, env=env)
    drive.again()
    do('borg', 'check', '--verify-data', repository, env=env)
    os.mkdir(drive.path('back'))
    do('borg', 'extract', f'{repository}::two', cwd=drive.path('back'), env=env)
    do('diff', '-r', '--no-dereference', SOURCES, drive.path('back') + SOURCES)
    do('borg', 'prune', '--keep-last', '1', repository, env=env)
    do('borg', 'compact', repository, env=env)
    do('borg', 'check', repository, env=env)


@drive_test
def rclone(drive):
    there('rclone')
    env = {'RCLONE_CONFIG': '/dev/null'}
    do('rclone', 'sync', '--links', SOURCES, drive.path('copy'), env=env)
    drive.again()
    do('rclone', 'check', '--links', '--download', SOURCES, drive.path('copy'), env=env)


@drive_test
def fio(drive):
    there('fio')
    size, seconds = ('256M', 20) if LONG else ('16M', 3)
    for engine, direct in (('sync', 0), ('mmap', 0), ('libaio', 1), ('io_uring', 1)):
        common = [f'--name={engine}', f'--directory={drive.dir}', f'--ioengine={engine}', f'--direct={direct}', f'--size={size}', '--bs=4k',
                  '--rw=randwrite', '--verify=crc32c', '--verify_fatal=1', '--fallocate=none', '--group_reporting', '--iodepth=16', '--randseed=7']
        do('fio', *common, '--do_verify=1', '--end_fsync=1', timeout=seconds * 60, cwd=drive.lab.dir)
    drive.again()
    for engine, direct in (('sync', 0), ('libaio', 1)):
        do('fio', f'--name={engine}', f'--directory={drive.dir}', f'--ioengine={engine}', f'--direct={direct}', f'--size={size}', '--bs=4k',
           '--rw=randwrite', '--verify=crc32c', '--verify_fatal=1', '--verify_only', '--fallocate=none', '--iodepth=16', '--randseed=7',
           cwd=drive.lab.dir)


@drive_test
def make(drive):
    there('make', 'g++')
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), '../..')
    shutil.copytree(os.path.join(here, 'objectstore/base'), drive.path('objectstore/base'))
    with open(drive.path('Makefile'), 'w') as file:
        file.write('OBJECTS = $(patsubst %.cc,%.o,$(wildcard objectstore/base/r*.cc objectstore/base/by*.cc))\n'
                   'all: lib.a\n'
                   'lib.a: $(OBJECTS)\n\tar rcs $@ $^\n'
                   '%.o: %.cc\n\tg++ -std=c++23 -O0 -I. -c -o $@ $<\n')
    do('make', '-j2', cwd=drive.dir)
    drive.again()
    said = do('make', '-j2', cwd=drive.dir)
    expect('g++' not in said, f'make builds again what is up to date: {said}')


@drive_test
def postgresql(drive):
    versions = sorted(os.listdir('/usr/lib/postgresql')) if os.path.isdir('/usr/lib/postgresql') else []
    expect(versions, 'postgresql is not installed: packaging/deps test')
    programs = f'/usr/lib/postgresql/{versions[-1]}/bin'
    user = pwd.getpwnam('postgres')
    drive.lab.run('umount', drive.dir)
    drive.options = ('-o', 'allow_other')
    drive.lab.run('mount', drive.lab.volume, drive.dir, *drive.options)
    os.chmod(drive.lab.dir, 0o755)
    home, sockets = drive.path('pg'), drive.lab.path('pg-sockets')
    for path in (home, sockets):
        os.mkdir(path)
        os.chown(path, user.pw_uid, user.pw_gid)

    def as_postgres(*words, **more):
        return do('setpriv', '--reuid', user.pw_uid, '--regid', user.pw_gid, '--clear-groups', '--', *words, cwd='/', **more)
    as_postgres(f'{programs}/initdb', '-D', home, '-A', 'trust')
    log = os.path.join(sockets, 'log')
    begin = (f'{programs}/pg_ctl', '-D', home, '-l', log, '-w', '-t', '60', '-o', f'-k {sockets} -c listen_addresses=', 'start')
    client = ('-h', sockets, 'postgres')

    def start():
        try:
            as_postgres(*begin)
        except Exception:
            with open(log, errors='replace') as file:
                print(file.read()[-3000:])
            raise

    start()
    as_postgres(f'{programs}/pgbench', '-i', '-q', '-s', '5' if LONG else '1', *client)
    rounds = 10 if LONG else 2
    for _ in range(rounds):
        load = threading.Thread(target=lambda: as_postgres(f'{programs}/pgbench', '-n', '-c', '4', '-j', '2', '-T', '20', *client, ok=(0, 1, 2)))
        load.start()
        time.sleep(2)
        before = int(as_postgres('psql', '-At', '-c', 'select count(*) from pgbench_history', *client))
        with open(os.path.join(home, 'postmaster.pid')) as file:
            leader = int(file.readline())
        for pid in [leader, *children_of(leader)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        load.join()
        # Nobody may have reaped the leader yet: its locks name a process that seems to be there.
        for left in (os.path.join(home, 'postmaster.pid'), *(os.path.join(sockets, name) for name in os.listdir(sockets) if name.startswith('.s.'))):
            os.unlink(left)
        start()
        after = int(as_postgres('psql', '-At', '-c', 'select count(*) from pgbench_history', *client))
        expect(after >= before > 0, f'{after} transactions after the crash, {before} were seen before')
        sums = as_postgres('psql', '-At', '-F', ' ', '-c', 'select (select sum(abalance) from pgbench_accounts), (select sum(bbalance) from '
                           'pgbench_branches), (select sum(tbalance) from pgbench_tellers), (select coalesce(sum(delta), 0) from pgbench_history)', *client).split()
        expect(len(set(sums)) == 1, f'the books do not balance: {sums}')
    as_postgres(f'{programs}/pg_ctl', '-D', home, '-w', 'stop', '-m', 'fast')
    drive.again()
    as_postgres(f'{programs}/pg_checksums', '-D', home, ok=(0, 1))
    start()
    as_postgres(f'{programs}/pg_dump', '-f', '/dev/null', *client)
    as_postgres(f'{programs}/pg_ctl', '-D', home, '-w', 'stop', '-m', 'fast')


def children_of(leader):
    found = []
    for pid in filter(str.isdigit, os.listdir('/proc')):
        try:
            with open(f'/proc/{pid}/stat') as file:
                if int(file.read().rsplit(')', 1)[1].split()[1]) == leader:
                    found.append(int(pid))
        except OSError:
            continue
    return found


if __name__ == '__main__':
    main(git, sqlite, rsync_and_tar, restic, borg, rclone, fio, make, postgresql)
