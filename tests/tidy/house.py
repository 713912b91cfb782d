"""The house as tables: who may include whom, the one address of each third-party library, and what must not be
written at all. Each entry carries the reason that a violation prints. tidy.py reads them."""

# A floor sees the floors below it. Every arrow points at objectstore.
FLOORS = {
    'objectstore': {'sees': set(),
                    'why': 'the heart knows no network, no file system, no device and no program: it declares the ports '
                           'that others fill (slice_transport.h)'},
    'netclient': {'sees': {'objectstore'}, 'why': 'the network floor fills the heart\'s port and knows nothing above it'},
    'fs': {'sees': {'objectstore'}, 'why': 'a file system is written against the heart\'s door only; fs, blockdev and '
                                           'netclient never see each other'},
    'blockdev': {'sees': {'objectstore'}, 'why': 'a disk is written against the heart\'s door only; fs, blockdev and '
                                                 'netclient never see each other'},
    'tools': {'sees': {'objectstore', 'netclient', 'fs', 'blockdev'}, 'why': 'nothing outside tests/ sees tests'},
    'tests': {'sees': {'objectstore', 'netclient', 'fs', 'blockdev', 'tools'}, 'why': 'tests see everything'},
}

# Rooms that other floors may enter besides the doors. crypto is pure (no I/O, clock or threads) and the only
# address of OpenSSL's primitives: pinned identities, signatures and digests on the wire come from there.
OPEN_ROOMS = {'objectstore/base', 'objectstore/io', 'objectstore/crypto'}

_BASE = {'objectstore/base'}
_DOOR = _BASE | {'objectstore', 'objectstore/io', 'objectstore/crypto'}
_PURE = 'a pure room: values in, values out; no I/O, no clock, no threads, so that it can be tested and reused anywhere'
ROOMS = {
    'objectstore/base': {'sees': set(), 'why': 'base is the closed list of nouns under everything; it includes nothing'},
    'objectstore/io': {'sees': _BASE, 'why': 'io knows files and time, not what is in them'},
    'objectstore/crypto': {'sees': _BASE, 'why': _PURE},
    'objectstore/erasure': {'sees': _BASE, 'why': _PURE},
    'objectstore/placement': {'sees': _BASE, 'why': _PURE},
    'objectstore': {'sees': _DOOR, 'why': 'the door promises; it must not show the rooms behind it'},
    'objectstore/log': {'sees': _DOOR, 'why': 'the log is under index, cache and store, and knows none of them'},
    'objectstore/index': {'sees': _DOOR | {'objectstore/log'}, 'why': 'the index is the log replayed: it reads change '
                          'records and knows neither cache nor miners'},
    'objectstore/cache': {'sees': _DOOR | {'objectstore/log'}, 'why': 'the cache holds segments as they are; it knows '
                          'neither the index nor the miners'},
    'netclient/wire': {'sees': set(), 'why': 'the wire is shared with the miner: messages know nothing of the client\'s '
                       'connections and policy'},
    'tools/miner': {'sees': {'tools', 'netclient/wire'}, 'why': 'a miner shares the wire with the client and nothing '
                    'else of it, and never sees the other programs'},
    'tools/cumulus': {'sees': {'tools', 'netclient'}, 'why': 'the client meets miners over the network only'},
    'tools': {'sees': set(), 'why': 'what the programs share must not depend on one of them'},
}

