// The key tree, the recovery code, the key file and the TLS identity: worked examples made by an independent
// program from README.md's text, and what people and damaged disks do to them.
#include <cctype>
#include <gtest/gtest.h>
#include <set>

#include "objectstore/crypto/digest.h"
#include "objectstore/crypto/key_file.h"
#include "objectstore/crypto/key_tree.h"
#include "objectstore/crypto/recovery_code.h"
#include "objectstore/crypto/tls_identity.h"
#include "tests/unit/crypto_samples.h"

namespace cumulus {
namespace {

constexpr const char* kExampleCode =
    "cumulus1-000G4-0R40M-30E20-9185G-R38E1-W8124-GK2GA-HC5RR-34D1P-70X3R-FT94H-QVJN";
constexpr ScryptCost kCheap{4, 8, 1};

class Scripted final : public Random {
 public:
  explicit Scripted(std::vector<Bytes> draws) : draws_(std::move(draws)) {}
  void fill(MutableByteView into) override {
    ASSERT_LT(next_, draws_.size());
    ASSERT_EQ(into.size(), draws_[next_].size());
    std::ranges::copy(draws_[next_++], into.begin());
  }

 private:
  std::vector<Bytes> draws_;
  std::size_t next_ = 0;
};

TEST(KeyTree, WorkedExample) {
  const KeyTree keys(example_master());
  EXPECT_EQ(keys.volume_id().hex(), "e5873897128b49fb4cd6efe5311d9793440c3f47ca55ac37cede164a1c1211e4");
  EXPECT_EQ(to_hex(keys.signing_key().public_key()),
            "78713152824b59bd500f2573091b2040c02c736c5a28a77572778f89d72d5790");
  EXPECT_EQ(to_hex(keys.tls_seed().view()),
            "3efa78ef3d96fc138b732caaa6a7b27628fef149a38e26c8924b8e1d461e2457");
  EXPECT_EQ(to_hex(keys.index_key().view()),
            "5c682c3c96295bc784c2860f1df1d8529e8d69e8912085138f175b72eb30a69c");
  EXPECT_EQ(to_hex(keys.label_key().view()),
            "43bbb2955fab067b9d658e9f783afca0626fcd73dc3f16c99d617273a0143e69");
  const auto salt = hex_array<16>("101112131415161718191a1b1c1d1e1f");
  EXPECT_EQ(to_hex(keys.segment_key({SegmentKind::log, 3, 7}, salt).view()),
            "fa54ce2b9562ecaa393e828f8a81faef0228b019f2502da731b0d8a1f48890a0");
}

TEST(KeyTree, EverySegmentHasItsOwnKey) {
  const KeyTree keys(example_master());
  std::set<std::string> seen;
  const auto add = [&](const KeyTree& tree, SegmentKind kind, Epoch epoch, Sequence sequence,
                       std::uint8_t salt) {
    const std::array<std::uint8_t, 16> bytes{salt};
    return seen.insert(to_hex(tree.segment_key({kind, epoch, sequence}, bytes).view())).second;
  };
  EXPECT_TRUE(add(keys, SegmentKind::log, 1, 1, 0));
  EXPECT_FALSE(add(keys, SegmentKind::log, 1, 1, 0));
  EXPECT_TRUE(add(keys, SegmentKind::bulk, 1, 1, 0));
  EXPECT_TRUE(add(keys, SegmentKind::log, 2, 1, 0));
  EXPECT_TRUE(add(keys, SegmentKind::log, 1, 2, 0));
  EXPECT_TRUE(add(keys, SegmentKind::log, 1, 1, 1));
  EXPECT_TRUE(add(KeyTree(key_of(std::string(64, '5'))), SegmentKind::log, 1, 1, 0));
}

TEST(RecoveryCode, WorkedExample) {
  EXPECT_EQ(encode_recovery_code(example_master()), kExampleCode);
  const auto key = decode_recovery_code(kExampleCode);
  ASSERT_TRUE(key) << key.error().message();
  EXPECT_TRUE(equal(key->view(), example_master().view()));
}

TEST(RecoveryCode, AsPeopleTypeIt) {
  const std::string code = kExampleCode;
  std::string lower = code;
  std::string spaced;
  std::string letters;
  std::string joined;
  for (char& c : lower) c = static_cast<char>(std::tolower(c));
  for (const char c : code) {
    spaced += c == '-' ? ' ' : c;
    letters += c == '0' ? 'o' : c == '1' ? 'l' : c;
    if (c != '-') joined += c;
  }
  for (const std::string& typed :
       {lower, spaced, letters, joined, "  " + code + "\n", "C U M U L U S - I" + code.substr(8)}) {
    const auto key = decode_recovery_code(typed);
    ASSERT_TRUE(key) << typed << ": " << key.error().message();
    EXPECT_TRUE(equal(key->view(), example_master().view()));
  }
}

TEST(RecoveryCode, RandomKeysComeBack) {
  std::mt19937_64 random(11);
  for (int i = 0; i < 500; ++i) {
    std::array<std::uint8_t, 32> bytes;
    std::ranges::copy(random_bytes(random, 32), bytes.begin());
    const auto key = decode_recovery_code(encode_recovery_code(SecretKey(bytes)));
    ASSERT_TRUE(key);
    ASSERT_EQ(key->array(), bytes);
  }
}

// Every single wrong symbol and every swap of two symbols is noticed.
TEST(RecoveryCode, MistypedAndSwappedSymbolsAreNoticed) {
  const std::string code = kExampleCode;
  for (std::size_t i = 9; i < code.size(); ++i) {
    if (code[i] == '-') continue;
    for (const char wrong : std::string_view("0123456789ABCDEFGHJKMNPQRSTVWXYZ")) {
      std::string typed = code;
      typed[i] = wrong;
      const auto key = decode_recovery_code(typed);
      ASSERT_EQ(key.has_value(), wrong == code[i]) << typed;
      if (!key) {
        ASSERT_EQ(key.error().kind(), ErrorKind::invalid);
      }
    }
    for (std::size_t j = i + 1; j < code.size(); ++j) {
      std::string typed = code;
      std::swap(typed[i], typed[j]);
      if (code[j] != '-' && typed != code) {
        ASSERT_FALSE(decode_recovery_code(typed)) << typed;
      }
    }
  }
}

TEST(RecoveryCode, ErrorsSayWhatToLookAt) {
  const std::string code = kExampleCode;
  const auto message = [](const std::string& typed) {
    const auto key = decode_recovery_code(typed);
    EXPECT_FALSE(key) << typed;
    return key ? std::string() : key.error().message();
  };
  EXPECT_NE(message("").find("begins with 'cumulus1'"), std::string::npos);
  EXPECT_NE(message("cumul").find("too short"), std::string::npos);
  EXPECT_NE(message("cumulus2" + code.substr(8)).find("newer version"), std::string::npos);
  EXPECT_NE(message(code.substr(0, code.size() - 1)).find("58 symbols"), std::string::npos);
  EXPECT_NE(message(code + "7").find("60 symbols"), std::string::npos);
  EXPECT_NE(message(code + std::string(100000, '7')).find("too many"), std::string::npos);
  std::string typed = code;
  typed[16] = 'U';
  EXPECT_NE(message(typed).find("a 'U' in group 2"), std::string::npos);
  typed[16] = '\xC3';
  EXPECT_NE(message(typed).find("an unknown sign in group 2"), std::string::npos);
  typed[16] = typed[16 + 1] = '9';
  EXPECT_NE(message(typed).find("checksum"), std::string::npos);
}

TEST(KeyFile, WorkedExamples) {
  const Bytes clear =
      hex("43554d554c4b455901000000000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
          "15f6e8b83ee81b46fad5ee2f8cdfb80ee555d13cac1dda4e9ceeda6f2e75dd04");
  EXPECT_EQ(to_hex(encode_key_file(example_master())), to_hex(clear));
  EXPECT_FALSE(*key_file_is_wrapped(clear));
  EXPECT_TRUE(equal(decode_key_file(clear, {})->view(), example_master().view()));

  Scripted random({hex("404142434445464748494a4b4c4d4e4f"), hex("606162636465666768696a6b")});
  const auto wrapped = encode_key_file(example_master(), "correct horse", random, kCheap);
  ASSERT_TRUE(wrapped);
  EXPECT_EQ(to_hex(*wrapped),
            "43554d554c4b45590100010004080100404142434445464748494a4b4c4d4e4f606162636465666768696a6b"
            "d18e13b0ce877db8639cb7ba04fda0e18edcb1f721d1400fa4ac77778de7eab3e4cdd03c2ffe3e407c8b3e9fafb877e3"
            "af04495c434f7c06dccace9ac1d593a1a881e68328d78278e38743f98de3f181");
  EXPECT_TRUE(*key_file_is_wrapped(*wrapped));
  const auto key = decode_key_file(*wrapped, "correct horse");
  ASSERT_TRUE(key) << key.error().message();
  EXPECT_TRUE(equal(key->view(), example_master().view()));
}

TEST(KeyFile, WrongPassphraseIsDenied) {
  SystemRandom random;
  const auto file = encode_key_file(example_master(), "right", random, kCheap);
  ASSERT_TRUE(file);
  for (const auto& passphrase :
       {std::optional<std::string_view>(), std::optional<std::string_view>(""),
        std::optional<std::string_view>("wrong"), std::optional<std::string_view>("right ")}) {
    const auto key = decode_key_file(*file, passphrase);
    ASSERT_FALSE(key);
    EXPECT_EQ(key.error().kind(), ErrorKind::denied) << key.error().message();
  }
  EXPECT_TRUE(decode_key_file(*file, "right"));
  // Two files of one key and passphrase have nothing in common but their first bytes.
  EXPECT_NE(*file, *encode_key_file(example_master(), "right", random, kCheap));
}

TEST(KeyFile, DamageIsCorruptWithOrWithoutAPassphrase) {
  SystemRandom random;
  for (const Bytes& good :
       {encode_key_file(example_master()), *encode_key_file(example_master(), "p", random, kCheap)}) {
    for (std::size_t i = 0; i < good.size(); ++i) {
      Bytes bad = good;
      bad[i] ^= 0x10;
      const auto key = decode_key_file(bad, "p");
      ASSERT_FALSE(key) << i;
      ASSERT_EQ(key.error().kind(), ErrorKind::corrupt) << i;
      ASSERT_FALSE(key_file_is_wrapped(bad));
      ASSERT_EQ(decode_key_file(ByteView(good).first(i), "p").error().kind(), ErrorKind::corrupt) << i;
    }
    Bytes longer = good;
    longer.push_back(0);
    EXPECT_EQ(decode_key_file(longer, "p").error().kind(), ErrorKind::corrupt);
  }
  EXPECT_EQ(decode_key_file({}, {}).error().kind(), ErrorKind::corrupt);
  EXPECT_EQ(decode_key_file(Bytes(100000), {}).error().kind(), ErrorKind::corrupt);
}

// Fields that only a faulty or newer program writes, under a right checksum.
TEST(KeyFile, ReservedFieldsAndVersionsAreStrict) {
  const auto with = [](const Bytes& good, std::size_t at, std::uint8_t value) {
    Bytes bytes(good.begin(), good.end() - 32);
    bytes[at] = value;
    const Digest sum = sha256(bytes);
    bytes.insert(bytes.end(), sum.begin(), sum.end());
    return decode_key_file(bytes, "p").error().kind();
  };
  SystemRandom random;
  const Bytes clear = encode_key_file(example_master());
  const Bytes wrapped = *encode_key_file(example_master(), "p", random, kCheap);
  for (const Bytes& file : {clear, wrapped}) {
    EXPECT_EQ(with(file, 8, 2), ErrorKind::unsupported);
    EXPECT_EQ(with(file, 10, file == clear ? 1 : 0), ErrorKind::corrupt);  // the other kind has another size
    EXPECT_EQ(with(file, 10, 2), ErrorKind::corrupt);
    EXPECT_EQ(with(file, 11, 1), ErrorKind::corrupt);
  }
  EXPECT_EQ(with(wrapped, 15, 1), ErrorKind::corrupt);
  EXPECT_EQ(with(wrapped, 12, 40), ErrorKind::invalid);  // a cost that no machine pays
  EXPECT_EQ(with(wrapped, 14, 2), ErrorKind::denied);    // what was sealed with another cost
}

TEST(TlsIdentity, CertificateBindsTheSeedsKey) {
  const auto seed = hex_array<32>("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
  const TlsIdentity identity = TlsIdentity::from_seed(seed);
  EXPECT_EQ(to_hex(identity.public_key()),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
  const std::string certificate = to_hex(identity.certificate_der());
  // SubjectPublicKeyInfo of RFC 8410, section 10.1.
  EXPECT_NE(certificate.find("302a300506032b6570032100" + to_hex(identity.public_key())), std::string::npos);
  // PrivateKeyInfo of RFC 8410, section 10.3.
  EXPECT_EQ(to_hex(identity.private_key_der()), "302e020100300506032b657004220420" + to_hex(seed));
  // Deterministic: a machine shows the same certificate after a restart.
  EXPECT_EQ(TlsIdentity::from_seed(seed).certificate_der(), identity.certificate_der());
  EXPECT_NE(TlsIdentity::from_seed({}).certificate_der(), identity.certificate_der());
}

}  // namespace
}  // namespace cumulus
