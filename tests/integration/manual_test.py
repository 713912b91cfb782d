"""Manual pages and completions, as `cmake --install` puts them: every command and option of the programs' own help is in them."""
import os
import re
import subprocess
import tempfile

from lab import expect, main

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.dirname(os.path.abspath(os.environ.get('CUMULUS_BIN', os.path.join(HERE, '../../build/release/bin'))))


def output(*words, **how):
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, **how)
    expect(done.returncode == 0, f'{words}: exit {done.returncode}: {done.stderr[-500:]}')
    return done.stdout


def leaves(program, path=()):
    """Every command, with its help; each has an example, those with commands below too."""
    text = output(program, *path, '--help')
    expect(re.search(rf'^Example:\s+{" ".join((os.path.basename(program), *path))}\b', text, re.M), f'the help of {path} has no example: {text[-300:]}')
    below = re.search(r'^Subcommands:\n((?:  .*\n)+)', text, re.M)
    if not below:
        yield path, text
        return
    for line in below.group(1).splitlines():
        if re.match(r'  \S', line):
            yield from leaves(program, (*path, line.split()[0]))


def plain(page):
    """What a reader sees, and what groff says against it."""
    done = subprocess.run(['groff', '-man', '-ww', '-Tascii', '-P-cbou', '-rLL=400n', page], capture_output=True, text=True, timeout=60)
    expect(done.returncode == 0 and not done.stderr, f'{page}: {done.stderr[:500]}')
    return done.stdout


def completed(script, words):
    quoted = ' '.join(f"'{word}'" for word in words)
    return output('bash', '-c', f'source {script}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; '
                  f'_{words[0].replace("-", "_")}; printf "%s\\n" "${{COMPREPLY[@]}}"').split()


def installed_pages():
    with tempfile.TemporaryDirectory() as root:
        output('cmake', '--install', BUILD, '--prefix', root)
        found = {name: os.path.join(folder, name) for folder, _, names in os.walk(f'{root}/share') for name in names}
        for program in ('cumulus', 'cumulus-miner'):
            binary = f'{root}/bin/{program}'
            page, script = plain(found[f'{program}.1']), found[program]
            expect(script.endswith(f'bash-completion/completions/{program}'), script)
            commands = list(leaves(binary))
            expect(len(commands) >= 6, commands)
            for path, text in commands:
                expect(' '.join((program, *path)) in page, f'{program}.1 does not know {path}')
                options = set(re.findall(r'^  (?:-\w,)?(--[\w-]+)', text, re.M)) - {'--help'}
                offered = set(completed(script, [program, *path, '--']))
                for option in options:
                    expect(option in page, f'{program}.1 does not know {path} {option}')
                    expect(option in offered, f'{path} {option} is not completed: {offered}')
                expect(path[-1] in completed(script, [program, *path[:-1], path[-1][:2]]), f'{path} is not completed')
            expect('DESCRIPTION' in page and 'EXIT STATUS' in page, page[:300])
        mount = plain(found['mount.cumulus.8'])
        for option in ('ro, rw', 'allow_other', 'snapshot=', 'outage_wait=', 'noatime', 'writeback', '/etc/fstab'):
            expect(option in mount, f'mount.cumulus.8 does not know {option}')
        with open(f'{root}/some-file', 'w'):
            pass
        names = completed(found['cumulus'], ['cumulus', 'volume', 'create', 'x', '--miners', f'{root}/some'])
        expect(names == [f'{root}/some-file'], f'a file is not completed: {names}')


if __name__ == '__main__':
    main(installed_pages)
