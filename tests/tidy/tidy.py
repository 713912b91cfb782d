#!/usr/bin/env python3
"""Checks the house: who includes whom, what stands where, and what must not be there at all.

    tests/tidy/tidy.py [ROOT]    prints one line for each violation, with the reason; exit code 1 when there are any

Each rule is a function over the tree that yields violations; RULES names them. canaries.py plants violations of
each rule and expects them to be found. Standard library only.
"""
import copy
import fnmatch
import os
import re
import sys
from typing import Iterator, NamedTuple

from house import (BUILD_FILES, FLOORS, FORBIDDEN, HOME_OF_HEADERS, LINES_MAX, OPEN_ROOMS, RAW, ROOMS, STANDARD_HEADERS, WORDS)


class Violation(NamedTuple):
    rule: str
    path: str
    line: int
    message: str


class Source(NamedTuple):
    path: str
    lines: list  # as written
    code: list  # the same lines with comments and string contents blanked


def blank_comments(text: str) -> list:
    """The lines of a C++ text with comments and the insides of strings replaced, so that rules see code only."""
    token = re.compile(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.S)

    def blank(match):
        found = match.group(0)
        if found.startswith('"') and text[:match.start()].rsplit('\n', 1)[-1].lstrip().startswith('#include'):
            return found
        if found.startswith("'") and re.search(r'[0-9a-fA-F]$', text[:match.start()][-1:] or ' '):
            return found  # a digit separator, not a character
        return re.sub(r'[^\n]', ' ', found)

    return token.sub(blank, text).split('\n')


class Tree:
    def __init__(self, root: str):
        self.root = root
        self.files = []
        # What a person makes in the tree (quickstart's own folder has sockets in it) is no part of the house.
        with open(os.path.join(root, '.gitignore'), encoding='utf-8') as file:
            ignored = {os.path.join(root, line.strip().strip('/')) for line in file if line.startswith('/')}
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(f for f in folders if f not in ('.git', 'build', '__pycache__')
                                and os.path.join(folder, f) not in ignored)
            self.files += [os.path.relpath(os.path.join(folder, name), root) for name in sorted(names)]
        self.texts = {}
        self.sources = [self.read(p) for p in self.files if p.endswith(('.h', '.cc'))]

    def with_planted(self, path: str, text: str) -> 'Tree':
        """This tree with `text` appended to a file, or as a new file; nothing is written to disk."""
        tree = copy.copy(self)
        tree.texts = {**self.texts, path: (self.text(path) if path in self.files else '') + text}
        tree.files = self.files if path in self.files else self.files + [path]
        if path.endswith(('.h', '.cc')):
            tree.sources = [s for s in self.sources if s.path != path] + [tree.read(path)]
        return tree

    def text(self, path: str) -> str:
        if path not in self.texts:
            with open(os.path.join(self.root, path), encoding='utf-8', errors='replace') as file:
                self.texts[path] = file.read()
        return self.texts[path]

    def read(self, path: str) -> Source:
        text = self.text(path)
        return Source(path, text.split('\n'), blank_comments(text))


def includes(source: Source) -> Iterator[tuple]:
    for number, line in enumerate(source.lines, 1):
        match = re.match(r'\s*#\s*include\s*(["<])([^">]+)[">]', line)
        if match:
            yield number, match.group(1), match.group(2)


def floor_of(path: str) -> str:
    return path.split('/')[0]


def room_of(path: str) -> str:
    """objectstore/io/file.h -> objectstore/io; a header directly on a floor -> the floor itself (its door)."""
    parts = path.split('/')
    return '/'.join(parts[:2]) if len(parts) > 2 else parts[0]


def rule_floors(tree: Tree) -> Iterator[Violation]:
    for source in tree.sources:
        here = floor_of(source.path)
        for number, kind, target in includes(source):
            there = floor_of(target)
            if kind != '"' or here == there or here not in FLOORS:
                continue
            if there not in FLOORS[here]['sees']:
                yield Violation('floors', source.path, number, f'{here} includes {target}: {FLOORS[here]["why"]}')
            elif len(target.split('/')) > 2 and here not in ('tools', 'tests') and room_of(target) not in OPEN_ROOMS:
                yield Violation('floors', source.path, number,
                                f'{here} includes {target}: a sub-folder is a room of its floor; other floors use the '
                                f'headers that lie directly in {there}/, and the rooms {", ".join(sorted(OPEN_ROOMS))}')


def rule_rooms(tree: Tree) -> Iterator[Violation]:
    for source in tree.sources:
        here = room_of(source.path)
        if here not in ROOMS:
            continue
        for number, kind, target in includes(source):
            there = room_of(target)
            if kind != '"' or there == here:
                continue
            if floor_of(target) == floor_of(source.path) and there not in ROOMS[here]['sees']:
                yield Violation('rooms', source.path, number, f'{here} includes {target}: {ROOMS[here]["why"]}')
            elif here.startswith('tools/') and there.startswith('netclient') and there not in ROOMS[here]['sees']:
                yield Violation('rooms', source.path, number, f'{here} includes {target}: {ROOMS[here]["why"]}')


def rule_full_paths(tree: Tree) -> Iterator[Violation]:
    known = set(tree.files)
    for source in tree.sources:
        for number, kind, target in includes(source):
            if kind == '"' and target not in known:
                yield Violation('full_paths', source.path, number,
                                f'"{target}" is no file of the tree: includes give the full path from the root, so that '
                                'a reader and this check know who includes whom')


