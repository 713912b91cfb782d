#include "fs/records.h"

#include <bit>

#include "objectstore/base/codec.h"

namespace cumulus {
namespace {

constexpr std::uint8_t kInodeVersion = 1;
constexpr std::uint64_t kFlagHoles = 1;
constexpr std::uint64_t kFlagsKnown = kFlagHoles;

std::uint32_t varint32(Decoder& in) { return static_cast<std::uint32_t>(in.varint_max(~std::uint32_t{0})); }

// Aumasson and Bernstein, "SipHash: a fast short-input PRF".
class SipHash {
 public:
  explicit SipHash(const NameSalt& key) {
    std::uint64_t k0 = 0;
    std::uint64_t k1 = 0;
    std::memcpy(&k0, key.data(), 8);
    std::memcpy(&k1, key.data() + 8, 8);
    v_[0] = k0 ^ 0x736f6d6570736575u;
    v_[1] = k1 ^ 0x646f72616e646f6du;
    v_[2] = k0 ^ 0x6c7967656e657261u;
    v_[3] = k1 ^ 0x7465646279746573u;
  }
  std::uint64_t of(std::string_view text) {
    const std::size_t whole = text.size() & ~std::size_t{7};
    for (std::size_t at = 0; at < whole; at += 8) {
      std::uint64_t word = 0;
      std::memcpy(&word, text.data() + at, 8);
      absorb(word);
    }
    std::uint64_t last = std::uint64_t{text.size()} << 56;
    for (std::size_t i = whole; i < text.size(); ++i)
      last |= std::uint64_t{static_cast<std::uint8_t>(text[i])} << (8 * (i - whole));
    absorb(last);
    v_[2] ^= 0xff;
    for (int i = 0; i < 4; ++i) round();
    return v_[0] ^ v_[1] ^ v_[2] ^ v_[3];
  }

 private:
  void absorb(std::uint64_t word) {
    v_[3] ^= word;
    round();
    round();
    v_[0] ^= word;
  }
  void round() {
    v_[0] += v_[1];
    v_[1] = std::rotl(v_[1], 13) ^ v_[0];
    v_[0] = std::rotl(v_[0], 32);
    v_[2] += v_[3];
    v_[3] = std::rotl(v_[3], 16) ^ v_[2];
    v_[0] += v_[3];
    v_[3] = std::rotl(v_[3], 21) ^ v_[0];
    v_[2] += v_[1];
    v_[1] = std::rotl(v_[1], 17) ^ v_[2];
    v_[2] = std::rotl(v_[2], 32);
  }
  std::uint64_t v_[4];
};

}  // namespace

Bytes Inode::encode() const {
  Bytes bytes;
  bytes.reserve(64);
  Encoder out(bytes);
  out.u8(kInodeVersion);
  out.varint(holes ? kFlagHoles : 0);
  out.varint(mode);
  out.varint(uid);
  out.varint(gid);
  out.varint(nlink);
  out.varint(rdev);
  out.varint(tree);
  out.varint(parent);
  out.varint(allocated);
  for (const std::int64_t time : {atime, mtime, ctime, btime}) out.u64(static_cast<std::uint64_t>(time));
  return bytes;
}

Result<Inode> Inode::decode(ByteView bytes) {
  Decoder in(bytes);
  Inode inode;
  const std::uint8_t version = in.u8();
  const std::uint64_t flags = in.varint();
  inode.holes = (flags & kFlagHoles) != 0;
  inode.mode = varint32(in);
  inode.uid = varint32(in);
  inode.gid = varint32(in);
  inode.nlink = varint32(in);
  inode.rdev = varint32(in);
  inode.tree = varint32(in);
  inode.parent = in.varint_max(kObjectIdMax);
  inode.allocated = in.varint();
  for (std::int64_t* time : {&inode.atime, &inode.mtime, &inode.ctime, &inode.btime})
    *time = static_cast<std::int64_t>(in.u64());
  if (version > kInodeVersion || (flags & ~kFlagsKnown) != 0)
    return fail(ErrorKind::unsupported,
                "a file's header is of a newer version: this program is too old for it");
  if (!in.done() || version != kInodeVersion)
    return fail(ErrorKind::corrupt, "a file's header does not parse");
  return inode;
}

Bytes EntryRecord::encode() const {
  Bytes bytes;
  bytes.reserve(name.size() + 12);
  Encoder out(bytes);
  out.varint(object);
  out.u8(type);
  out.bytes(view_of(name));
  return bytes;
}

Result<EntryRecord> EntryRecord::decode(ByteView bytes) {
  Decoder in(bytes);
  EntryRecord entry;
  entry.object = in.varint_max(kObjectIdMax);
  entry.type = in.u8();
  const ByteView name = in.bytes(in.remaining());
  if (!in.done() || entry.type > 15 || name.size() > kNameMax || name.empty() != (entry.object == 0))
    return fail(ErrorKind::corrupt, "a directory's entry does not parse");
  entry.name = text_of(name);
  return entry;
}

std::uint64_t cookie_of(const NameSalt& salt, std::string_view name) {
  const std::uint64_t cookie = SipHash(salt).of(name) >> 1;
  return cookie < kCookieMin ? cookie + kCookieMin : cookie;
}

Bytes cookie_key(std::uint64_t cookie) {
  Bytes key(8);
  for (int i = 0; i < 8; ++i)
    key[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(cookie >> (56 - 8 * i));
  return key;
}

Result<std::uint64_t> cookie_of_key(ByteView key) {
  if (key.size() != 8) return fail(ErrorKind::corrupt, "a directory's key does not parse");
  std::uint64_t cookie = 0;
  for (const std::uint8_t byte : key) cookie = cookie << 8 | byte;
  return cookie;
}

}  // namespace cumulus
