#!/usr/bin/env python3
"""Shows that each rule of tidy.py can fail: plants one violation at a time in the tree as read and expects the rule to
find it in that file; and that innocent lines ring no alarm. Writes nothing.
"""
import os
import sys

import tidy

HEADER = '// A planted file.\n#pragma once\n'
SOURCE = '// A planted file.\n'
# (rule, file, text to append; a file that is not there is new)
CANARIES = [
    ('floors', 'objectstore/base/bytes.h', '#include "netclient/tcp_transport.h"\n'),
    ('floors', 'netclient/tcp_transport.cc', '#include "tools/sizes.h"\n'),
    ('floors', 'netclient/tcp_transport.cc', '#include "objectstore/store/pusher.h"\n'),
    ('floors', 'tools/sizes.cc', '#include "tests/fakes/sim_network.h"\n'),
    ('floors', 'fs/planted.h', HEADER + '#include "netclient/tcp_transport.h"\n'),
    ('floors', 'blockdev/planted.h', HEADER + '#include "objectstore/index/engine.h"\n'),
    ('rooms', 'objectstore/crypto/aead.cc', '#include "objectstore/io/file.h"\n'),
    ('rooms', 'objectstore/log/log_writer.cc', '#include "objectstore/store/pusher.h"\n'),
    ('rooms', 'objectstore/index/rows.cc', '#include "objectstore/cache/slot_store.h"\n'),
    ('rooms', 'objectstore/object_store.h', '#include "objectstore/log/change.h"\n'),
    ('rooms', 'netclient/wire/frame.cc', '#include "netclient/window.h"\n'),
    ('rooms', 'tools/miner/miner.cc', '#include "netclient/tcp_transport.h"\n'),
    ('full_paths', 'objectstore/store/pusher.cc', '#include "pusher.h"\n'),
    ('third_party', 'objectstore/store/pusher.cc', '#include <openssl/evp.h>\n'),
    ('third_party', 'objectstore/store/pusher.cc', '#include <rocksdb/db.h>\n'),
    ('third_party', 'objectstore/log/log_writer.cc', '#include <liburing.h>\n'),
    ('third_party', 'objectstore/store/pusher.cc', '#include <boost/asio/ip/tcp.hpp>\n'),
    ('third_party', 'objectstore/store/pusher.cc', '#include <a_new_library/one.h>\n'),
    ('third_party', 'objectstore/store/pusher.cc', '#include <mutex>\n'),
    ('third_party', 'netclient/window.cc', '#include <sys/socket.h>\n'),
    ('raw_calls', 'objectstore/store/pusher.cc', 'auto planted = std::chrono::steady_clock::now();\n'),
    ('raw_calls', 'objectstore/store/pusher.cc', 'auto planted = ::time(nullptr);\n'),
    ('raw_calls', 'netclient/window.cc', 'std::thread planted;\n'),
    ('raw_calls', 'tools/miner/miner.cc', 'void planted() { usleep(1); }\n'),
    ('raw_calls', 'objectstore/placement/placement.cc', 'std::random_device planted;\n'),
    ('raw_calls', 'tools/miner/miner.cc', 'auto planted = asio::detached;\n'),
    ('words', 'objectstore/store/pusher.cc', '// TO' 'DO: later\n'),
    ('words', 'packaging/check', '# not ' 'implemented\n'),
    ('words', 'tests/unit/formats_test.cc', '// GTEST_' 'SKIP()\n'),
    ('words', 'objectstore/FORMAT.md', 'as \u00a75.3 says\n'),
    ('words', 'README.md', 'see ../sha' 'red/design\n'),
    ('forbidden', 'objectstore/store/pusher.cc', 'void planted() { throw 1; }\n'),
    ('forbidden', 'objectstore/base/bytes.h', 'using namespace std;\n'),
    ('forbidden', 'objectstore/store/pusher.cc', 'void planted() { assert(true); }\n'),
    ('forbidden', 'objectstore/store/pusher.cc', 'void planted() { std::ranges::copy(one, other.begin()); }\n'),
    ('headers', 'objectstore/planted.h', '// No guard.\nint planted();\n'),
    ('headers', 'objectstore/planted.h', '#pragma once\nint planted();\n'),
    ('lengths', 'objectstore/planted.h', HEADER + '\n' * tidy.LINES_MAX),
    ('pages', 'objectstore/planted/one.h', HEADER),
    ('pages', '.planted/run', 'exit\n'),
    ('named', 'objectstore/crypto/planted.h', HEADER),
    ('named', 'tests/fuzz/planted.h', HEADER),
    ('built', 'tests/unit/planted_test.cc', SOURCE),
]
# Said so that a rule is no alarm that always rings: these are right as they are.
INNOCENT = [
    ('objectstore/store/pusher.cc', '// time(nullptr), std::thread and throw in a comment\n'),
    ('objectstore/store/pusher.cc', 'const char* planted = "std::this_thread and throw in a string";\n'),
    ('netclient/window.cc', '// RFC 8446 \u00a75.1\n'),
    ('tools/miner/miner.cc', 'void planted() { runtime.sleep_for(1); view.time(nullptr); }\n'),
]


def main() -> int:
    top = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..'))
    tree = tidy.Tree(top)
    rules = {rule.__name__[len('rule_'):]: rule for rule in tidy.RULES}
    failures = 0
    for name, path, text in CANARIES:
        where = os.path.dirname(path) if name == 'pages' else path
        before = [v for v in rules[name](tree) if v.path == where]
        found = [v for v in rules[name](tree.with_planted(path, text)) if v.path == where]
        if len(found) <= len(before):
            print(f'NOT CAUGHT by {name}: {text.strip() or "blank lines"!r} in {path}')
            failures += 1
    before = {(v.rule, v.path, v.message) for v in tidy.check(tree)}
    for path, text in INNOCENT:
        for v in tidy.check(tree.with_planted(path, text)):
            if (v.rule, v.path, v.message) not in before:
                print(f'FALSE ALARM: {v.path}:{v.line}: [{v.rule}] {v.message}')
                failures += 1
    for rule in sorted(set(rules) - {name for name, _, _ in CANARIES}):
        print(f'no canary shows that rule {rule} can fail')
        failures += 1
    print(f'{len(CANARIES)} planted violations, {len(INNOCENT)} innocent lines, {failures} failures')
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