_TESTS = r'tests/.*'
_IO = r'objectstore/io/.*'
_TOOLS = r'tools/.*'
# A command waits for its daemon, or for a process it started, in its own process, which has no reactor to hold up.
_COMMANDS = r'tools/cumulus/(client|devnet_commands|image_copy)\.cc'
# (what is included, the files that may, why). The first entry that matches decides.
HOME_OF_HEADERS = [
    (r'openssl/', [r'objectstore/crypto/.*', r'netclient/wire/tls_(records|stream)\.cc', r'blockdev/nbd/tls\.cc', r'tests/bench/.*', r'tests/unit/tls_records_test\.cc'],
     'OpenSSL is included in objectstore/crypto and in the TLS files of the two network doors (netclient/wire for miners, '
     'blockdev/nbd for disk clients with certificates or shared keys), so that what handles keys can be reviewed there'),
    (r'intel-ipsec-mb\.h', [r'objectstore/crypto/.*', r'tests/bench/.*'], 'multi-buffer hashing is one room\'s business: objectstore/crypto'),
    (r'sodium', [r'objectstore/crypto/sign\.cc'], 'signatures are made and checked in one file: objectstore/crypto/sign.cc'),
    (r'libnbd\.h', [r'tools/cumulus/nbd_disk\.cc'], 'libnbd copies disks for the image commands: one file'),
    (r'isa-l', [r'objectstore/erasure/.*', r'tests/bench/.*'], 'ISA-L stays inside objectstore/erasure'),
    (r'rocksdb/', [r'objectstore/index/rocksdb_[a-z_]+\.(h|cc)', r'tools/miner/store/rocks_[a-z_]+\.cc', r'tests/(crash|contract)/.*'],
     'RocksDB stays behind the engine port (objectstore/index/rocksdb_*) and the miner\'s index port '
     '(tools/miner/store/rocks_*)'),
    (r'liburing', [r'objectstore/io/uring_[a-z_]+\.cc', r'tests/guest/forget_sync\.cc'], 'io_uring stays inside objectstore/io'),
    (r'dlfcn\.h', [r'tests/guest/forget_sync\.cc'], 'nothing is loaded or replaced at run time, except by a canary'),
    (r'fmt/', [r'objectstore/base/format\.h'], 'fmt is reached through objectstore/base/format.h'),
    (r'spdlog/', [r'objectstore/base/log\.cc'], 'spdlog is reached through objectstore/base/log.h'),
    (r'toml\+\+/', [r'netclient/miner_list\.cc'], 'TOML is read in one strict parser: netclient/miner_list.cc'),
    (r'nlohmann/', [_TOOLS, _TESTS], 'JSON belongs to the programs; what is stored or signed has our own layout'),
    (r'CLI/', [_TOOLS], 'only programs have a command line'),
    (r'boost/beast/', [r'tools/miner/metrics_server\.cc'], 'HTTP is spoken in one file: tools/miner/metrics_server.cc'),
    (r'boost/asio/', [_IO, r'netclient/.*', _TOOLS, _TESTS],
     'Asio is reached through objectstore/io/task.h and runtime.h; sockets belong to netclient and the programs'),
    (r'fuse3?/|fuse', [r'fs/fuse/.*'], 'libfuse stays inside fs/fuse'),
    (r'gtest/|gmock/', [_TESTS], 'tests only'),
    (r'benchmark/', [r'tests/bench/.*'], 'benchmarks only'),
    (r'fuzzer/', [r'tests/fuzz/.*'], 'fuzz targets only'),
    (r'sys/random\.h', [r'objectstore/base/random\.cc'], 'randomness is handed in (base/random.h), so that one seed replays a run'),
    (r'random', [r'objectstore/base/random\.cc', _TESTS], 'randomness is handed in (base/random.h), so that one seed replays a run'),
    (r'sys/mman\.h', [r'objectstore/base/bytes\.cc', r'objectstore/io/.*', _TOOLS, _TESTS], 'buffers are made in one place: objectstore/base/bytes.cc'),
    (r'malloc\.h', [r'tools/cumulus/heap_trimmer\.cc'], 'one place tells the allocator what to do: tools/cumulus/heap_trimmer.cc'),
    (r'thread|future', [_IO, _TESTS, _COMMANDS], 'threads are made in objectstore/io only: long work goes through Runtime::offload'),
    (r'mutex|condition_variable|shared_mutex|semaphore|latch|barrier',
     [_IO, r'objectstore/base/.*', r'objectstore/log/sync_barrier\.(h|cc)', r'objectstore/erasure/codec\.cc', _TESTS],
     'one reactor thread owns a volume\'s state, so there is nothing to lock; the R1 barrier, which RocksDB\'s threads '
     'call, and the pure codec\'s table cache are the exceptions'),
    (r'iostream', [_TESTS], 'libraries do not print: they return an error or log through base/log.h'),
    (r'(unistd|fcntl|poll|spawn|signal|csignal|sys/[a-z_]+|netdb|arpa/[a-z]+|netinet/[a-z]+|time|pwd|grp|termios|dirent|pthread|sched|linux/[a-z_]+)(\.h)?$',
     [_IO, r'netclient/(address\.cc|wire/tls_stream\.cc)', r'fs/fuse/.*', r'blockdev/nbd/.*', _TOOLS, _TESTS],
     'the system is called in objectstore/io, in the doors and in the programs; everything else is handed a file system, '
     'a clock and a transport, so that the simulator can stand in for them'),
]

