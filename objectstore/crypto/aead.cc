#include "objectstore/crypto/aead.h"

#include <algorithm>
#include <openssl/crypto.h>

#include "objectstore/base/check.h"
#include "objectstore/crypto/multi_buffer.h"

namespace cumulus {

struct AeadKey::Schedule {
  alignas(64) gcm_key_data key;
};

namespace {

// True when `sealed` bytes are `plain` bytes in cells of `cell_size`, and every offset fits a nonce.
bool sizes_match(std::uint32_t first_offset, std::size_t cell_size, std::size_t plain, std::size_t sealed) {
  CHECK(cell_size > 0);
  const std::size_t cells = plain / cell_size + (plain % cell_size != 0 ? 1 : 0);
  return sealed == plain + cells * kAeadTagSize && sealed <= (std::size_t{1} << 32) - first_offset;
}

}  // namespace

Nonce make_nonce(std::uint64_t nonce64, std::uint32_t offset) {
  Nonce nonce;
  std::memcpy(nonce.data(), &nonce64, sizeof nonce64);
  std::memcpy(nonce.data() + sizeof nonce64, &offset, sizeof offset);
  return nonce;
}

AeadKey::AeadKey(const SecretKey& key) : schedule_(std::make_unique<Schedule>()) {
  IMB_AES256_GCM_PRE(&cipher_lanes(), key.view().data(), &schedule_->key);
}

AeadKey::~AeadKey() { wipe({reinterpret_cast<std::uint8_t*>(&schedule_->key), sizeof schedule_->key}); }

void AeadKey::seal(const Nonce& nonce, ByteView aad, ByteView plain, MutableByteView out) const {
  CHECK(out.size() == plain.size() + kAeadTagSize);
  gcm_context_data context;
  IMB_AES256_GCM_ENC(&cipher_lanes(), &schedule_->key, &context, out.data(), plain.data(), plain.size(),
                     nonce.data(), aad.data(), aad.size(), out.data() + plain.size(), kAeadTagSize);
}

bool AeadKey::open(const Nonce& nonce, ByteView aad, ByteView sealed, MutableByteView out) const {
  if (sealed.size() < kAeadTagSize) return false;
  CHECK(out.size() == sealed.size() - kAeadTagSize);
  gcm_context_data context;
  std::array<std::uint8_t, kAeadTagSize> tag;
  std::array<std::uint8_t, kAeadTagSize> wanted;
  std::memcpy(wanted.data(), sealed.data() + out.size(), wanted.size());
  IMB_AES256_GCM_DEC(&cipher_lanes(), &schedule_->key, &context, out.data(), sealed.data(), out.size(),
                     nonce.data(), aad.data(), aad.size(), tag.data(), tag.size());
  if (CRYPTO_memcmp(tag.data(), wanted.data(), tag.size()) == 0) return true;
  wipe(out);
  return false;
}

void AeadKey::seal_cells(std::uint64_t nonce64, std::uint32_t first_offset, std::uint32_t cell_size,
                         ByteView plain, MutableByteView sealed) const {
  CHECK(sizes_match(first_offset, cell_size, plain.size(), sealed.size()));
  const std::size_t stride = cell_size + kAeadTagSize;
  std::size_t at = 0;
  for (std::size_t done = 0; done < plain.size(); at += stride) {
    const ByteView cell = plain.subspan(done, std::min<std::size_t>(cell_size, plain.size() - done));
    seal(make_nonce(nonce64, first_offset + static_cast<std::uint32_t>(at)), {}, cell,
         sealed.subspan(at, cell.size() + kAeadTagSize));
    done += cell.size();
  }
}

bool AeadKey::open_cells(std::uint64_t nonce64, std::uint32_t first_offset, std::uint32_t cell_size,
                         ByteView sealed, MutableByteView plain) const {
  if (!sizes_match(first_offset, cell_size, plain.size(), sealed.size())) return false;
  const std::size_t stride = cell_size + kAeadTagSize;
  std::size_t at = 0;
  for (std::size_t done = 0; done < plain.size(); at += stride) {
    const MutableByteView cell = plain.subspan(done, std::min<std::size_t>(cell_size, plain.size() - done));
    if (!open(make_nonce(nonce64, first_offset + static_cast<std::uint32_t>(at)), {},
              sealed.subspan(at, cell.size() + kAeadTagSize), cell))
      return false;
    done += cell.size();
  }
  return true;
}

}  // namespace cumulus
