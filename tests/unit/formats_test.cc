// Manifest, segment header, superblock, ballot and the holder's rule: layouts, strict parsing, signatures,
// quorum arithmetic, and the agreement that R2 stands on.
#include <gtest/gtest.h>
#include <map>
#include <random>
#include <set>

#include "objectstore/crypto/digest.h"
#include "objectstore/crypto/sign.h"
#include "objectstore/manifest.h"
#include "objectstore/superblock.h"
#include "tests/fakes/sample_formats.h"

namespace cumulus {
namespace {

TEST(SegmentHeader, RoundTripAndWorkedExample) {
  const Manifest manifest = sample_manifest();
  Bytes bytes;
  manifest.header.encode(bytes);
  ASSERT_EQ(bytes.size(), SegmentHeader::kEncodedSize);
  const auto decoded = SegmentHeader::decode(bytes);
  ASSERT_TRUE(decoded) << decoded.error().message();
  EXPECT_EQ(*decoded, manifest.header);
  // FORMAT.md's example: the first 40 bytes.
  EXPECT_EQ(to_hex(ByteView(bytes).first(24)),
            "43554d53010001010900000001000000"
            "0000000000000000");
}

// Whatever its version, the last 8 bytes are the beginning of the SHA-256 of all before.
void check_header(Bytes& header) {
  constexpr std::size_t kCheck = 8;
  const Digest digest = sha256(ByteView(header).first(header.size() - kCheck));
  std::copy_n(digest.begin(), kCheck, header.end() - kCheck);
}

TEST(SegmentHeader, RefusesWhatItDoesNotKnow) {
  Bytes good;
  sample_manifest().header.encode(good);
  const auto with = [&](std::size_t at, std::uint8_t value) {
    Bytes bytes = good;
    bytes[at] = value;
    check_header(bytes);
    return SegmentHeader::decode(bytes);
  };
  EXPECT_EQ(with(0, 0).error().kind(), ErrorKind::corrupt);       // magic
  EXPECT_EQ(with(4, 2).error().kind(), ErrorKind::unsupported);   // version
  EXPECT_EQ(with(6, 9).error().kind(), ErrorKind::unsupported);   // kind
  EXPECT_EQ(with(7, 2).error().kind(), ErrorKind::unsupported);   // suite
  EXPECT_EQ(with(8, 3).error().kind(), ErrorKind::corrupt);       // align
  EXPECT_EQ(with(9, 1).error().kind(), ErrorKind::corrupt);       // padding
  EXPECT_EQ(with(16, 1).error().kind(), ErrorKind::unsupported);  // features
  EXPECT_EQ(with(151, 1).error().kind(), ErrorKind::corrupt);     // reserved
  good.push_back(0);
  EXPECT_FALSE(SegmentHeader::decode(good));
}

TEST(SegmentHeader, AFlippedBitIsDamageAndNotTheFuture) {
  Bytes good;
  sample_manifest().header.encode(good);
  for (std::size_t at = 0; at < good.size(); ++at) {
    Bytes bytes = good;
    bytes[at] ^= static_cast<std::uint8_t>(1u << at % 8);
    const auto damaged = SegmentHeader::decode(bytes);
    ASSERT_FALSE(damaged) << "byte " << at;
    EXPECT_EQ(damaged.error().kind(), ErrorKind::corrupt) << "byte " << at;
  }
}

TEST(Manifest, RoundTripAndWorkedExample) {
  const Manifest manifest = sample_manifest();
  EXPECT_EQ(manifest.encode().size(), 508u);
  EXPECT_EQ(to_hex(ByteView(manifest.encode()).first(24)),
            "43554d4d0100010c43554d53010001010900000001000000");
  EXPECT_EQ(sample_claim().encode().size(), 168u);
  const auto decoded = Manifest::decode(manifest.encode());
  ASSERT_TRUE(decoded) << decoded.error().message();
  EXPECT_EQ(*decoded, manifest);
}

TEST(Manifest, EveryFlippedBitIsRefused) {
  const Bytes good = sample_manifest().encode();
  for (std::size_t at = 0; at < good.size(); ++at) {
    Bytes bytes = good;
    bytes[at] ^= static_cast<std::uint8_t>(1u << at % 8);
    EXPECT_FALSE(Manifest::decode(bytes)) << "byte " << at;
  }
  EXPECT_FALSE(Manifest::decode(ByteView(good).first(good.size() - 1)));
  Bytes longer = good;
  longer.push_back(0);
  EXPECT_FALSE(Manifest::decode(longer));
}

TEST(Manifest, AnotherOwnersSignatureIsRefused) {
  Manifest manifest = sample_manifest();
  sign_manifest(manifest, sample_key(2));  // signs well, but is not the volume's key
  const auto decoded = Manifest::decode(manifest.encode());
  ASSERT_FALSE(decoded);
  EXPECT_EQ(decoded.error().kind(), ErrorKind::corrupt);
}

TEST(Manifest, ImpossibleGeometryIsRefusedEvenWhenSigned) {
  const auto refused = [](auto change) {
    Manifest manifest = sample_manifest();
    change(manifest);
    sign_manifest(manifest, sample_key(1));
    return !Manifest::decode(manifest.encode());
  };
  EXPECT_TRUE(refused([](Manifest& x) { x.slice_length = x.segment_length / x.k - 1; }));
  EXPECT_TRUE(refused([](Manifest& x) { x.slice_length = UINT64_MAX / 2; }));
  EXPECT_TRUE(refused([](Manifest& x) { x.segment_length = 0; }));
  EXPECT_TRUE(refused([](Manifest& x) { x.first_group = x.last_group + 1; }));
  EXPECT_TRUE(refused([](Manifest& x) { x.first_group = 0; }));
  EXPECT_TRUE(refused([](Manifest& x) { x.k = 0, x.roots.resize(x.m); }));
  EXPECT_TRUE(refused([](Manifest& x) { x.k = 60, x.m = 40, x.roots.resize(100); }));
}

TEST(Manifest, StoredLengthsAddUpToTheSegment) {
  Manifest manifest = sample_manifest();
  for (const std::uint64_t length : {200u, 4096u, 4097u, 50'000u, 65'536u}) {
    manifest.segment_length = length;
    manifest.slice_length = 16'384;
    std::uint64_t total = 0;
    for (std::uint16_t i = 0; i < manifest.k; ++i) total += manifest.stored_length(i);
    EXPECT_EQ(total, length);
    EXPECT_EQ(manifest.stored_length(manifest.k), manifest.slice_length);
  }
}

// A flipped bit in the version or the features is damage, not the future: only a signature makes it that.
TEST(Manifest, OnlyWhatIsSignedIsOfANewerVersion) {
  const Bytes good = sample_manifest().encode();
  const std::size_t header = 8;  // magic, version, hash, leaves
  for (const std::size_t at :
       {std::size_t{4}, std::size_t{6}, std::size_t{7}, header + 4, header + 6, header + 7, header + 16}) {
    Bytes bytes = good;
    bytes[at] ^= 8;
    if (at >= header) {
      Bytes changed(bytes.begin() + header, bytes.begin() + header + SegmentHeader::kEncodedSize);
      check_header(changed);
      std::ranges::copy(changed, bytes.begin() + header);
    }
    const auto damaged = Manifest::decode(bytes);
    ASSERT_FALSE(damaged);
    EXPECT_EQ(damaged.error().kind(), ErrorKind::corrupt) << "byte " << at;
    const auto signature =
        sample_key(1).sign("cumulus manifest v1", ByteView(bytes).first(bytes.size() - 64));
    std::ranges::copy(signature, bytes.end() - 64);
    const auto newer = Manifest::decode(bytes);
    ASSERT_FALSE(newer);
    EXPECT_EQ(newer.error().kind(), ErrorKind::unsupported) << "byte " << at;
  }
}

TEST(Manifest, ChainBindsHeaderTagAndLength) {
  const Manifest manifest = sample_manifest();
  Manifest other = manifest;
  other.segment_length += 1;
  EXPECT_NE(other.chain(), manifest.chain());
  other = manifest;
  other.last_group_tag[3] ^= 1;
  EXPECT_NE(other.chain(), manifest.chain());
  other = manifest;
  other.header.previous_chain[0] ^= 1;
  EXPECT_NE(other.chain(), manifest.chain());
}

TEST(Superblock, RoundTripAndStrictness) {
  const Superblock record = sample_superblock();
  const Bytes good = record.encode();
  const auto decoded = Superblock::decode(good);
  ASSERT_TRUE(decoded) << decoded.error().message();
  EXPECT_EQ(*decoded, record);
  EXPECT_EQ(decoded->digest(), record.digest());
  for (std::size_t at = 0; at < good.size(); ++at) {
    Bytes bytes = good;
    bytes[at] ^= static_cast<std::uint8_t>(1u << at % 8);
    const auto damaged = Superblock::decode(bytes);
    ASSERT_FALSE(damaged) << "byte " << at;
    EXPECT_EQ(damaged.error().kind(), ErrorKind::corrupt) << "byte " << at;
  }
  for (std::size_t size = 0; size < good.size(); ++size)
    EXPECT_FALSE(Superblock::decode(ByteView(good).first(size)));
}

TEST(Superblock, AHolderTwiceIsRefused) {
  Superblock record = sample_superblock();
  record.holders.push_back(record.holders.front());
  sign_superblock(record, sample_key(1));
  EXPECT_FALSE(Superblock::decode(record.encode()));
}

TEST(Superblock, UnknownFeaturesAreUnsupported) {
  Superblock record = sample_superblock();
  record.features = 4;
  sign_superblock(record, sample_key(1));
  const auto decoded = Superblock::decode(record.encode());
  ASSERT_FALSE(decoded);
  EXPECT_EQ(decoded.error().kind(), ErrorKind::unsupported);
}

TEST(Superblock, AVersionThatIsSignedIsANewerOne) {
  Bytes bytes = sample_superblock().encode();
  bytes[4] = 2;
  const auto signature =
      sample_key(1).sign("cumulus superblock v1", ByteView(bytes).first(bytes.size() - 64));
  std::ranges::copy(signature, bytes.end() - 64);
  const auto newer = Superblock::decode(bytes);
  ASSERT_FALSE(newer);
  EXPECT_EQ(newer.error().kind(), ErrorKind::unsupported);
}

TEST(Superblock, TheLargestRecordFits) {
  Superblock record = sample_superblock();
  record.holders.clear();
  for (unsigned i = 0; i < Superblock::kHoldersMax; ++i) {
    MinerId id;
    id.bytes[0] = static_cast<std::uint8_t>(i);
    record.holders.push_back(id);
  }
  record.next_holders = record.holders;
  record.sealed_miners.assign(40'000, 1);
  record.sealed_writer.assign(8'000, 2);
  sign_superblock(record, sample_key(1));
  const Bytes bytes = record.encode();
  EXPECT_LE(bytes.size(), Superblock::kEncodedSizeMax);
  EXPECT_TRUE(Superblock::decode(bytes));
}

TEST(BallotClaim, RoundTripAndStrictness) {
  const BallotClaim claim = sample_claim();
  const Bytes good = claim.encode();
  EXPECT_LE(good.size(), BallotClaim::kEncodedSizeMax);
  ASSERT_TRUE(BallotClaim::decode(good));
  EXPECT_EQ(*BallotClaim::decode(good), claim);
  for (std::size_t at = 0; at < good.size(); ++at) {
    Bytes bytes = good;
    bytes[at] ^= static_cast<std::uint8_t>(1u << at % 8);
    EXPECT_FALSE(BallotClaim::decode(bytes)) << "byte " << at;
  }
}

TEST(HolderState, RoundTripInEveryShape) {
  for (unsigned shape = 0; shape < 4; ++shape) {
    HolderState state;
    if ((shape & 1) != 0) state.promised = sample_claim();
    if ((shape & 2) != 0) state.accepted = sample_superblock();
    const auto decoded = HolderState::decode(state.encode());
    ASSERT_TRUE(decoded) << shape;
    EXPECT_EQ(decoded->promised, state.promised);
    EXPECT_EQ(decoded->accepted, state.accepted);
  }
  HolderState mixed;
  mixed.promised = sample_claim(2);  // another volume's
  mixed.accepted = sample_superblock();
  EXPECT_FALSE(HolderState::decode(mixed.encode()));
}

TEST(QuorumShape, NumbersOfTheFormatPage) {
  const auto check = [](std::uint32_t miners, std::uint8_t m, std::uint32_t n, std::uint32_t q,
                        std::uint32_t away, std::uint32_t lie) {
    const QuorumShape shape = QuorumShape::for_volume(miners, m);
    EXPECT_EQ(shape.holders, n) << miners << "," << int{m};
    EXPECT_EQ(shape.quorum, q) << miners << "," << int{m};
    EXPECT_EQ(shape.may_be_away(), away) << miners << "," << int{m};
    EXPECT_EQ(shape.may_lie(), lie) << miners << "," << int{m};
  };
  check(6, 2, 6, 4, 2, 1);
  check(7, 2, 7, 5, 2, 2);
  check(20, 2, 7, 5, 2, 2);
  check(1, 2, 1, 1, 0, 0);
  check(2, 1, 2, 2, 0, 1);
  check(3, 0, 3, 3, 0, 2);
  check(4, 1, 4, 3, 1, 1);
  for (std::uint32_t n = 1; n <= Superblock::kHoldersMax; ++n)
    for (unsigned m = 0; m < 30; ++m)
      EXPECT_GT(2 * QuorumShape::quorum_of(n, static_cast<std::uint8_t>(m)), n);
}

Superblock record_of(std::uint64_t ballot, std::uint64_t version, std::uint64_t wall = 0) {
  static const Superblock base = sample_superblock();  // the rule never looks at signatures
  Superblock record = base;
  record.ballot = Ballot{1, ballot, {}};
  record.version = version;
  record.written_at = wall;
  return record;
}
BallotClaim claim_of(std::uint64_t ballot) {
  static const BallotClaim base = sample_claim();
  BallotClaim claim = base;
  claim.ballot = Ballot{1, ballot, {}};
  return claim;
}

TEST(HoldPromise, TakesEqualOrHigherOnly) {
  HolderState state;
  HolderAnswer answer = hold_promise(state, claim_of(5));
  ASSERT_TRUE(answer.accepted);
  state = answer.state;
  EXPECT_TRUE(hold_promise(state, claim_of(5)).accepted);
  EXPECT_FALSE(hold_promise(state, claim_of(4)).accepted);
  EXPECT_EQ(hold_promise(state, claim_of(4)).state.highest_ballot(), claim_of(5).ballot);
  EXPECT_TRUE(hold_promise(state, claim_of(6)).accepted);
  // An accepted record of a higher ballot counts as a promise of it.
  state.accepted = record_of(9, 1);
  EXPECT_FALSE(hold_promise(state, claim_of(8)).accepted);
  EXPECT_FALSE(hold_promise(state, sample_claim(2)).accepted);
}

TEST(HoldAccept, OnlyUnderTheHighestBallotAndAHigherVersion) {
  HolderState state;
  state.promised = claim_of(5);
  EXPECT_FALSE(hold_accept(state, record_of(4, 1)).accepted);
  state = hold_accept(state, record_of(5, 3)).state;
  ASSERT_TRUE(state.accepted);
  EXPECT_FALSE(hold_accept(state, record_of(5, 3, 99)).accepted);  // another record of the same version
  EXPECT_FALSE(hold_accept(state, record_of(5, 2)).accepted);
  EXPECT_FALSE(hold_accept(state, record_of(6, 3)).accepted);
  EXPECT_TRUE(hold_accept(state, record_of(5, 7)).accepted);
  EXPECT_TRUE(hold_accept(state, record_of(6, 4)).accepted);
  // The identical record again, even after a higher promise.
  state.promised = claim_of(8);
  EXPECT_TRUE(hold_accept(state, record_of(5, 3)).accepted);
  EXPECT_EQ(hold_accept(state, record_of(5, 3)).state.promised, state.promised);
  EXPECT_FALSE(hold_accept(state, record_of(5, 4)).accepted);
}

TEST(HoldAccept, ADestroyedVolumeTakesNothing) {
  HolderState state;
  Superblock last = record_of(5, 3);
  last.destroyed = true;
  state = hold_accept(state, last).state;
  EXPECT_FALSE(hold_accept(state, record_of(6, 4)).accepted);
  EXPECT_FALSE(hold_promise(state, claim_of(6)).accepted);
  EXPECT_TRUE(hold_accept(state, last).accepted);
}

// --- agreement
// -------------------------------------------------------------------------------------------------

// A holder set under attack: some holders are away for whole openings, some lie about freshness: they say yes
// to everything and keep, or show, whatever old signed state they like.
struct Cluster {
  QuorumShape shape;
  std::vector<HolderState> states;
  std::vector<std::vector<HolderState>> history;  // what a liar may show
  std::set<std::uint32_t> liars;
  bool broken_rule = false;  // the canary's: records are taken under any ballot

  HolderAnswer promise(std::uint32_t holder, const BallotClaim& claim, std::mt19937_64& random) {
    if (liars.contains(holder)) {
      HolderState shown = history[holder][random() % history[holder].size()];
      shown.promised = claim;
      return {true, shown};
    }
    HolderAnswer answer = hold_promise(states[holder], claim);
    states[holder] = answer.state;
    return answer;
  }
  HolderAnswer accept(std::uint32_t holder, const Superblock& record) {
    HolderState before = states[holder];
    if (broken_rule && before.accepted) before.accepted->ballot = {}, before.promised.reset();
    HolderAnswer answer = hold_accept(before, record);
    if (answer.accepted) {
      states[holder] = answer.state;
      history[holder].push_back(answer.state);
    }
    if (liars.contains(holder)) return {true, answer.state};
    return answer;
  }
};

// One writer: promise, adopt, write. Stepped one message at a time so that writers interleave.
struct Proposer {
  std::uint64_t number = 0;
  std::set<std::uint32_t> away;
  enum class Phase { promising, writing, stopped } phase = Phase::promising;
  std::set<std::uint32_t> asked;
  std::set<std::uint32_t> yes;
  std::optional<Superblock> newest;
  std::uint64_t version_seen = 0;
  std::optional<Superblock> proposal;
};

// Identifies a record by what its writer cannot repeat.
using RecordKey = std::pair<std::uint64_t, std::uint64_t>;
RecordKey key_of(const Superblock& record) { return {record.ballot.open_number, record.version}; }
Digest name_of(RecordKey key) {
  Bytes bytes(16);
  std::memcpy(bytes.data(), &key.first, 8);
  std::memcpy(bytes.data() + 8, &key.second, 8);
  return sha256(bytes);
}

struct Run {
  Cluster cluster;
  std::map<Digest, Digest> parent;  // record -> the record that it replaces
  std::vector<Digest> committed;
  std::mt19937_64 random;

  void propose(Proposer& writer) {
    Superblock record = record_of(writer.number, writer.version_seen + 1);
    if (writer.newest) record.previous = name_of(key_of(*writer.newest));
    parent[name_of(key_of(record))] = record.previous;
    writer.proposal = record;
    writer.asked.clear();
    writer.yes.clear();
  }
  void learn(Proposer& writer, const HolderState& state) {
    if (!state.accepted) return;
    writer.version_seen = std::max(writer.version_seen, state.accepted->version);
    if (writer.phase == Proposer::Phase::promising &&
        (!writer.newest || state.accepted->newer_than(*writer.newest)))
      writer.newest = state.accepted;
  }
  void step(Proposer& writer) {
    std::vector<std::uint32_t> left;
    for (std::uint32_t i = 0; i < cluster.shape.holders; ++i)
      if (!writer.asked.contains(i) && !writer.away.contains(i)) left.push_back(i);
    if (left.empty() || writer.phase == Proposer::Phase::stopped) {
      if (writer.phase == Proposer::Phase::writing)
        propose(writer);  // refused for its version: try a higher one
      return;
    }
    const std::uint32_t holder = left[random() % left.size()];
    writer.asked.insert(holder);
    const HolderAnswer answer = writer.phase == Proposer::Phase::promising
                                    ? cluster.promise(holder, claim_of(writer.number), random)
                                    : cluster.accept(holder, *writer.proposal);
    learn(writer, answer.state);
    if (!answer.accepted && answer.state.highest_ballot() > claim_of(writer.number).ballot) {
      writer.phase = Proposer::Phase::stopped;
      return;
    }
    if (answer.accepted) writer.yes.insert(holder);
    if (writer.yes.size() < cluster.shape.quorum) return;
    if (writer.phase == Proposer::Phase::writing) {
      committed.push_back(name_of(key_of(*writer.proposal)));
      writer.newest = writer.proposal;
      writer.version_seen = std::max(writer.version_seen, writer.proposal->version);
    }
    writer.phase = Proposer::Phase::writing;
    propose(writer);
  }
  bool descends(Digest from, Digest ancestor) const {
    for (int hops = 0; hops < 10'000; ++hops) {
      if (from == ancestor) return true;
      const auto found = parent.find(from);
      if (found == parent.end()) return false;
      from = found->second;
    }
    return false;
  }
  // Every two committed records lie on one chain: nothing that was stored is ever forgotten.
  bool agrees() const {
    for (const Digest& a : committed)
      for (const Digest& b : committed)
        if (!descends(a, b) && !descends(b, a)) return false;
    return true;
  }
};

std::set<std::uint32_t> draw(std::mt19937_64& random, std::uint32_t from, std::uint32_t count) {
  std::set<std::uint32_t> drawn;
  while (drawn.size() < count) drawn.insert(static_cast<std::uint32_t>(random() % from));
  return drawn;
}

// Runs one seed; true when all committed records lie on one chain.
bool agreement_holds(std::uint64_t seed, std::uint32_t extra_liars, bool broken_rule,
                     std::size_t* committed) {
  Run run;
  run.random.seed(seed);
  const auto m = static_cast<std::uint8_t>(1 + run.random() % 3);
  const auto miners = static_cast<std::uint32_t>(3 + run.random() % 9);
  run.cluster.shape = QuorumShape::for_volume(miners, m);
  const std::uint32_t n = run.cluster.shape.holders;
  run.cluster.states.resize(n);
  run.cluster.history.assign(n, {HolderState{}});
  run.cluster.broken_rule = broken_rule;
  run.cluster.liars = draw(run.random, n, std::min(n, run.cluster.shape.may_lie() + extra_liars));
  std::vector<Proposer> writers(2 + run.random() % 2);
  std::uint64_t next_number = 1;
  for (Proposer& writer : writers) writer.number = next_number++;
  for (int steps = 0; steps < 400; ++steps) {
    Proposer& writer = writers[run.random() % writers.size()];
    run.step(writer);
    if (run.random() % 40 == 0 || writer.phase == Proposer::Phase::stopped) {
      if (run.random() % 4 != 0) continue;
      writer = Proposer{};  // a home opens the volume anew
      writer.number = next_number++;
      writer.away = draw(run.random, n,
                         static_cast<std::uint32_t>(run.random() % (run.cluster.shape.may_be_away() + 1)));
    }
  }
  *committed += run.committed.size();
  return run.agrees();
}

TEST(Agreement, CommittedRecordsLieOnOneChain) {
  std::size_t committed = 0;
  for (std::uint64_t seed = 1; seed <= 400; ++seed)
    ASSERT_TRUE(agreement_holds(seed, 0, false, &committed)) << "seed " << seed;
  EXPECT_GT(committed, 2'000u);
}

// The check above can fail: one liar more than the arithmetic allows, or a holder that forgets its promises.
TEST(Agreement, CanariesAreCaught) {
  std::size_t committed = 0;
  int liars_caught = 0;
  int rule_caught = 0;
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    liars_caught += agreement_holds(seed, 1, false, &committed) ? 0 : 1;
    rule_caught += agreement_holds(seed, 0, true, &committed) ? 0 : 1;
  }
  EXPECT_GT(liars_caught, 0);
  EXPECT_GT(rule_caught, 0);
}

}  // namespace
}  // namespace cumulus
