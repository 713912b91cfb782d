#!/usr/bin/env python3
"""Any two of six miners may be bad, in each mixture of the ways to be bad: the same bytes come back, and new ones go in.
With three bad, a clear error and never a wrong byte."""
import itertools
import os

from lab import LONG, Lab, expect, main, sha_of

SIZE = int(os.environ.get('CUMULUS_TEST_BYTES', (2 << 30) if LONG else (10 << 20)))
WAYS = {
    'killed': ('stop',),
    'wiped': ('wipe',),
    'corrupted': ('corrupt',),
    'slow': ('slow', '--delay', '200ms', '--rate', '2M'),
    'full': ('fill',),
}


def make_bad(lab, miner, way):
    verb, *more = WAYS[way]
    lab.miner(verb, miner, *more)


def each_mixture_of_two_bad_miners():
    with Lab(segment='8M' if LONG else '1M') as lab:
        lab.up()
        folder, expected = lab.files(SIZE)
        lab.put_folder(folder)
        lab.sync()
        for first, second in itertools.combinations_with_replacement(WAYS, 2):
            one, two = lab.random.sample(range(1, 7), 2)
            print(f'  miner {one} {first}, miner {two} {second}', flush=True)
            make_bad(lab, one, first)
            make_bad(lab, two, second)
            lab.drop_cache()
            lab.verify(expected)
            # Writing goes on too.
            name = f'while-{one}-{first}-{two}-{second}'
            source = lab.path('new')
            with open(source, 'wb') as file:
                file.write(lab.random.randbytes(600_000))
            lab.run('object', 'put', f'{lab.volume}/b', name, source, '--sync')
            expected[name] = sha_of(source)
            for miner, way in ((one, first), (two, second)):
                if way == 'killed':
                    lab.miner('start', miner)
                if way in ('slow', 'full'):
                    lab.miner(WAYS[way][0], miner, '--off')
            lab.repair()
            lab.check_clean(data=True)


def three_bad_miners():
    with Lab() as lab:
        lab.up()
        folder, expected = lab.files(4 << 20)
        lab.put_folder(folder)
        lab.sync()
        lab.drop_cache()
        largest = max(expected, key=lambda name: os.path.getsize(os.path.join(folder, name)))
        for miner in (1, 2, 3):
            lab.miner('stop', miner)
        lab.refused('object', 'get', f'{lab.volume}/b', largest, lab.path('back'), codes=(1,), says='miner')
        expect(not os.path.exists(lab.path('back')), 'a failed get left a file')
        for miner in (1, 2, 3):
            lab.miner('start', miner)
        lab.verify(expected)  # the outage has passed, and so has the error
        lab.drop_cache()
        for miner in (4, 5, 6):
            lab.miner('corrupt', miner)
        lab.refused('object', 'get', f'{lab.volume}/b', largest, lab.path('back'), codes=(1,))
        expect(not os.path.exists(lab.path('back')), 'a failed get left a file')


def two_down_while_writing():
    with Lab() as lab:
        lab.up()
        for miner in (2, 5):
            lab.miner('stop', miner)
        folder, expected = lab.files(6 << 20)
        lab.put_folder(folder)
        lab.sync()
        code, out, _ = lab.attempt('volume', 'repair', lab.volume)
        expect(code == 1 and b'does not answer' in out, f'a repair that can do nothing: exit code {code}, {out!r}')
        status = lab.status()
        expect(status['dirty'] == 0, f'dirty after sync: {status["dirty"]}')
        expect(status['segments_crowded'] > 0, 'with two of six miners down, no segment is shown as crowded')
        lab.drop_cache()
        lab.verify(expected)
        for miner in (2, 5):
            lab.miner('start', miner)
        lab.repair()
        expect(lab.status()['segments_crowded'] == 0, 'crowded after repair with all miners back')
        lab.check_clean(data=True)
        for miner in (1, 3):
            lab.miner('wipe', miner)
        expect(lab.status()['segments_degraded'] > 0, 'two miners wiped, and no segment is shown as degraded')
        lab.drop_cache()
        lab.verify(expected)


if __name__ == '__main__':
    main(two_down_while_writing, three_bad_miners, each_mixture_of_two_bad_miners)
