#!/usr/bin/env python3
"""What people and broken disks hand to the commands: one clear line, exit code 1 or 2, nothing lost, nothing left."""
import os
import re
import socket

from lab import Lab, expect, main, sha_of


def words_and_files():
    with Lab() as lab:
        lab.refused('volume', 'status', 'v', says='no volume')
        lab.run('devnet', 'up', '--dir', lab.net)
        make = ('volume', 'create', 'v', '--miners', lab.list)
        lab.refused('volume', 'create', '../v', '--miners', lab.list, codes=(2,))
        lab.refused('volume', 'create', 'v', '--miners', lab.path('none.toml'), says='none.toml')
        lab.refused(*make, '--code', '0+2', codes=(2,))
        lab.refused(*make, '--code', '33+2', codes=(2,))
        lab.refused(*make, '--code', 'four', codes=(2,))
        lab.refused(*make, '--segment', '5M', codes=(2,))
        lab.refused(*make, '--durability', 'maybe', codes=(2,))
        with open(lab.path('broken.toml'), 'w') as file:
            file.write('[[miner]]\naddress = 7\n')
        lab.refused('volume', 'create', 'v', '--miners', lab.path('broken.toml'), says='broken.toml')
        expect(not os.path.exists(os.path.join(lab.home, 'volumes', 'v')), 'a refused create left a volume')
        lab.up()
        lab.refused(*make, says='already')
        lab.refused('object', 'get', 'v/b', 'x', lab.path('x'), codes=(1,), says='b')
        lab.refused('object', 'put', 'v/b', 'x', lab.path('nothing'), codes=(1,), says='nothing')
        lab.refused('object', 'put', 'v', 'x', lab.list, codes=(2,), says='VOLUME/NAME')
        lab.run('object', 'put', 'v/b', 'x', lab.list)
        lab.refused('object', 'get', 'v/b', 'y', lab.path('y'), codes=(1,), says='y')
        lab.refused('object', 'get', 'v/b', 'x', '/proc/nowhere/x', codes=(1,), says='/proc/nowhere')
        lab.refused('object', 'get', 'v/b', 'none', lab.path('folder'), '-r', codes=(1,), says='none')
        lab.run('object', 'put', 'v/c', '../out', lab.list)
        lab.refused('object', 'get', 'v/c', '.', lab.path('folder'), '-r', codes=(2,), says='../out')
        expect(not os.path.exists(lab.path('out')), 'a name led out of the folder')
        lab.refused('volume', 'set', 'v', 'colour=blue', codes=(2,), says='colour')
        lab.refused('devnet', 'stop', '9', '--dir', lab.net, codes=(1,), says='9')
        lab.refused('run', lab.path('no-miner'), '--listen', '127.0.0.1:0', program='cumulus-miner')
        with socket.socket() as taken:
            taken.bind(('127.0.0.1', 0))
            taken.listen()
            lab.miner('stop', 1)
            lab.refused('run', os.path.join(lab.net, 'miner-1'), '--listen', f'127.0.0.1:{taken.getsockname()[1]}', program='cumulus-miner')
            lab.miner('start', 1)


def keys_and_codes():
    with Lab() as lab:
        lab.up()
        lab.run('object', 'put', 'v/b', 'x', lab.list, '--sync')
        lab.run('volume', 'stop', 'v')
        other = lab.path('other')
        recover = ('volume', 'recover', 'v', '--miners', lab.list, '--code-stdin')
        code = lab.recovery_code
        wrong = code[:12] + ('2' if code[12] != '2' else '3') + code[13:]
        lab.refused(*recover, home=other, text=wrong + '\n')
        lab.refused(*recover, home=other, text='hello\n')
        lab.refused(*recover, home=other, text='')
        expect(not os.path.exists(os.path.join(other, 'volumes', 'v')), 'a refused recovery left a volume')
        folder = os.path.join(lab.home, 'volumes', 'v')
        key = os.path.join(folder, 'key')
        good = open(key, 'rb').read()
        for damaged in (good[:-1], b'', good[:20] + bytes([good[20] ^ 1]) + good[21:], b'x' * len(good)):
            with open(key, 'wb') as file:
                file.write(damaged)
            lab.refused('object', 'get', 'v/b', 'x', lab.path('x'), codes=(1, 2), says='key')
        with open(key, 'wb') as file:
            file.write(good)
        for name, word in (('right', 'correct horse'), ('wrong', 'battery staple')):
            with open(lab.path(name), 'w') as file:
                file.write(word + '\n')
        lab.run('volume', 'passwd', 'v', '--new-passphrase-file', lab.path('right'))
        expect(os.stat(key).st_mode & 0o777 == 0o600, 'the key file is readable by others')
        lab.refused('volume', 'status', 'v', '--passphrase-file', lab.path('wrong'), codes=(1,), says='passphrase')
        lab.run('object', 'get', 'v/b', 'x', lab.path('x'), '--passphrase-file', lab.path('right'))
        expect(sha_of(lab.path('x')) == sha_of(lab.list), 'other bytes came back')
        lab.run('volume', 'stop', 'v')
        lab.run('volume', 'passwd', 'v', '--remove', '--passphrase-file', lab.path('right'))
        # A miner that shows another identity than the pinned one is not spoken to.
        text = open(os.path.join(folder, 'miners.toml')).read()
        first = re.search(r'[0-9a-f]{64}', text).group(0)
        with open(os.path.join(folder, 'miners.toml'), 'w') as file:
            file.write(text.replace(first, first[:-1] + ('0' if first[-1] != '0' else '1')))
        answers = [miner['answers'] for miner in lab.status()['miners']]
        expect(answers.count(False) == 1, f'a miner with another identity answers: {answers}')


if __name__ == '__main__':
    main(words_and_files, keys_and_codes)