def rule_third_party(tree: Tree) -> Iterator[Violation]:
    for source in tree.sources:
        for number, kind, target in includes(source):
            if kind != '<' or target in STANDARD_HEADERS:
                continue
            for prefix, addresses, why in HOME_OF_HEADERS:
                if re.match(prefix, target):
                    if not any(re.fullmatch(a, source.path) for a in addresses):
                        yield Violation('third_party', source.path, number, f'<{target}> has another address: {why}')
                    break
            else:
                yield Violation('third_party', source.path, number,
                                f'<{target}> has no address in tests/tidy/house.py: a new library wants one place where '
                                'it is included and a line in README.md that says why')


def rule_raw_calls(tree: Tree) -> Iterator[Violation]:
    for source in tree.sources:
        if floor_of(source.path) == 'tests' or room_of(source.path) in ('objectstore/base', 'objectstore/io'):
            continue
        for number, line in enumerate(source.code, 1):
            for pattern, except_in, why in RAW:
                match = re.search(pattern, line)
                if match and not any(re.fullmatch(e, source.path) for e in except_in):
                    yield Violation('raw_calls', source.path, number, f'{match.group(0).strip()}: {why}')


def rule_words(tree: Tree) -> Iterator[Violation]:
    for path in tree.files:
        if path.startswith('tests/tidy/') or path == 'LICENSE' or path.endswith(('.png', '.bin', '.gz')):
            continue
        for number, line in enumerate(tree.text(path).split('\n'), 1):
            for pattern, why in WORDS:
                match = re.search(pattern, line)
                if match:
                    yield Violation('words', path, number, f'"{match.group(0)}": {why}')


def rule_forbidden(tree: Tree) -> Iterator[Violation]:
    for source in tree.sources:
        for number, line in enumerate(source.code, 1):
            for pattern, where, except_in, why in FORBIDDEN:
                if re.match(where, source.path) and not any(re.fullmatch(e, source.path) for e in except_in):
                    match = re.search(pattern, line)
                    if match:
                        yield Violation('forbidden', source.path, number, f'{match.group(0).strip()}: {why}')


def rule_headers(tree: Tree) -> Iterator[Violation]:
    for source in tree.sources:
        stem = os.path.basename(source.path)[:-3]
        own_header = re.match(rf'#include "([\w/]+/)?{stem}\.h"', source.lines[0])  # the paragraph stands there
        if not source.lines[0].startswith('//') and not own_header:
            yield Violation('headers', source.path, 1,
                            'a file begins with a short paragraph: what it is, why, what it must never do, which thread')
        if source.path.endswith('.h') and '#pragma once' not in source.lines:
            yield Violation('headers', source.path, 1, 'no #pragma once: a header can be included twice')


def rule_lengths(tree: Tree) -> Iterator[Violation]:
    for source in tree.sources:
        if len(source.lines) - 1 > LINES_MAX:
            yield Violation('lengths', source.path, len(source.lines),
                            f'{len(source.lines) - 1} lines, more than {LINES_MAX}: is it still one thing?')


def rule_pages(tree: Tree) -> Iterator[Violation]:
    folders = {os.path.dirname(p) for p in tree.files}
    for folder in sorted(folders):
        if os.path.join(folder, 'README.md') not in tree.files:
            yield Violation('pages', folder or '.', 1,
                            'no README.md: each folder has a page that says what it is, what lies in it, what it must never do')


def rule_named(tree: Tree) -> Iterator[Violation]:
    """A page names each file of its folder: whole, without its ending, or by a pattern in `backticks`. A .cc without a
    header is part of what its name begins with."""
    for path in tree.files:
        folder, name = os.path.split(path)
        page = os.path.join(folder, 'README.md')
        if page not in tree.files or name in BUILD_FILES or name.startswith('.'):
            continue
        text = tree.text(page)
        if '](../README.md)' in text:  # the table is in the page above
            text += tree.text(os.path.normpath(os.path.join(folder, '..', 'README.md')))
        stem = name.rsplit('.', 1)[0]
        part = name.endswith('.cc') and f'{path[:-3]}.h' not in tree.files
        codes = {os.path.basename(word) for code in re.findall(r'`([^`\n]+)`', text) for word in re.split(r'[\s,;:]+', code)}
        if not (re.search(rf'(?<![\w-]){re.escape(stem)}(?![\w])', text)
                or any(fnmatch.fnmatchcase(name, code) for code in codes if code.strip('*.'))
                or any(part and stem.startswith(re.sub(r'\..*', '', code) + '_') for code in codes)):
            yield Violation('named', path, 1, f'{page} does not name it: a page says of each file of its folder what it is')


def rule_built(tree: Tree) -> Iterator[Violation]:
    named = set()
    for path in tree.files:
        if os.path.basename(path) == 'CMakeLists.txt':
            text = re.sub(r'#[^\n]*', '', tree.text(path))
            named.update(re.findall(r'\$\{PROJECT_SOURCE_DIR\}/([\w./+-]+)', text))
            named.update(os.path.normpath(os.path.join(os.path.dirname(path), name))
                         for name in re.findall(r'[\w./+-]+', text))
    for source in tree.sources:
        if source.path.endswith('.cc') and source.path not in named:
            yield Violation('built', source.path, 1,
                            'no CMakeLists.txt names it: what is not in the build is not checked by anyone')


RULES = [rule_floors, rule_rooms, rule_full_paths, rule_third_party, rule_raw_calls, rule_words, rule_forbidden,
         rule_headers, rule_lengths, rule_pages, rule_named, rule_built]


def check(tree: Tree) -> list:
    return [violation for rule in RULES for violation in rule(tree)]


def main() -> int:
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..')
    violations = check(Tree(os.path.abspath(root)))
    for v in violations:
        print(f'{v.path}:{v.line}: [{v.rule}] {v.message}')
    print(f'{len(violations)} violations of {len(RULES)} rules')
    return 1 if violations else 0


if __name__ == '__main__':
    sys.exit(main())
