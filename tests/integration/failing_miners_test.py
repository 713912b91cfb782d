#!/usr/bin/env python3
"""The programs of real_programs_test on a mount with 4+2 over six miners, while one or two miners at a time are killed, now
and then wiped, and started again, `volume repair` done before the next one is touched. Every program's own checks hold,
and in the end every slice is where it belongs."""
import threading
import time

import real_programs_test as programs
from lab import Lab, Wrong, expect, main


class Trouble:
    """Kills, wipes and restarts miners in a thread of its own while the block runs."""

    def __init__(self, lab):
        self.lab, self.ending, self.failure = lab, threading.Event(), None
        self.killed = self.wiped = self.repairs = 0
        self.thread = threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, kind, error, trace):
        self.ending.set()
        self.thread.join()
        if kind is None and self.failure:
            raise Wrong(f'the trouble itself failed: {self.failure}')

    def run(self):
        try:
            while not self.ending.is_set():
                self.once()
        except Exception as failure:  # told by whoever waits for the thread
            self.failure = failure

    def once(self):
        lab = self.lab
        chosen = lab.random.sample(range(1, lab.miners + 1), lab.random.choice([1, 2, 2]))
        for index in chosen:
            lab.miner('stop', index)
        self.killed += len(chosen)
        self.ending.wait(lab.random.uniform(0.2, 4))
        if lab.random.random() < 0.4:
            lab.miner('wipe', chosen[0])
            self.wiped += 1
        for index in chosen:
            lab.miner('start', index)
        deadline = time.monotonic() + 600
        while True:
            code, out, errors = lab.attempt('volume', 'repair', lab.volume, timeout=600)
            self.repairs += 1
            if code == 0:
                break
            expect(time.monotonic() < deadline, f'no repair gets done: {out.decode()[-800:]} {errors}')
        self.ending.wait(lab.random.uniform(0.1, 1))


def under_trouble(program):
    def test():
        with Lab(segment='4M') as lab:
            lab.up()
            drive = programs.Drive(lab)
            with Trouble(lab) as trouble:
                program.body(drive)
                while trouble.killed < 2 and trouble.failure is None:  # a program that is fast
                    time.sleep(0.1)
            print(f'  {trouble.killed} miners killed, {trouble.wiped} wiped, {trouble.repairs} repairs', flush=True)
            lab.sync(timeout=600)
            lab.repair()
            drive.done()
            lab.check_clean(data=True)
    test.__name__ = f'{program.__name__}_under_trouble'
    return test


TESTS = [under_trouble(program) for program in (programs.git, programs.sqlite, programs.rsync_and_tar, programs.restic, programs.borg,
                                                programs.rclone, programs.fio, programs.make, programs.postgresql)]

if __name__ == '__main__':
    main(*TESTS)
