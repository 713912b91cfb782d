// Ciphers, digests, derivation and signatures against the published vectors of their standards, and against
// plain models where batches or offsets come in.
#include <gtest/gtest.h>

#include "objectstore/crypto/aead.h"
#include "objectstore/crypto/aes_ctr.h"
#include "objectstore/crypto/digest.h"
#include "objectstore/crypto/kdf.h"
#include "objectstore/crypto/sign.h"
#include "tests/unit/crypto_samples.h"

namespace cumulus {
namespace {

// SHA-256: FIPS 180-4's examples.
TEST(Digest, StandardVectors) {
  EXPECT_EQ(to_hex(sha256({})), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(to_hex(sha256(view_of("abc"))),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(to_hex(sha256(view_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"))),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(to_hex(sha256(Bytes(1000000, 'a'))),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Digest, PartsGiveTheSameAsTheWhole) {
  const Bytes bytes = pattern(1000);
  for (std::size_t cut = 0; cut <= bytes.size(); cut += 37) {
    Sha256 hash;
    hash.update(ByteView(bytes).first(cut));
    hash.update({});
    hash.update(ByteView(bytes).subspan(cut));
    EXPECT_EQ(hash.finish(), sha256(bytes)) << "cut at " << cut;
  }
}

TEST(Digest, LeavesAreTheDigestsOfTheirBytes) {
  for (const std::size_t leaf : {1u, 33u, 64u, 65u, 512u, 4096u})
    for (std::size_t size = 0; size <= 40 * leaf; size += 1 + leaf * 7 / 5) {
      const Bytes bytes = pattern(size);
      const auto digests = sha256_leaves(bytes, leaf);
      ASSERT_EQ(digests.size(), (size + leaf - 1) / leaf);
      for (std::size_t i = 0; i < digests.size(); ++i)
        ASSERT_EQ(digests[i], sha256(ByteView(bytes).subspan(i * leaf, std::min(leaf, size - i * leaf))))
            << "leaf " << i << " of " << size << " bytes in leaves of " << leaf;
    }
}

// NIST's GCM specification (McGrew and Viega), test cases 13, 14 and 16: AES-256.
TEST(Aead, StandardVectors) {
  struct Vector {
    const char *key, *nonce, *aad, *plain, *sealed;
  };
  const Vector vectors[] = {{"0000000000000000000000000000000000000000000000000000000000000000",
                             "000000000000000000000000", "", "", "530f8afbc74536b9a963b4f1c4cb738b"},
                            {"0000000000000000000000000000000000000000000000000000000000000000",
                             "000000000000000000000000", "", "00000000000000000000000000000000",
                             "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"},
                            {"feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
                             "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
                             "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
                             "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
                             "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
                             "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
                             "76fc6ece0f4e1768cddf8853bb2d551b"}};
  for (const Vector& vector : vectors) {
    const AeadKey key(key_of(vector.key));
    const auto nonce = hex_array<12>(vector.nonce);
    const Bytes plain = hex(vector.plain);
    Bytes sealed(plain.size() + kAeadTagSize);
    key.seal(nonce, hex(vector.aad), plain, sealed);
    EXPECT_EQ(to_hex(sealed), vector.sealed);
    Bytes opened(plain.size());
    EXPECT_TRUE(key.open(nonce, hex(vector.aad), sealed, opened));
    EXPECT_EQ(opened, plain);
  }
}

TEST(Aead, NonceIsBothNumbersLittleEndian) {
  EXPECT_EQ(to_hex(make_nonce(0x0807060504030201u, 0x0c0b0a09u)), "0102030405060708090a0b0c");
}

TEST(Aead, AnyChangeIsRefusedAndLeavesNoPlaintext) {
  const AeadKey key(example_master());
  const Nonce nonce = make_nonce(1, 2);
  const Bytes aad = pattern(20);
  const Bytes plain = pattern(300);
  Bytes sealed(plain.size() + kAeadTagSize);
  key.seal(nonce, aad, plain, sealed);
  const auto refused = [&](const AeadKey& with, const Nonce& at, const Bytes& about, ByteView bytes) {
    Bytes opened(bytes.size() - kAeadTagSize, 0xEE);
    return !with.open(at, about, bytes, opened) && opened == Bytes(opened.size(), 0);
  };
  for (std::size_t i = 0; i < sealed.size(); ++i) {
    Bytes changed = sealed;
    changed[i] ^= static_cast<std::uint8_t>(1u << i % 8);
    ASSERT_TRUE(refused(key, nonce, aad, changed)) << "byte " << i;
  }
  EXPECT_TRUE(refused(key, make_nonce(1, 3), aad, sealed));
  EXPECT_TRUE(refused(key, make_nonce(2, 2), aad, sealed));
  EXPECT_TRUE(refused(key, nonce, pattern(19), sealed));
  EXPECT_TRUE(refused(key, nonce, {}, sealed));
  EXPECT_TRUE(refused(key, nonce, aad, ByteView(sealed).first(sealed.size() - 1)));
  EXPECT_TRUE(refused(key, nonce, aad, ByteView(sealed).last(kAeadTagSize)));
  EXPECT_TRUE(refused(AeadKey(key_of("01" + std::string(62, '0'))), nonce, aad, sealed));
  Bytes nothing;
  EXPECT_FALSE(key.open(nonce, aad, ByteView(sealed).first(15), nothing));
}

TEST(Aead, InPlaceIsTheSameAsOutOfPlace) {
  const AeadKey key(example_master());
  const Nonce nonce = make_nonce(5, 6);
  for (const std::size_t size : {0u, 1u, 15u, 16u, 17u, 255u, 256u, 4096u, 16384u, 70001u}) {
    const Bytes plain = pattern(size);
    Bytes sealed(size + kAeadTagSize);
    key.seal(nonce, {}, plain, sealed);
    Bytes place = plain;
    place.resize(size + kAeadTagSize);
    key.seal(nonce, {}, ByteView(place).first(size), place);
    ASSERT_EQ(place, sealed) << size;
    ASSERT_TRUE(key.open(nonce, {}, place, MutableByteView(place).first(size)));
    ASSERT_TRUE(equal(ByteView(place).first(size), plain)) << size;
  }
}

TEST(Aead, CellsAreSealedOneByOneAtTheirOffsets) {
  const AeadKey key(example_master());
  for (const std::uint32_t cell : {512u, 4096u, 16384u})
    for (const std::size_t size :
         {std::size_t{0}, std::size_t{1}, std::size_t{cell} - 1, std::size_t{cell}, std::size_t{cell} + 1,
          std::size_t{cell} * 5, std::size_t{cell} * 5 + 100}) {
      const Bytes plain = pattern(size);
      const std::size_t cells = (size + cell - 1) / cell;
      Bytes sealed(size + cells * kAeadTagSize);
      key.seal_cells(77, 8192, cell, plain, sealed);
      for (std::size_t i = 0; i < cells; ++i) {
        const ByteView part = ByteView(plain).subspan(i * cell, std::min<std::size_t>(cell, size - i * cell));
        Bytes one(part.size() + kAeadTagSize);
        const std::size_t at = i * (cell + kAeadTagSize);
        key.seal(make_nonce(77, 8192 + static_cast<std::uint32_t>(at)), {}, part, one);
        ASSERT_TRUE(equal(one, ByteView(sealed).subspan(at, one.size()))) << "cell " << i << " of " << cell;
      }
      Bytes opened(size);
      ASSERT_TRUE(key.open_cells(77, 8192, cell, sealed, opened));
      ASSERT_EQ(opened, plain);
      if (size == 0) continue;
      EXPECT_FALSE(key.open_cells(77, 8193, cell, sealed, opened));
      EXPECT_FALSE(key.open_cells(77, 8192, cell, ByteView(sealed).first(sealed.size() - 1), opened));
      EXPECT_FALSE(key.open_cells(77, 8192, cell, sealed, MutableByteView(opened).first(size - 1)));
      sealed[sealed.size() - 1] ^= 1;
      EXPECT_FALSE(key.open_cells(77, 8192, cell, sealed, opened));
    }
}

TEST(Aead, CellsThatChangePlacesAreRefused) {
  const AeadKey key(example_master());
  const Bytes plain(2 * 4096, 9);
  Bytes sealed(2 * (4096 + kAeadTagSize));
  key.seal_cells(1, 0, 4096, plain, sealed);
  std::rotate(sealed.begin(), sealed.begin() + 4096 + kAeadTagSize, sealed.end());
  Bytes opened(plain.size());
  EXPECT_FALSE(key.open_cells(1, 0, 4096, sealed, opened));
}

TEST(AeadDeathTest, OffsetsBeyondTheNonceAreABug) {
  const AeadKey key(example_master());
  const Bytes plain(100);
  Bytes sealed(116);
  EXPECT_DEATH(key.seal_cells(1, 0xFFFFFFF0u, 4096, plain, sealed), "sizes_match");
  EXPECT_DEATH(key.seal_cells(1, 0, 50, plain, sealed), "sizes_match");
}

// NIST SP 800-38A, F.5.5.
TEST(AesCtr, StandardVector) {
  const SecretKey key = key_of("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
  const auto start = hex_array<16>("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
  const Bytes plain =
      hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
          "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710");
  Bytes bytes = plain;
  aes_ctr(key, start, 0, bytes);
  EXPECT_EQ(to_hex(bytes),
            "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
            "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6");
  aes_ctr(key, start, 0, bytes);
  EXPECT_EQ(bytes, plain);
}

TEST(AesCtr, EveryOffsetContinuesTheSameStream) {
  const SecretKey key = example_master();
  const SecretKey other = key_of(std::string(64, '7'));
  // Close to every carry of the 128-bit counter.
  for (const char* start : {"00000000000000000000000000000000", "000000000000000000000000fffffffe",
                            "0000000000000000fffffffffffffffe", "ffffffffffffffffffffffffffffffff"}) {
    const auto counter = hex_array<16>(start);
    Bytes whole = pattern(700);
    aes_ctr(key, counter, 0, whole);
    for (std::size_t offset = 0; offset < 100; ++offset)
      for (const std::size_t size : {0u, 1u, 15u, 16u, 17u, 100u, 600u}) {
        const Bytes plain = pattern(700);
        Bytes part(plain.begin() + static_cast<std::ptrdiff_t>(offset),
                   plain.begin() + static_cast<std::ptrdiff_t>(offset + size));
        if (size == 15) {  // the thread's key schedule is another's in between
          Bytes others = part;
          aes_ctr(other, counter, offset, others);
          ASSERT_FALSE(equal(others, ByteView(whole).subspan(offset, size)));
        }
        aes_ctr(key, counter, offset, part);
        ASSERT_TRUE(equal(part, ByteView(whole).subspan(offset, size))) << start << " at " << offset;
      }
  }
}

// RFC 5869, A.1 and A.3.
TEST(Hkdf, StandardVectors) {
  Bytes out(42);
  hkdf_bytes(hex("000102030405060708090a0b0c"), Bytes(22, 0x0b), hex("f0f1f2f3f4f5f6f7f8f9"), out);
  EXPECT_EQ(to_hex(out),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
  hkdf_bytes({}, Bytes(22, 0x0b), {}, out);
  EXPECT_EQ(to_hex(out),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
  const SecretKey extracted = key_of("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5");
  EXPECT_EQ(to_hex(hkdf_expand(extracted, hex("f0f1f2f3f4f5f6f7f8f9")).view()),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf");
}

// RFC 7914, section 12 (the first 32 of 64 bytes: PBKDF2 makes them alone).
TEST(Scrypt, StandardVectors) {
  EXPECT_EQ(to_hex(scrypt("", {}, {4, 1, 1})->view()),
            "77d6576238657b203b19ca42c18a0497f16b4844e3074ae8dfdffa3fede21442");
  EXPECT_EQ(to_hex(scrypt("password", view_of("NaCl"), {10, 8, 16})->view()),
            "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162");
  EXPECT_EQ(to_hex(scrypt("pleaseletmein", view_of("SodiumChloride"), {14, 8, 1})->view()),
            "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2");
}

TEST(Scrypt, CostsOutOfBoundsAreRefusedAtOnce) {
  for (const ScryptCost cost : {ScryptCost{0, 8, 1}, ScryptCost{4, 0, 1}, ScryptCost{4, 8, 0},
                                ScryptCost{4, 33, 1}, ScryptCost{4, 8, 17}, ScryptCost{21, 8, 1},
                                ScryptCost{16, 1, 1}, ScryptCost{64, 8, 1}, ScryptCost{255, 32, 16}}) {
    const auto key = scrypt("x", {}, cost);
    ASSERT_FALSE(key) << int{cost.n_log2} << " " << int{cost.r} << " " << int{cost.p};
    EXPECT_EQ(key.error().kind(), ErrorKind::invalid);
  }
}

// RFC 8032, 7.1: tests 1 to 3. Our messages always carry a label, so signatures are checked below.
TEST(Sign, PublicKeysOfTheStandard) {
  const std::pair<const char*, const char*> pairs[] = {
      {"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
       "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"},
      {"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
       "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"},
      {"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
       "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"}};
  for (const auto& [seed, key] : pairs) EXPECT_EQ(to_hex(SigningKey(hex_array<32>(seed)).public_key()), key);
}

// Of RFC 8032's own Python (section 6) over "cumulus test v1", a zero byte, "abc".
TEST(Sign, LabelZeroMessageIsWhatIsSigned) {
  const SigningKey key(hex_array<32>("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"));
  const auto signature = key.sign("cumulus test v1", view_of("abc"));
  EXPECT_EQ(to_hex(signature),
            "e88ac1c6108c53a83c39b188081a981a4cb413cb0e320f47bbdbf020b1369d07"
            "c517392290ddef97aa923fc3b93c2e07cb7a09b6cc4634478036069396d4fb0b");
  EXPECT_TRUE(verify_signature(key.public_key(), "cumulus test v1", view_of("abc"), signature));
  EXPECT_FALSE(verify_signature(key.public_key(), "cumulus test v2", view_of("abc"), signature));
  EXPECT_FALSE(verify_signature(key.public_key(), "cumulus test v1", view_of("abd"), signature));
  EXPECT_FALSE(verify_signature(key.public_key(), "cumulus test v1a", view_of("bc"), signature));
  EXPECT_FALSE(verify_signature({}, "cumulus test v1", view_of("abc"), signature));
  for (std::size_t i = 0; i < signature.size(); ++i) {
    auto changed = signature;
    changed[i] ^= 4;
    EXPECT_FALSE(verify_signature(key.public_key(), "cumulus test v1", view_of("abc"), changed)) << i;
  }
}

TEST(Secret, MovingLeavesNothingBehind) {
  SecretKey first = example_master();
  const SecretKey second = std::move(first);
  EXPECT_EQ(to_hex(first.view()), std::string(64, '0'));  // NOLINT(bugprone-use-after-move): what is tested
  EXPECT_TRUE(equal(second.view(), example_master().view()));
  EXPECT_TRUE(equal(second.clone().view(), second.view()));
}

}  // namespace
}  // namespace cumulus