STANDARD_HEADERS = set('''algorithm any array atomic bit bitset cassert cctype cerrno cfloat charconv chrono cinttypes climits cmath
compare complex concepts coroutine cstddef cstdarg cstdint cstdio cstdlib cstring ctime deque exception expected filesystem
forward_list fstream functional initializer_list iomanip ios iosfwd iterator limits list locale map memory memory_resource
new numbers numeric optional ostream istream queue ranges ratio regex set source_location span sstream stack stdexcept
streambuf string string_view system_error tuple type_traits typeindex typeinfo unordered_map unordered_set utility valarray
variant vector version strings.h'''.split())

_HANDED_IN = 'is handed in (objectstore/io/runtime.h, objectstore/base/clock.h), so that the simulator can replay it'
_CALL = r'(?:(?<![\w.>:])|(?<![\w>])::)'  # a call of a global function: not a member's, not another scope's
# (pattern in code outside tests, objectstore/base and objectstore/io; excepted files; why)
RAW = [
    (r'\b(steady_clock|system_clock|high_resolution_clock|clock_gettime|gettimeofday)\b', [_COMMANDS], f'time {_HANDED_IN}'),
    (_CALL + r'time\s*\(\s*(nullptr|NULL|0)\s*\)', [], f'time {_HANDED_IN}'),
    (r'\bstd::(jthread|thread|async)\b|\bpthread_create\b', [], 'threads are made in objectstore/io only: use Runtime::offload'),
    (r'\bstd::this_thread\b|' + _CALL + r'(usleep|nanosleep|sleep)\s*\(', [_COMMANDS], f'waiting {_HANDED_IN}: use Runtime::sleep_for'),
    (r'\bstd::(random_device|mt19937(_64)?)\b|' + _CALL + r'(rand|srand|random|getrandom|drand48)\s*\(', [],
     'randomness is handed in (objectstore/base/random.h), so that one seed replays a run'),
    (r'\basio::detached\b|boost::asio::detached\b', [],
     'no detached work: spawn through a TaskGroup and join it, so that close() leaves nothing behind'),
]

# (pattern in code, where, excepted files, why)
FORBIDDEN = [
    (r'\branges::copy\s*\(', r'(objectstore|netclient|fs|blockdev|tools)/', [], 'GCC 12 copies one byte at a time: copy_bytes() (base/bytes.h), or std::copy'),
    (r'\bthrow\b(?!\s*\()', r'(objectstore|netclient|fs|blockdev)/', [r'objectstore/base/bytes\.cc', r'netclient/miner_list\.cc'],
     'errors are returned as Result or Status; no exception crosses a function'),
    (r'\busing\s+namespace\b', r'(objectstore|netclient|fs|blockdev|tools)/.*\.h$', [], 'a header must not change what names mean for those who include it'),
    (r'\bstd::(cout|cerr|clog)\b', r'(objectstore|netclient|fs|blockdev)/', [], 'libraries do not print'),
    (r'\b(assert)\s*\(', r'(objectstore|netclient|fs|blockdev|tools)/', [],
     'use CHECK (base/check.h): assertions on data paths stay on in release builds'),
    (r'\bconst_cast\b', r'(objectstore|netclient|fs|blockdev|tools)/',
     [r'objectstore/crypto/kdf\.cc', r'objectstore/erasure/codec\.cc', r'tools/cumulus/frame\.cc'],
     'who may write a thing is said by its type (OpenSSL, ISA-L and sendmsg take const input as non-const: three '
     'exceptions)'),
]

# (pattern in any file, why)
WORDS = [
    (r'\b(TODO|FIXME|XXX|HACK)\b', 'a promise not kept: do it, or write an issue'),
    (r'(?i)\b(not implemented|unimplemented|stub(bed)?|placeholder)\b', 'what is in the tree works, or is not in the tree'),
    (r'\b(DISABLED_\w+|GTEST_SKIP)\b', 'a test that does not run proves nothing'),
    (r'(?<!RFC \d{4} )(?<!RFC \d{3} )§', 'points at a document that is not in the tree: name the page beside the code '
                                         '(FORMAT.md, PROTOCOL.md, README.md); sections of RFCs are welcome'),
    (r'architecture\.md|cli\.md|style\.md|\.\./shared|(?<![\w.])/work/', 'names a file that is not in the tree'),
    (r'NOTE_FROM', 'a note between people does not belong in the tree'),
]

LINES_MAX = 600

# What a page need not name: itself, and the build, which lies in every folder.
BUILD_FILES = {'README.md', 'CMakeLists.txt', 'CMakePresets.json'}
